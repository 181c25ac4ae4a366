// Package ledger keeps what money depends on in a SQL database: SQLite or
// PostgreSQL, with the same queries on both.
package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// versions is the table in which goose keeps what it has migrated.
const versions = "ledger_migrations"

// Ledger is an open database. It is safe for concurrent use, also by several
// processes.
type Ledger struct {
	db      *sql.DB
	dialect goose.Dialect
	path    string // of the SQLite file

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
		// A writer waits for the other one instead of failing, from its first
		// statement on, and a bill that was reported is on the disk.
		pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
		if err != nil {
			return nil, fmt.Errorf("open ledger %s: %w", path, err)
		}
		db.SetMaxOpenConns(4) // one writes, the others wait for it
		return &Ledger{db: db, dialect: goose.DialectSQLite3, path: path}, nil

	case "postgres", "postgresql":
		config, err := pgx.ParseConfig(databaseURL)
		if err != nil {
			// pgx quotes the URL, and redacts only a password where it expects one.
			return nil, errors.New("open ledger: not a PostgreSQL URL, want postgres://user:password@host:5432/database")
		}
		db := stdlib.OpenDB(*config)
		db.SetMaxOpenConns(10)
		db.SetMaxIdleConns(10)
		db.SetConnMaxIdleTime(5 * time.Minute)
		return &Ledger{db: db, dialect: goose.DialectPostgres}, nil
	}
	return nil, errors.New("open ledger: the scheme of its URL is neither sqlite nor postgres")
}

// Close closes the database.
func (l *Ledger) Close() error { return l.db.Close() }

// Migrate brings the schema up to date. Any number of processes may do it at
// once. The other methods do it where it wasn't done.
func (l *Ledger) Migrate(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.migrated {
		return nil
	}
	if err := l.migrate(ctx); err != nil {
		return fmt.Errorf("migrate ledger: %w", err)
	}
	l.migrated = true
	return nil
}

func (l *Ledger) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	options := []goose.ProviderOption{goose.WithTableName(versions), goose.WithSlog(slog.New(slog.DiscardHandler))}
	switch l.dialect {
	case goose.DialectPostgres:
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60)) // 60 tries, 1 s apart
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	case goose.DialectSQLite3:
		if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
			return err
		}
		// SQLite's own lock is let go between the statements of a migration.
		file := flock.New(l.path + ".lock")
		if _, err := file.TryLockContext(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("lock %s: %w", file.Path(), err)
		}
		defer func() { _ = file.Close() }()
	}
	provider, err := goose.NewProvider(l.dialect, l.db, files, options...)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}
