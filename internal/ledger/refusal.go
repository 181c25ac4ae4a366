package ledger

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Refusal says whether the database has refused what it was told for its content,
// so that it would again. All else may pass: a database that is away, full, locked
// or not set up.
func Refusal(err error) bool {
	if pg := new(pgconn.PgError); errors.As(err, &pg) {
		// Data exceptions, and constraints that are violated.
		return len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23")
	}
	if lite := new(sqlite.Error); errors.As(err, &lite) {
		switch lite.Code() & 0xff {
		case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
			return true
		}
	}
	return false
}
