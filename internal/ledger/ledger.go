// Package ledger keeps what money depends on in a SQL database: SQLite or
// PostgreSQL, with the same queries on both.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Ledger is an open database. It is safe for concurrent use, also by several
// processes.
type Ledger struct {
	db   *sql.DB
	path string // of the SQLite file; empty for PostgreSQL

	mu       sync.Mutex
	migrated bool
}

// Open prepares the database at the URL: "sqlite:" and a path, or "postgres://".
// It doesn't connect yet, so that a database that is away delays nothing but
// what needs it.
func Open(databaseURL string) (*Ledger, error) {
	scheme, rest, _ := strings.Cut(databaseURL, ":")
	switch scheme {
	case "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" {
			return nil, errors.New("open ledger: sqlite: URL without a path, want sqlite:/path/to/ledger.db")
		}
		db, err := sql.Open("sqlite", sqliteURL(path))
		if err != nil {
			return nil, fmt.Errorf("open ledger %s: %w", path, err)
		}
		db.SetMaxOpenConns(4) // one writes, the others wait for it
		return &Ledger{db: db, path: path}, nil

	case "postgres", "postgresql":
		db, err := openPostgres(databaseURL)
		if err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
		return &Ledger{db: db}, nil
	}
	return nil, errors.New("open ledger: the scheme of its URL is neither sqlite nor postgres")
}

// sqliteURL is what the driver opens.
//
// A writer waits for the other one instead of failing, from its first statement
// on, and a bill that was reported is on the disk. Sorting a large session takes
// temporary storage, for which SQLite would make files in /tmp: there may be none
// that can be written.
func sqliteURL(path string) string {
	query := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "temp_store(MEMORY)"},
		"_txlock": {"immediate"},
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// secure makes the SQLite file, or takes it from everybody but its owner: it holds
// who was in which room. The files beside it get its mode from SQLite. A folder
// that is made is the owner's as well.
func (l *Ledger) secure() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	for _, name := range []string{l.path, l.path + "-wal", l.path + "-shm"} {
		switch info, err := os.Stat(name); {
		case errors.Is(err, fs.ErrNotExist) && name == l.path:
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- the setting's
			if err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
		case err == nil && info.Mode().Perm()&0o077 != 0:
			if err := os.Chmod(name, 0o600); err != nil {
				return err
			}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// Close closes the database.
func (l *Ledger) Close() error { return l.db.Close() }

// in runs do in one transaction.
//
// It is read committed: what waited for a session's lock has to see what was
// written before it got it. A server may have another default.
func (l *Ledger) in(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing once it is committed
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// exec runs one statement in a transaction of its own, as [Ledger.in] does.
func (l *Ledger) exec(ctx context.Context, query string, args ...any) (done sql.Result, err error) {
	err = l.in(ctx, func(tx *sql.Tx) (err error) {
		done, err = tx.ExecContext(ctx, query, args...)
		return err
	})
	return done, err
}
