package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// maxConnLifetime bounds the use of a connection. After a failover, a connection that only
// reads could stay on the old primary without an error.
const maxConnLifetime = time.Minute

func openPostgres(databaseURL string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, notPostgres(err)
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return nil, notPostgres(err)
	}
	// A pooler such as PgBouncer may use another server connection for each transaction, which
	// lacks statements prepared before.
	if !u.Query().Has("default_query_exec_mode") {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	// With several hosts, connect to the primary.
	if severalHosts(config) && !u.Query().Has("target_session_attrs") && os.Getenv("PGTARGETSESSIONATTRS") == "" {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	keep := config.OnPgError
	config.OnPgError = func(c *pgconn.PgConn, err *pgconn.PgError) bool {
		return keep(c, err) && !wrongServer(err.Code)
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	db.SetConnMaxLifetime(maxConnLifetime)
	return db, nil
}

// wrongServer reports whether an error shows that the server was demoted or is shutting down.
// The next statement then uses a new connection.
func wrongServer(code string) bool {
	switch code {
	case "25006", // read_only_sql_transaction
		"57P01", "57P02", "57P03": // admin_shutdown, crash_shutdown, cannot_connect_now
		return true
	}
	return strings.HasPrefix(code, "08") // connection_exception
}

func severalHosts(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks {
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}

// notPostgres returns the error for an invalid URL. It quotes nothing that may hold the
// password: pgx quotes the URL and redacts only some passwords.
func notPostgres(err error) error {
	parse := new(pgconn.ParseConfigError)
	if errors.As(err, &parse) {
		at := strings.LastIndex(parse.Error(), "`: ")
		if reason := parse.Error()[at+1:]; at >= 0 && !strings.HasPrefix(reason, ": failed to parse as ") {
			return fmt.Errorf("PostgreSQL URL%s", reason)
		}
	}
	return errors.New("not a PostgreSQL URL, want postgres://user:password@host:5432/database")
}
