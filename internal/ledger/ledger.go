// Package ledger stores events, bills and recordings in SQLite or PostgreSQL, with the same
// queries on both. Its methods create or update the tables first if necessary.
package ledger

import (
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

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
)

// Ledger is an open database. It is safe for concurrent use by several goroutines and
// processes.
type Ledger struct {
	// Price, if set, prices sessions. Set it before use.
	Price pricing.Func
	// Rules exclude users. Open sets the default. Change it before use.
	Rules metering.Rules

	db   *sql.DB
	path string // of the SQLite file; empty for PostgreSQL

	mu       sync.Mutex
	migrated bool
}

// Open prepares the database at a URL: "sqlite:" and a path, or "postgres://". It does not
// connect, so it succeeds while the database is unavailable.
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
		db.SetMaxOpenConns(4) // writes wait for each other anyway
		return &Ledger{Rules: metering.Default, db: db, path: path}, nil

	case "postgres", "postgresql":
		db, err := openPostgres(databaseURL)
		if err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
		return &Ledger{Rules: metering.Default, db: db}, nil
	}
	return nil, errors.New("open ledger: the scheme of its URL is neither sqlite nor postgres")
}

// sqliteURL returns the driver's URL for a file. Transactions wait for the lock when they
// begin, instead of failing later, and commits are synced. Temporary data is in memory,
// because /tmp may be read-only.
func sqliteURL(path string) string {
	query := url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "temp_store(MEMORY)"},
		"_txlock": {"immediate"},
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// secure creates the SQLite file with its folder, readable for the owner alone, because it
// holds personal data.
func (l *Ledger) secure() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	for _, name := range []string{l.path, l.path + ".lock", l.path + "-wal", l.path + "-shm"} {
		switch info, err := os.Stat(name); {
		case errors.Is(err, fs.ErrNotExist) && (name == l.path || strings.HasSuffix(name, ".lock")):
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
