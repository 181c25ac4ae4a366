package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pressly/goose/v3"
)

// ErrNotSetUp means that a database has not all of the tables that this version
// wants.
var ErrNotSetUp = errors.New("not set up, or by an older version")

// Check tells whether the database answers and has its tables, and makes none:
// who checks may not be who may. The error wraps [ErrNotSetUp] if they aren't there.
func (l *Ledger) Check(ctx context.Context) error {
	there := "SELECT to_regclass('" + versions + "') IS NOT NULL"
	if l.dialect == goose.DialectSQLite3 {
		there = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = '" + versions + "')"
		// SQLite would make the file.
		if _, err := os.Stat(l.path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s isn't there: %w", l.path, ErrNotSetUp)
		}
	}
	var any bool
	if err := l.db.QueryRowContext(ctx, there).Scan(&any); err != nil {
		return fmt.Errorf("ask for the ledger's tables: %w", err)
	}
	if !any {
		return fmt.Errorf("it has no tables: %w", ErrNotSetUp)
	}
	want, err := newest()
	if err != nil {
		return err
	}
	var found int64
	if err := l.db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versions+" WHERE is_applied").Scan(&found); err != nil {
		return fmt.Errorf("ask for the version of the ledger's tables: %w", err)
	}
	if found < want {
		return fmt.Errorf("its tables have version %d, want %d: %w", found, want, ErrNotSetUp)
	}
	return nil
}

// newest is the version of the last migration.
func newest() (version int64, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		v, err := goose.NumericComponent(file)
		if err != nil {
			return 0, err
		}
		version = max(version, v)
	}
	return version, nil
}
