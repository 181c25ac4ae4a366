// Package testenv gives tests what they need from the machine.
package testenv

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// postgresVariable names a PostgreSQL server on which tests may make schemas.
const postgresVariable = "CLOSEOUT_TEST_POSTGRES_URL"

// Databases runs a test on each database that Closeout supports, with the URL of
// an empty one.
func Databases(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "ledger #1?.db")) // a path that a URL has to escape
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, Postgres(t))
	})
}

// Skip skips a test that needs what isn't there. In CI it fails instead.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("may not be skipped in CI: " + reason)
	}
	t.Skip(reason)
}

// Postgres makes an empty schema, drops it after the test and gives its URL.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv(postgresVariable)
	if server == "" {
		Skip(t, postgresVariable+" is not set; it wants the URL of a PostgreSQL database, in which the test makes a schema of its own")
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s is not a URL", postgresVariable)
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	schema := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := db.Exec(fmt.Sprintf("CREATE SCHEMA %s", schema)); err != nil {
		t.Fatalf("%s: %v", postgresVariable, err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec(fmt.Sprintf("DROP SCHEMA %s CASCADE", schema)); err != nil {
			t.Errorf("drop the test's schema: %v", err)
		}
		_ = db.Close()
	})
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}
