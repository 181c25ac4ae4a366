package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/session"
)

// A source runs queries: the database, or a transaction.
type source interface {
	query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (l *Ledger) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	return l.db.QueryContext(ctx, query, args...)
}

type transaction struct{ *sql.Tx }

func (t transaction) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.QueryContext(ctx, query, args...)
}

// exec runs a statement and returns the number of changed rows.
func (t transaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	done, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return done.RowsAffected()
}

// wrap adds to an error what was being done. Without an error it returns nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// in runs do in a transaction.
//
// The isolation level is read committed, whatever the server's default: after waiting for a
// session's lock, do must see what the other transaction wrote.
func (l *Ledger) in(ctx context.Context, do func(transaction) error) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	return l.begin(ctx, do)
}

// begin is [Ledger.in] for the migration itself.
func (l *Ledger) begin(ctx context.Context, do func(transaction) error) error {
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing once it is committed
	if err := do(transaction{tx}); err != nil {
		return err
	}
	return wrap(tx.Commit(), "commit")
}

// exec runs one statement in its own transaction and returns the number of changed rows.
func (l *Ledger) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = l.in(ctx, func(tx transaction) error {
		n, err = tx.exec(ctx, query, args...)
		return err
	})
	return n, err
}

// A row is read by the scan functions of [list], [each] and [one].
type row interface{ Scan(dest ...any) error }

// each calls do with each row of a query, until its error.
func each[T any](ctx context.Context, from source, scan func(row) (T, error), do func(T) error, query string, args ...any) error {
	rows, err := from.query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return err
		}
		if err := do(v); err != nil {
			return err
		}
	}
	return rows.Err()
}

// list returns the rows of a query.
func list[T any](ctx context.Context, from source, scan func(row) (T, error), query string, args ...any) (all []T, err error) {
	err = each(ctx, from, scan, func(v T) error { all = append(all, v); return nil }, query, args...)
	return all, err
}

// one returns the first row of a query. The error is [sql.ErrNoRows] without rows.
func one[T any](ctx context.Context, from source, scan func(row) (T, error), query string, args ...any) (v T, err error) {
	all, err := list(ctx, from, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return v, err
	}
	return all[0], nil
}

// value scans a row of one column.
func value[T any](r row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

// pageSize is how many rows [pages] reads at once.
var pageSize = 5000

// pages lists rows page by page, each starting behind the last row of the one before, the
// first one behind last, so that memory is bounded and writers do not wait long. An error
// ends the list.
func pages[T any](what string, last T, next func(last T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for last := last; ; {
			page, err := next(last)
			if err != nil {
				yield(last, fmt.Errorf("%s: %w", what, err))
				return
			}
			for _, last = range page {
				if !yield(last, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

// millis returns a time as the tables store it.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the inverse of millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// A timeColumn scans what millis returns.
type timeColumn time.Time

// Scan implements [sql.Scanner].
func (t *timeColumn) Scan(v any) error {
	ms, ok := v.(int64)
	if !ok {
		return fmt.Errorf("found %T, want milliseconds", v)
	}
	*t = timeColumn(fromMillis(ms))
	return nil
}

// A sessionColumn scans a room_session_id. Empty is 0.
type sessionColumn uint64

// Scan implements [sql.Scanner].
func (s *sessionColumn) Scan(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("found %T, want a room_session_id", v)
	}
	if text == "" {
		*s = 0
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	*s = sessionColumn(n)
	return err
}

// missing returns a completeness as the tables store it.
func missing(c session.Completeness) int64 {
	if !c.Known {
		return -1
	}
	return c.Missing
}

// A missingColumn scans what missing returns.
type missingColumn session.Completeness

// Scan implements [sql.Scanner].
func (c *missingColumn) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("found %T, want a number of callbacks", v)
	}
	if *c = (missingColumn{}); n >= 0 {
		*c = missingColumn{Known: true, Missing: n}
	}
	return nil
}

// A reasonsColumn scans the names of reasons.
type reasonsColumn session.Reasons

// Scan implements [sql.Scanner].
func (r *reasonsColumn) Scan(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("found %T, want the names of reasons", v)
	}
	*r = reasonsColumn(session.ParseReasons(text))
	return nil
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// bytewise makes a statement compare texts bytewise, as SQLite always does.
func (l *Ledger) bytewise(statement string) string {
	collation := ` COLLATE "C"`
	if l.path != "" {
		collation = ""
	}
	return strings.ReplaceAll(statement, "{C}", collation)
}

// A column is a column of a table for [Ledger.table].
type column struct {
	name string
	text bool
}

func columns(names string) (all []column) {
	for name := range strings.SplitSeq(names, ", ") {
		text := slices.Contains([]string{"room_session_id", "room_id", "stay", "user_account", "user_role", "logout_reason", "task_id", "file_id", "url", "format", "user_id", "stream_id",
			"payer", "payee", "description", "unit", "currency", "name", "excluded", "in_room_reasons", "published_reasons"}, name)
		all = append(all, column{name, text})
	}
	return all
}

// table returns an SQL expression for a table of n rows, and its arguments, which come first.
// The text does not depend on n, so the statement is prepared once.
func (l *Ledger) table(columns []column, n int, row func(int) []any) (string, []any) {
	if l.path != "" {
		rows := make([][]any, n)
		for i := range rows {
			rows[i] = row(i)
		}
		encoded, _ := json.Marshal(rows) // of text and integers
		var b strings.Builder
		for i, c := range columns {
			fmt.Fprintf(&b, ", value ->> %d AS %s", i, c.name)
		}
		return fmt.Sprintf("(SELECT %s FROM json_each($1)) AS given", b.String()[2:]), []any{string(encoded)}
	}
	args := make([]any, len(columns))
	for i, c := range columns {
		if c.text {
			args[i] = make([]string, n)
		} else {
			args[i] = make([]int64, n)
		}
	}
	for at := range n {
		for i, v := range row(at) {
			switch values := args[i].(type) {
			case []string:
				values[at] = v.(string)
			case []int64:
				values[at] = v.(int64)
			}
		}
	}
	var types, names []string
	for i, c := range columns {
		kind := "bigint"
		if c.text {
			kind = "text"
		}
		types, names = append(types, fmt.Sprintf("$%d::%s[]", i+1, kind)), append(names, c.name)
	}
	return fmt.Sprintf("unnest(%s) AS given (%s)", strings.Join(types, ", "), strings.Join(names, ", ")), args
}
