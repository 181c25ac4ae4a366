package ledger

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// versions is the table of applied migrations.
	versions = "ledger_migrations"
	// migrationLock is the key of PostgreSQL's advisory lock, a random number.
	migrationLock = 7_161_824_093
)

// ErrNotSetUp means that the database lacks tables of this version.
var ErrNotSetUp = errors.New("not set up, or by an older version")

// Migrate updates the schema. Several processes may call it concurrently.
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

// lockFile waits for a lock among all processes and goroutines.
func lockFile(ctx context.Context, name string) (io.Closer, error) {
	for {
		lock, err := vfs.Default.Lock(name)
		if err == nil || errors.As(err, new(*fs.PathError)) { // the file cannot be created
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *Ledger) migrate(ctx context.Context) error {
	if l.path != "" {
		if err := l.secure(); err != nil {
			return err
		}
		// SQLite fails instead of waiting if two processes switch a new file to WAL.
		lock, err := lockFile(ctx, l.path+".lock")
		if err != nil {
			return fmt.Errorf("lock %s: %w", l.path+".lock", err)
		}
		defer lock.Close()
	}
	// A read-only role cannot migrate.
	if err := l.current(ctx); !errors.Is(err, ErrNotSetUp) {
		return err
	}
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	// A session-level lock would outlive its use on a pooler's connection.
	return l.begin(ctx, func(tx transaction) error {
		if l.path == "" {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
				return fmt.Errorf("lock the database for migration: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+versions+" (version BIGINT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)"); err != nil {
			return err
		}
		var applied int64
		if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM "+versions).Scan(&applied); err != nil {
			return err
		}
		for _, file := range files { // in the order of their versions
			version, err := versionOf(file)
			if err != nil || version <= applied {
				return err
			}
			statements, err := migrations.ReadFile(file)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, string(statements)); err != nil {
				return fmt.Errorf("%s: %w", path.Base(file), err)
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO "+versions+" VALUES ($1, $2)", version, time.Now().UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}

// versionOf returns the number at the start of a migration's name.
func versionOf(file string) (int64, error) {
	number, _, _ := strings.Cut(path.Base(file), "_")
	return strconv.ParseInt(number, 10, 64)
}

// Check returns an error if the database does not answer or lacks tables. It creates none. The
// error wraps [ErrNotSetUp] if tables are missing.
func (l *Ledger) Check(ctx context.Context) error {
	if l.path != "" {
		// SQLite would create the file.
		if _, err := os.Stat(l.path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s isn't there: %w", l.path, ErrNotSetUp)
		}
	}
	return l.current(ctx)
}

// current returns an error unless all migrations are applied.
func (l *Ledger) current(ctx context.Context) error {
	there := "SELECT to_regclass('" + versions + "') IS NOT NULL"
	if l.path != "" {
		there = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '" + versions + "')"
	}
	var any bool
	if err := l.db.QueryRowContext(ctx, there).Scan(&any); err != nil {
		return fmt.Errorf("look for the ledger's tables: %w", err)
	}
	if !any {
		return fmt.Errorf("it has no tables: %w", ErrNotSetUp)
	}
	want, err := newest()
	if err != nil {
		return err
	}
	var found int64
	if err := l.db.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM "+versions).Scan(&found); err != nil {
		return fmt.Errorf("read the version of the ledger's tables: %w", err)
	}
	if found < want {
		return fmt.Errorf("its tables have version %d, want %d: %w", found, want, ErrNotSetUp)
	}
	return nil
}

// newest returns the version of the last migration.
func newest() (version int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, err
	}
	return versionOf(files[len(files)-1])
}
