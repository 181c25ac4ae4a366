package ledger

import (
	"testing"
	"time"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// SmallPages sets the size of pages until the test ends.
func SmallPages(t *testing.T, size int) {
	before := pageSize
	pageSize = size
	t.Cleanup(func() { pageSize = before })
}

// Forget deletes the schema version, as if the database hadn't been migrated.
func (l *Ledger) Forget(t *testing.T) {
	if _, err := l.db.Exec("DELETE FROM " + versions); err != nil {
		t.Fatal(err)
	}
}

// StayRow is a row of the table of stays.
type StayRow struct {
	Stay, User    string
	Role          zego.Code
	Login, Logout time.Time
	Reason        zego.Code
	Contradicted  bool
}

// StayRows returns a session's stays in the order of their IDs.
func (l *Ledger) StayRows(t *testing.T, id session.ID) (all []StayRow) {
	t.Helper()
	k := keyOf(id)
	rows, err := l.db.Query("SELECT stay, user_account, user_role, login_time, logout_time, logout_reason, contradicted FROM stays WHERE appid = $1 AND room_session_id = $2 ORDER BY stay", k.app, k.session)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r StayRow
		var login, logout, contradicted int64
		if err := rows.Scan(&r.Stay, &r.User, &r.Role, &login, &logout, &r.Reason, &contradicted); err != nil {
			t.Fatal(err)
		}
		r.Login, r.Logout, r.Contradicted = fromMillis(login), fromMillis(logout), contradicted == 1
		all = append(all, r)
	}
	return all
}

// CountStays counts the rows of the table of stays.
func (l *Ledger) CountStays(t *testing.T) (n int) {
	t.Helper()
	if err := l.db.QueryRow("SELECT count(*) FROM stays").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Created returns the time at which a session's room was created.
func (l *Ledger) Created(t *testing.T, id session.ID) time.Time {
	t.Helper()
	k := keyOf(id)
	var ms int64
	if err := l.db.QueryRow("SELECT room_create_time FROM sessions WHERE appid = $1 AND room_session_id = $2", k.app, k.session).Scan(&ms); err != nil {
		t.Fatal(err)
	}
	return fromMillis(ms)
}

// SpoilAdjustments makes an app's adjustments unreadable.
func (l *Ledger) SpoilAdjustments(t *testing.T, appID uint32) {
	t.Helper()
	if _, err := l.db.Exec("UPDATE adjustments SET estimated = 'spoiled' WHERE appid = $1", int64(appID)); err != nil {
		t.Fatal(err)
	}
}

// CountChecks counts the rows of the table of checks.
func (l *Ledger) CountChecks(t *testing.T) (n int) {
	t.Helper()
	if err := l.db.QueryRow("SELECT count(*) FROM checks").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// FillStays inserts n stays, 40 in each session.
func (l *Ledger) FillStays(t testing.TB, n int) {
	t.Helper()
	const page = 100_000
	for from := 0; from < n; from += page {
		if _, err := l.db.Exec(`
			WITH RECURSIVE numbers (n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < CAST($2 AS BIGINT))
			INSERT INTO stays (`+stayColumns+`)
			SELECT 1, CAST(858012925204410417 + n / 40 AS TEXT), CAST(n AS TEXT), 'user_' || n, 1, 0, 1499676000000, 1499676000000 + n, 0, 0, 0, 1499676000000 + n, '', 0, 0 FROM numbers`,
			from, min(from+page, n)); err != nil {
			t.Fatal(err)
		}
	}
	if l.path == "" {
		if _, err := l.db.Exec("ANALYZE stays"); err != nil { // as autovacuum does eventually
			t.Fatal(err)
		}
	}
}

// FillSession inserts n stays in one session.
func (l *Ledger) FillSession(t testing.TB, id session.ID, n int) {
	t.Helper()
	k := keyOf(id)
	if _, err := l.db.Exec(`
		WITH RECURSIVE numbers (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < CAST($1 AS BIGINT))
		INSERT INTO stays (`+stayColumns+`)
		SELECT CAST($2 AS BIGINT), $3, CAST(n AS TEXT), 'a user whose name is as long as names of users are allowed to be ' || (n * 7919 % 100003), 1, 0, 1499676000000, 1499676000000 + n, 0, 0, 0, 1499676000000, '', 0, 0 FROM numbers`,
		n, k.app, k.session); err != nil {
		t.Fatal(err)
	}
}

// OnEach opens n connections of the pool and executes a statement on each of them.
func (l *Ledger) OnEach(t *testing.T, n int, statement string) {
	t.Helper()
	for range n {
		c, err := l.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // not before the loop ends, so that each connection is another one
		_, _ = c.ExecContext(t.Context(), statement)
	}
}

// Exec executes a statement.
func (l *Ledger) Exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := l.db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// CountRows counts the rows of a table.
func (l *Ledger) CountRows(t *testing.T, table string) (n int) {
	t.Helper()
	if err := l.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Isolation returns the isolation level of the ledger's transactions.
func (l *Ledger) Isolation(t *testing.T) (isolation string) {
	t.Helper()
	if err := l.in(t.Context(), func(tx transaction) error {
		return tx.QueryRow("SHOW transaction_isolation").Scan(&isolation)
	}); err != nil {
		t.Fatal(err)
	}
	return isolation
}

// Lose deletes a session from the database, as if an older backup had been restored.
func (l *Ledger) Lose(t *testing.T, id session.ID) {
	t.Helper()
	k := keyOf(id)
	for _, table := range []string{"bills", "adjustments", "lines", "sessions", "stays"} {
		if _, err := l.db.Exec("DELETE FROM "+table+" WHERE appid = $1 AND room_session_id = $2", k.app, k.session); err != nil {
			t.Fatal(err)
		}
	}
}

// InsertLines inserts lines as those of a bill with the given amount.
func (l *Ledger) InsertLines(t *testing.T, id session.ID, lines []pricing.Line, amount int64) error {
	t.Helper()
	return l.in(t.Context(), func(tx transaction) error {
		return l.insertLines(t.Context(), tx, keyOf(id), 0, lines, amount)
	})
}
