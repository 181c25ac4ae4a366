package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	temporalsql "go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/resolver"
	schema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
	_ "modernc.org/sqlite" // the driver that Temporal's plugin uses
)

const driver = "sqlite"

var starts atomic.Int64

// database is Temporal's SQLite file.
type database struct {
	config *config.SQL
	db     *sqlx.DB
}

// openDatabase opens the file, creates it if necessary, and makes sure that it fits the
// server and has the Namespace.
func openDatabase(path, namespace string, retention time.Duration) (*database, error) {
	// Use a URI, because a folder's name may have any characters.
	uri := (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()
	if err := prepareSchema("file:" + uri); err != nil {
		return nil, fmt.Errorf("preparing the database %s: %w", path, err)
	}
	cfg := &config.SQL{
		PluginName:   sqlite.PluginName,
		DatabaseName: uri,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  "normal", // with WAL this survives a kill of the process
			// Temporal keeps a pool for each connection string until the process ends. A
			// new string gets a new pool on the current file.
			"busy_timeout": strconv.FormatInt(5000+starts.Add(1), 10),
		},
	}
	db, err := temporalsql.NewSQLDB(sqlplugin.DbKindMain, cfg, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	d := &database{config: cfg, db: poolOf(db)}

	ns, err := schema.NewNamespaceConfig(clusterName, namespace, false, nil)
	if err == nil {
		ns.Detail.Config.Retention = durationpb.New(retention)
		err = schema.CreateNamespaces(cfg, ns)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registering namespace %s: %w", namespace, err), d.close())
	}
	return d, nil
}

// poolOf returns the connection pool, which Temporal never closes. Left open, it would
// keep the file in use after Stop, and goroutines that outlive the server could write to
// it.
func poolOf(db sqlplugin.DB) *sqlx.DB {
	v := reflect.Indirect(reflect.ValueOf(db))
	if f := v.FieldByName("db"); f.IsValid() && f.Type() == reflect.TypeFor[*sqlx.DB]() {
		return (*sqlx.DB)(f.UnsafePointer())
	}
	return nil
}

func (d *database) close() error {
	if d.db == nil {
		return nil
	}
	if err := d.db.Close(); err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	return nil
}

// prepareSchema creates the tables in an empty database. In an existing database it
// compares them with the tables that this server would create. Temporal has no migrations
// for SQLite and doesn't check the version, so a mismatch would only show as an obscure
// SQL error later.
func prepareSchema(dsn string) error {
	have, err := columns(dsn, false)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		_, err := columns(dsn, true)
		return err
	}
	want, err := columns("file::memory:", true)
	if err != nil {
		return err
	}
	for _, c := range slices.Sorted(maps.Keys(want)) {
		if !have[c] {
			return mismatch("lacks " + c)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(have)) {
		if !want[c] {
			return mismatch("has " + c + ", which is unknown here")
		}
	}
	return nil
}

func mismatch(difference string) error {
	return fmt.Errorf("it was made by another version of Temporal than this one, %s (it %s), and SQLite files can't be migrated:"+
		" use the version that made it, or move the file away to begin with an empty one", headers.ServerVersion, difference)
}

// columns returns the columns of a database. If create is set, it creates the tables
// first.
func columns(dsn string, create bool) (_ map[string]bool, err error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Use one transaction, so that a file never has half of the tables.
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	if create {
		if err := schema.SetupSchemaOnDB(execer{tx: tx}); err != nil {
			return nil, err
		}
	}
	rows, err := tx.Query(`SELECT m.type || ' ' || m.name || coalesce('.' || c.name || ' ' || c.type, '')
		FROM sqlite_master m LEFT JOIN pragma_table_xinfo(m.name) c`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]bool{}
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			return nil, err
		}
		found[column] = true
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return found, tx.Commit()
}

// execer has the method of a database that the schema setup needs.
type execer struct {
	sqlplugin.AdminDB
	tx *sql.Tx
}

func (e execer) Exec(statement string, args ...any) error {
	_, err := e.tx.Exec(statement, args...)
	return err
}
