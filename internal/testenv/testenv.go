// Package testenv provides databases, stores and certificates for tests.
package testenv

import (
	"bytes"
	"cmp"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// postgresVariable is the environment variable with the URL of a PostgreSQL database in which tests
// may create schemas.
const postgresVariable = "CLOSEOUT_TEST_POSTGRES_URL"

// Databases runs a test on each database that Closeout supports. It passes the URL of an empty one.
func Databases(t *testing.T, test func(t *testing.T, databaseURL string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "ledger #1?.db")) // a path that must be escaped in a URL
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, Postgres(t))
	})
	t.Run("pgbouncer", func(t *testing.T) {
		test(t, PgBouncer(t))
	})
}

// Skip skips a test that needs something absent. In CI it fails the test instead.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("may not be skipped in CI: " + reason)
	}
	t.Skip(reason)
}

// PgBouncer is [Postgres] behind a PgBouncer in transaction mode.
func PgBouncer(t testing.TB) string {
	t.Helper()
	return BehindPgBouncer(t, Postgres(t))
}

// BehindPgBouncer starts a PgBouncer in transaction mode in front of a database, and returns its
// URL. PgBouncer sets the schema, because it does not forward search_path.
func BehindPgBouncer(t testing.TB, database string) string {
	t.Helper()
	server, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program = "/usr/sbin/pgbouncer"; !isThere(program) {
			Skip(t, "there is no pgbouncer, of Debian's package of that name")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	to := fmt.Sprintf("host=%s port=%s dbname=%s user=%s connect_query='SET search_path TO %s'", server.Hostname(), cmp.Or(server.Port(), "5432"),
		strings.TrimPrefix(server.Path, "/"), server.User.Username(), cmp.Or(server.Query().Get("search_path"), "public"))
	if password, ok := server.User.Password(); ok {
		to += " password=" + password
	}
	settings := fmt.Sprintf("[databases]\n* = %s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 0.2\n", to, port)
	if os.Getuid() == 0 { // PgBouncer refuses to run as root
		settings += "user = nobody\n"
	}
	file := filepath.Join(t.TempDir(), "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	process := exec.Command(program, file) // #nosec G204
	process.Stderr = &log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("pgbouncer doesn't answer: %v: %s", err, log.String())
		}
	}
	return fmt.Sprintf("postgres://anybody@%s/ledger?sslmode=disable", address)
}

func isThere(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Postgres creates an empty schema, drops it after the test, and returns its URL.
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
