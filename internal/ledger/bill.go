package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/usage"
	"github.com/closeouthq/closeout/zego"
)

// Bill is the first entry of one session. There is never a second bill, and it
// never changes: what comes later makes an [Adjustment].
type Bill struct {
	// ID is the idempotency key under which it was made.
	ID uuid.UUID `json:"bill_id"`
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// RoomSessionID is the session that is billed.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason is ZEGO's close_reason.
	CloseReason uint32 `json:"close_reason"`
	// RoomCloseTime is when the room was destroyed by ZEGO's clock, to the
	// millisecond and in UTC; of a session that was reconciled, the best that was
	// known of it.
	RoomCloseTime time.Time `json:"room_close_time"`
	// Reconciled says that no room_close came, and that the room was found gone.
	Reconciled bool `json:"reconciled,omitempty"`
	// Usage is what the participants used.
	Usage usage.Figures `json:"usage"`
	// Charge is what it costs; none if there is no price.
	Charge usage.Charge `json:"charge,omitzero"`
}

// MadeBill is a bill, and when it was made.
type MadeBill struct {
	Bill
	// MadeAt is when, by the clock of the worker that made it, to the millisecond
	// and in UTC.
	MadeAt time.Time `json:"made_at"`
}

// Adjustment is an entry that corrects those before it, as something came after
// they were made. They are left as they are.
type Adjustment struct {
	// ID is the idempotency key under which it was made.
	ID uuid.UUID `json:"adjustment_id"`
	// Number counts the session's adjustments from 1.
	Number int `json:"number"`
	// Bill says which session it is about, and has the figures that its bill would
	// have now. Its ID is that of the bill.
	Bill
	// Difference is what this entry adds to those before it. They all add up to what
	// Usage and Charge have.
	Difference usage.Difference `json:"difference"`
	// MadeAt is when, by the clock of the worker that made it, to the millisecond
	// and in UTC.
	MadeAt time.Time `json:"made_at"`
}

const (
	figureColumns = `reconciled, start_time, start_from, end_time, end_from, participants, stays,
		participant_ms, participant_seconds, participant_minutes, estimated, currency, price_per_minute, amount`
	billColumns       = "id, appid, room_id, room_session_id, close_reason, room_close_time, made_at, " + figureColumns
	differenceColumns = "billed_ms, billed_seconds, billed_minutes, billed_amount"
	// adjustmentColumns are billColumns, and those of the adjustment alone.
	adjustmentColumns = "bill_id, appid, room_id, room_session_id, close_reason, room_close_time, made_at, " + figureColumns +
		", id, number, " + differenceColumns
)

// values are the billColumns.
func (b MadeBill) values() []any {
	u, k := b.Usage, keyOf(b.AppID, b.RoomSessionID)
	reconciled := int64(0)
	if b.Reconciled {
		reconciled = 1
	}
	return []any{b.ID.String(), k.app, b.RoomID, k.session, int64(b.CloseReason), b.RoomCloseTime.UnixMilli(), b.MadeAt.UnixMilli(),
		reconciled, millis(u.Start), string(u.StartFrom), millis(u.End), string(u.EndFrom), u.Participants, u.Stays,
		u.Millis, u.Seconds, u.Minutes, u.Estimated.String(), b.Charge.Currency, b.Charge.PerMinute, b.Charge.Amount}
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// scanBill reads the billColumns of a row, and then others.
func scanBill(row scanner, others ...any) (b MadeBill, err error) {
	var (
		session, estimated       string
		closed, made, reconciled int64
		start, end               int64
		u                        = &b.Usage
		columns                  = []any{&b.ID, &b.AppID, &b.RoomID, &session, &b.CloseReason, &closed, &made}
	)
	columns = append(columns, &reconciled, &start, &u.StartFrom, &end, &u.EndFrom, &u.Participants, &u.Stays,
		&u.Millis, &u.Seconds, &u.Minutes, &estimated, &b.Charge.Currency, &b.Charge.PerMinute, &b.Charge.Amount)
	if err := row.Scan(append(columns, others...)...); err != nil {
		return b, err
	}
	b.RoomCloseTime, b.MadeAt, b.Reconciled = time.UnixMilli(closed).UTC(), time.UnixMilli(made).UTC(), reconciled == 1
	u.Start, u.End = fromMillis(start), fromMillis(end)
	if u.Estimated, err = usage.ParseReasons(estimated); err != nil {
		return b, err
	}
	b.RoomSessionID, err = strconv.ParseUint(session, 10, 64)
	return b, err
}

func scanAdjustment(row scanner) (a Adjustment, err error) {
	d := &a.Difference
	b, err := scanBill(row, &a.ID, &a.Number, &d.Millis, &d.Seconds, &d.Minutes, &d.Amount)
	a.Bill, a.MadeAt = b.Bill, b.MadeAt
	return a, err
}

// An Approver refuses a bill, or what an adjustment makes of it, by an error. doubt says
// why the figures can't be right; it is empty if they may.
type Approver func(due Bill, doubt string) error

func allow(approve []Approver, due Bill, doubt string) error {
	for _, a := range approve {
		if err := a(due, doubt); err != nil {
			return err
		}
	}
	return nil
}

// placeholders are those of so many arguments: "$1, $2".
func placeholders(n int) string {
	b := []byte{}
	for i := 1; i <= n; i++ {
		if i > 1 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(append(b, '$'), int64(i), 10)
	}
	return string(b)
}

// Finalize computes the session's bill and writes it unless there is one, and
// returns the one that is there, and whether it made it. It is the first writer's
// for good.
//
// What b says of Usage and Charge is what there is to begin with: reasons for an
// estimate that are known already, and the price.
//
// An Approver may refuse a bill that isn't made yet.
func (l *Ledger) Finalize(ctx context.Context, b Bill, approve ...Approver) (bill Bill, made bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return Bill{}, false, err
	}
	err = l.in(ctx, func(tx *sql.Tx) (err error) {
		bill, made, err = l.finalize(ctx, tx, b, approve...)
		return err
	})
	if err != nil {
		return Bill{}, false, fmt.Errorf("finalize session %d of app %d: %w", b.RoomSessionID, b.AppID, err)
	}
	return bill, made, nil
}

func (l *Ledger) finalize(ctx context.Context, tx *sql.Tx, b Bill, approve ...Approver) (_ Bill, made bool, err error) {
	b.RoomCloseTime = fromMillis(b.RoomCloseTime.UnixMilli())
	due, k := MadeBill{b, time.Now()}, keyOf(b.AppID, b.RoomSessionID)
	// This locks the session until the bill is made: see Record.
	var room usage.Room
	if err := tx.QueryRowContext(ctx, `
		INSERT INTO sessions (appid, room_session_id, room_id, room_create_time, contradicted, implausible, seen_at, closed_at, entries, dirty_at)
		VALUES ($1, $2, $3, 0, 0, 0, $4, $4, 1, 0)
		ON CONFLICT (appid, room_session_id) DO UPDATE SET
			closed_at = CASE WHEN sessions.closed_at = 0 THEN excluded.closed_at ELSE sessions.closed_at END,
			entries = CASE WHEN sessions.entries = 0 THEN 1 ELSE sessions.entries END
		RETURNING room_create_time, contradicted = 1, implausible = 1`, k.app, k.session, b.RoomID, due.MadeAt.UnixMilli()).
		Scan(&room.Create, &room.Contradicted, &room.Implausible); err != nil {
		return b, false, fmt.Errorf("lock the session: %w", err)
	}
	// Often there is one already: the step is repeated.
	if first, err := scanBill(tx.QueryRowContext(ctx, selectBill, k.app, k.session)); !errors.Is(err, sql.ErrNoRows) {
		return first.Bill, false, err
	}
	var doubt string
	if due.Usage, doubt, err = figures(ctx, tx, b, room); err != nil {
		return b, false, err
	}
	due.Usage.Estimated |= b.Usage.Estimated
	if due.Charge, err = b.Charge.Charge(due.Usage.Minutes); err != nil {
		return b, false, err
	}
	if err := allow(approve, due.Bill, doubt); err != nil {
		return b, false, err
	}
	values := due.values()
	if _, err := tx.ExecContext(ctx, "INSERT INTO bills ("+billColumns+") VALUES ("+placeholders(len(values))+")", values...); err != nil {
		return b, false, fmt.Errorf("insert bill: %w", err)
	}
	return due.Bill, true, nil
}

// figures computes a session's figures of what is recorded. doubt is not empty if
// the room closed when it can't have, and nothing else tells its end: see [Approver].
func figures(ctx context.Context, tx *sql.Tx, b Bill, room usage.Room) (f usage.Figures, doubt string, err error) {
	k := keyOf(b.AppID, b.RoomSessionID)
	room.Close, room.Reconciled = b.RoomCloseTime.UnixMilli(), b.Reconciled
	var first, last, lastLogout int64
	if err := tx.QueryRowContext(ctx, selectEnds, k.app, k.session).Scan(&first, &last, &lastLogout); err != nil {
		return f, "", fmt.Errorf("read the first login and the last logout: %w", err)
	}
	begin := room.Create
	if begin == 0 {
		begin = first
	}
	switch {
	case b.Reconciled: // what has come since may know better
		room.Close = max(room.Close, last)
	case room.Close < begin && lastLogout >= begin:
		room.Close, room.Implausible = last, true
	case room.Close < begin:
		room.Implausible = true
		doubt = fmt.Sprintf("the room closed at %s, before it began at %s, and no logout tells its end",
			b.RoomCloseTime.Format(time.RFC3339Nano), fromMillis(begin).Format(time.RFC3339Nano))
	}
	meter := usage.NewMeter(room)
	if err := eachStay(ctx, tx, k, func(s StayOf) error { meter.Add(s.Stay); return nil }); err != nil {
		return f, "", err
	}
	f, err = meter.Figures()
	return f, doubt, err
}

// StayOf is a stay as the ledger has it.
type StayOf struct {
	usage.Stay
	// ID is ZEGO's session_id.
	ID string
	// SeenAt is when the last callback that told something new of it was received, by
	// our clock.
	SeenAt time.Time
}

// queryer is a database, or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// eachStay reads a session's stays one by one, in the order of the users and
// their logins. There may be more than fit into memory.
func eachStay(ctx context.Context, db queryer, k sessionKey, do func(StayOf) error) error {
	rows, err := db.QueryContext(ctx, `
		SELECT stay, user_account, user_role, login_time, logout_time, contradicted = 1, implausible = 1, seen_at FROM stays
		WHERE appid = $1 AND room_session_id = $2 ORDER BY user_account, login_time`, k.app, k.session)
	if err != nil {
		return fmt.Errorf("read stays: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s StayOf
		var role, seen int64
		if err := rows.Scan(&s.ID, &s.User, &role, &s.Login, &s.Logout, &s.Contradicted, &s.Implausible, &seen); err != nil {
			return fmt.Errorf("read stays: %w", err)
		}
		s.Role, s.SeenAt = zego.UserRole(role), fromMillis(seen)
		if err := do(s); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read stays: %w", err)
	}
	return nil
}

// Stays calls do with each of a session's stays, in the order of the users and
// their logins. Its error ends it.
func (l *Ledger) Stays(ctx context.Context, appID uint32, roomSessionID uint64, do func(StayOf) error) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	return eachStay(ctx, l.db, keyOf(appID, roomSessionID), do)
}

// ErrNothingToAdjust means that what came after a session's last entry changes
// nothing of it.
var ErrNothingToAdjust = errors.New("nothing to adjust")

// Adjust makes the session's adjustment of a number and returns it; if it was made
// before, that one. The error wraps [ErrNothingToAdjust] if none is needed, and
// [sql.ErrNoRows] if there is no bill.
//
// An Approver may refuse an adjustment that isn't made yet.
func (l *Ledger) Adjust(ctx context.Context, id uuid.UUID, appID uint32, roomSessionID uint64, number int, approve ...Approver) (Adjustment, error) {
	if err := l.Migrate(ctx); err != nil {
		return Adjustment{}, err
	}
	var a Adjustment
	var nothing bool
	err := l.in(ctx, func(tx *sql.Tx) (err error) {
		a, nothing, err = l.adjust(ctx, tx, id, appID, roomSessionID, number, approve)
		return err
	})
	if err == nil && nothing {
		err = ErrNothingToAdjust
	}
	if err != nil {
		return Adjustment{}, fmt.Errorf("make adjustment %d of session %d of app %d: %w", number, roomSessionID, appID, err)
	}
	return a, nil
}

func (l *Ledger) adjust(ctx context.Context, tx *sql.Tx, id uuid.UUID, appID uint32, roomSessionID uint64, number int, approve []Approver) (a Adjustment, nothing bool, err error) {
	k := keyOf(appID, roomSessionID)
	var entries int
	var room usage.Room
	if err := tx.QueryRowContext(ctx, `UPDATE sessions SET dirty_at = dirty_at WHERE appid = $1 AND room_session_id = $2
		RETURNING entries, room_create_time, contradicted = 1, implausible = 1`, k.app, k.session).
		Scan(&entries, &room.Create, &room.Contradicted, &room.Implausible); err != nil {
		return a, false, fmt.Errorf("lock the session: %w", err)
	}
	bill, err := scanBill(tx.QueryRowContext(ctx, selectBill, k.app, k.session))
	if err != nil {
		return a, false, fmt.Errorf("read the bill: %w", err)
	}
	// The last entry, and the one that is asked for if it was made.
	before := bill.Bill
	made, err := adjustments(tx.QueryContext(ctx, selectAdjustments, k.app, k.session))
	if err != nil {
		return a, false, err
	}
	for _, m := range made {
		if m.Number == number {
			return m, false, nil
		}
		before = m.Bill
	}
	if number != len(made)+1 {
		return a, false, fmt.Errorf("found number %d, want %d, as that is the next", number, len(made)+1)
	}
	a = Adjustment{ID: id, Number: number, Bill: bill.Bill, MadeAt: time.Now().Truncate(time.Millisecond).UTC()}
	var doubt string
	if a.Usage, doubt, err = figures(ctx, tx, bill.Bill, room); err != nil {
		return a, false, err
	}
	// What wasn't collected then is missing now as well, and a close that couldn't be
	// believed is no better now.
	a.Usage.Estimated |= bill.Usage.Estimated & (usage.NotCollected | usage.ImplausibleTime)
	if a.Charge, err = bill.Charge.Charge(a.Usage.Minutes); err != nil {
		return a, false, err
	}
	nothing = a.Bill == before
	if !nothing {
		if err := allowAdjusting(ctx, tx, k, before, a.Bill); err != nil {
			return a, false, err
		}
		if err := allow(approve, a.Bill, doubt); err != nil {
			return a, false, err
		}
		a.Difference = usage.DifferenceOf(before.Usage, before.Charge, a.Usage, a.Charge)
		d := a.Difference
		values := append(MadeBill{a.Bill, a.MadeAt}.values(), id.String(), int64(number), d.Millis, d.Seconds, d.Minutes, d.Amount)
		if _, err := tx.ExecContext(ctx, "INSERT INTO adjustments ("+adjustmentColumns+") VALUES ("+placeholders(len(values))+")", values...); err != nil {
			return a, false, fmt.Errorf("insert adjustment: %w", err)
		}
		entries++
	}
	if _, err := tx.ExecContext(ctx, "UPDATE sessions SET entries = $1, dirty_at = 0, adjusting_at = 0 WHERE appid = $2 AND room_session_id = $3", entries, k.app, k.session); err != nil {
		return a, false, fmt.Errorf("note the adjustment: %w", err)
	}
	return a, nothing, nil
}

func adjustments(rows *sql.Rows, err error) (all []Adjustment, _ error) {
	if err != nil {
		return nil, fmt.Errorf("read adjustments: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		a, err := scanAdjustment(rows)
		if err != nil {
			return nil, fmt.Errorf("read adjustments: %w", err)
		}
		all = append(all, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read adjustments: %w", err)
	}
	return all, nil
}

const (
	selectBill        = "SELECT " + billColumns + " FROM bills WHERE appid = $1 AND room_session_id = $2"
	selectAdjustments = "SELECT " + adjustmentColumns + " FROM adjustments WHERE appid = $1 AND room_session_id = $2 ORDER BY number"
	// selectEnds finds the first login, the last time and the last logout.
	selectEnds = `SELECT coalesce(min(CASE WHEN login_time <> 0 THEN login_time END), 0),
			coalesce(max(CASE WHEN logout_time > login_time THEN logout_time ELSE login_time END), 0), coalesce(max(logout_time), 0)
		FROM stays WHERE appid = $1 AND room_session_id = $2`
)

// Bill finds the session's bill. The error wraps [sql.ErrNoRows] if it has none.
func (l *Ledger) Bill(ctx context.Context, appID uint32, roomSessionID uint64) (Bill, error) {
	b, err := l.MadeBill(ctx, appID, roomSessionID)
	return b.Bill, err
}

// MadeBill is [Ledger.Bill] that also tells when the bill was made.
func (l *Ledger) MadeBill(ctx context.Context, appID uint32, roomSessionID uint64) (MadeBill, error) {
	if err := l.Migrate(ctx); err != nil {
		return MadeBill{}, err
	}
	k := keyOf(appID, roomSessionID)
	b, err := scanBill(l.db.QueryRowContext(ctx, selectBill, k.app, k.session))
	if err != nil {
		return MadeBill{}, fmt.Errorf("read the bill of session %d of app %d: %w", roomSessionID, appID, err)
	}
	return b, nil
}

// Adjustments are those of the session's bill, in the order of their numbers.
func (l *Ledger) Adjustments(ctx context.Context, appID uint32, roomSessionID uint64) ([]Adjustment, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	k := keyOf(appID, roomSessionID)
	return adjustments(l.db.QueryContext(ctx, selectAdjustments, k.app, k.session))
}

// billsPage is how many bills are read in one go.
var billsPage = 5000

// Bills lists the bills that were made at a time or later; all, if it is zero.
// They are read in pages, so that neither memory nor the writers' time is held
// for long. A bill that is made meanwhile may be listed or not; all others are,
// once. An error ends the list.
func (l *Ledger) Bills(ctx context.Context, since time.Time) iter.Seq2[MadeBill, error] {
	return pages(ctx, l, "list bills", func(last *MadeBill) ([]MadeBill, error) {
		// A page in the order of the index bills_session. Which order of text that is
		// depends on the database, and doesn't matter.
		after := sessionKey{-1, ""}
		if last != nil {
			after = keyOf(last.AppID, last.RoomSessionID)
		}
		return bills(l.db.QueryContext(ctx, "SELECT "+billColumns+` FROM bills
			WHERE (appid, room_session_id) > ($1, $2) AND made_at >= $3
			ORDER BY appid, room_session_id LIMIT $4`, after.app, after.session, since.UnixMilli(), billsPage))
	})
}

func bills(rows *sql.Rows, err error) (all []MadeBill, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		b, err := scanBill(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

// pages lists bills in pages of billsPage: the one after the last of the page
// before, of which there is none at first.
func pages(ctx context.Context, l *Ledger, what string, next func(last *MadeBill) ([]MadeBill, error)) iter.Seq2[MadeBill, error] {
	return func(yield func(MadeBill, error) bool) {
		if err := l.Migrate(ctx); err != nil {
			yield(MadeBill{}, err)
			return
		}
		for last := (*MadeBill)(nil); ; {
			page, err := next(last)
			if err != nil {
				yield(MadeBill{}, fmt.Errorf("%s: %w", what, err))
				return
			}
			for _, b := range page {
				if !yield(b, nil) {
					return
				}
			}
			if len(page) < billsPage {
				return
			}
			last = &page[len(page)-1]
		}
	}
}

// Filter chooses entries. What is zero chooses all.
type Filter struct {
	// AppID is the app.
	AppID uint32
	// From and To are between when the room has closed, by ZEGO's clock: at From or
	// later, and ahead of To.
	From, To time.Time
}

// where is the condition, of the arguments $1 to $3.
const where = " WHERE (CAST($1 AS BIGINT) = 0 OR appid = $1) AND room_close_time >= $2 AND room_close_time < $3"

func (f Filter) args() []any {
	to := int64(1) << 62
	if !f.To.IsZero() {
		to = f.To.UnixMilli()
	}
	return []any{int64(f.AppID), f.From.UnixMilli(), to}
}

// Entry is a bill and its adjustments.
type Entry struct {
	MadeBill
	// Adjustments are in the order of their numbers.
	Adjustments []Adjustment `json:"adjustments,omitempty"`
}

// Entries lists bills with their adjustments, in the order of the time at which
// the rooms closed. They are read in pages, as [Ledger.Bills] are.
func (l *Ledger) Entries(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		type key struct {
			app     uint32
			session uint64
		}
		var adjusted map[key][]Adjustment // of the page
		for b, err := range pages(ctx, l, "list bills", func(last *MadeBill) ([]MadeBill, error) {
			args := append(f.args(), int64(-1)<<62, int64(-1), "", billsPage)
			if last != nil {
				k := keyOf(last.AppID, last.RoomSessionID)
				args = append(f.args(), last.RoomCloseTime.UnixMilli(), k.app, k.session, billsPage)
			}
			page, err := bills(l.db.QueryContext(ctx, "SELECT "+billColumns+" FROM bills"+where+`
				AND (room_close_time, appid, room_session_id) > ($4, $5, $6)
				ORDER BY room_close_time, appid, room_session_id LIMIT $7`, args...))
			if err != nil || len(page) == 0 {
				return nil, err
			}
			// Of the app, if it is one: there may be more of others than fit into memory.
			all, err := adjustments(l.db.QueryContext(ctx, "SELECT "+adjustmentColumns+` FROM adjustments
				WHERE (CAST($1 AS BIGINT) = 0 OR appid = $1) AND room_close_time >= $2 AND room_close_time <= $3 ORDER BY number`,
				int64(f.AppID), page[0].RoomCloseTime.UnixMilli(), page[len(page)-1].RoomCloseTime.UnixMilli()))
			adjusted = make(map[key][]Adjustment, len(all))
			for _, a := range all {
				k := key{a.AppID, a.RoomSessionID}
				adjusted[k] = append(adjusted[k], a)
			}
			return page, err
		}) {
			if !yield(Entry{b, adjusted[key{b.AppID, b.RoomSessionID}]}, err) || err != nil {
				return
			}
		}
	}
}

// CountBills counts the bills that [Ledger.Entries] lists.
func (l *Ledger) CountBills(ctx context.Context, f Filter) (n int64, err error) {
	if err := l.Migrate(ctx); err != nil {
		return 0, err
	}
	if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM bills"+where, f.args()...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count bills: %w", err)
	}
	return n, nil
}

// AppsOf are the apps of which something is known of a session. A room_session_id
// is one app's, but nothing keeps two apps from having the same.
func (l *Ledger) AppsOf(ctx context.Context, roomSessionID uint64) (apps []uint32, err error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	session := keyOf(0, roomSessionID).session
	// From app to app, as there is no index that begins with the session.
	for app := int64(-1); ; {
		var next sql.NullInt64
		if err := l.db.QueryRowContext(ctx, `SELECT min(appid) FROM (
			SELECT min(appid) AS appid FROM sessions WHERE appid > $1 UNION ALL SELECT min(appid) FROM bills WHERE appid > $1) AS apps`, app).Scan(&next); err != nil {
			return nil, fmt.Errorf("list the apps: %w", err)
		}
		if !next.Valid {
			return apps, nil
		}
		app = next.Int64
		var known bool
		if err := l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sessions WHERE appid = $1 AND room_session_id = $2)
			OR EXISTS (SELECT 1 FROM bills WHERE appid = $1 AND room_session_id = $2)`, app, session).Scan(&known); err != nil {
			return nil, fmt.Errorf("look for session %s of app %d: %w", session, app, err)
		}
		if known {
			apps = append(apps, uint32(app))
		}
	}
}
