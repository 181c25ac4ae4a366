package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
)

func TestCheckReportsMissingTablesAndCreatesNone(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l, err := ledger.Open(databaseURL)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for range 2 { // the first call creates nothing for the second
			if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrNotSetUp) {
				t.Errorf("before setup: %v", err)
			}
		}
		if path, ok := strings.CutPrefix(databaseURL, "sqlite:"); ok {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Check created the file: %v", err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrNotSetUp) {
				t.Errorf("empty file: %v", err)
			}
		}
		if err := l.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Check(t.Context()); err != nil {
			t.Errorf("after setup: %v", err)
		}
		l.Forget(t)
		if err := l.Check(t.Context()); !errors.Is(err, ledger.ErrNotSetUp) || !strings.Contains(err.Error(), "have version 0, want ") {
			t.Errorf("older version: %v", err)
		}
	})
}

func TestCheckReportsAFileThatIsNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open("sqlite:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(t.Context()); err == nil || errors.Is(err, ledger.ErrNotSetUp) {
		t.Errorf("error %v", err)
	}
}
