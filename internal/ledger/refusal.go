package ledger

import (
	"crypto/tls"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Refusal reports whether the database rejected data for its content, so that a retry is
// useless. Other errors may pass: of a database that is unavailable, full, locked or not set
// up.
func Refusal(err error) bool {
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		// Data exceptions, constraint violations, and too many columns or arguments.
		return len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23" || pg.Code == "54000")
	}
	if code, ok := sqliteCode(err); ok {
		return code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_MISMATCH || code == sqlite3.SQLITE_TOOBIG
	}
	return false
}

// Advice returns what to do about an error of the database, or "". final reports that a retry
// is useless before.
func Advice(err error) (advice string, final bool) {
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		switch pg.Code {
		case "42501": // insufficient_privilege
			return "GRANT the role of CLOSEOUT_DATABASE_URL what it lacks: to set up, USAGE and CREATE on its schema; else SELECT, INSERT, UPDATE and DELETE on the tables", true
		case "3D000": // invalid_catalog_name
			return "create the database, or name another in CLOSEOUT_DATABASE_URL", true
		case "3F000": // invalid_schema_name
			return "create the schema, or choose another by search_path in CLOSEOUT_DATABASE_URL", true
		case "28000", "28P01": // invalid_authorization_specification, invalid_password
			return "correct the user and the password in CLOSEOUT_DATABASE_URL, or let pg_hba.conf admit them", true
		case "25006": // read_only_sql_transaction
			return "CLOSEOUT_DATABASE_URL has to name the primary, and its role and database must not have default_transaction_read_only", false
		case "26000", "42P05": // invalid_sql_statement_name, duplicate_prepared_statement
			return "remove default_query_exec_mode from CLOSEOUT_DATABASE_URL: a pooler is in between", true
		}
	}
	connect := new(pgconn.ConnectError)
	switch untrusted := new(tls.CertificateVerificationError); {
	case errors.As(err, &untrusted):
		return "name the authority of the server's certificate by sslrootcert in CLOSEOUT_DATABASE_URL, and the server as the certificate does", true
	case errors.As(err, &connect) && strings.Contains(connect.Error(), "server refused TLS connection"): // no error of its own
		return "turn TLS on in the server, or set sslmode=disable in CLOSEOUT_DATABASE_URL", true
	}
	if code, ok := sqliteCode(err); ok {
		switch code {
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
			return "let this user write to the ledger's file and folder", false
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return "restore the ledger from a backup, or name another file in CLOSEOUT_DATABASE_URL", true
		}
	}
	return "", false
}

// sqliteCode returns the primary result code of an error of SQLite.
func sqliteCode(err error) (int, bool) {
	lite := new(sqlite.Error)
	if !errors.As(err, &lite) {
		return 0, false
	}
	return lite.Code() & 0xff, true
}
