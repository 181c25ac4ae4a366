package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Bill is the first entry of a session. There is never a second bill, and it never changes:
// later callbacks make an [Adjustment].
type Bill = pricing.Bill

// MadeBill is a bill with the time at which it was made.
type MadeBill struct {
	Bill
	// MadeAt is the time of the worker's clock, in milliseconds and UTC.
	MadeAt time.Time `json:"made_at"`
}

// Adjustment is an entry that corrects the earlier ones, which stay unchanged, for later
// callbacks.
type Adjustment = pricing.Adjustment

const (
	figureColumns = `reconciled, start_time, start_from, end_time, end_from, participants, stays,
		participant_ms, participant_seconds, participant_minutes, estimated,
		published_ms, published_seconds, published_estimated, callbacks, stream_callbacks, excluded, currency, price_per_minute,
		by_function, amount, lines`
	billColumns       = "id, appid, room_id, room_session_id, close_reason, room_close_time, made_at, " + figureColumns
	differenceColumns = "billed_ms, billed_seconds, billed_minutes, billed_amount, billed_lines"
	// adjustmentColumns begin with the billColumns.
	adjustmentColumns = "bill_id, appid, room_id, room_session_id, close_reason, room_close_time, made_at, " + figureColumns +
		", id, number, " + differenceColumns
)

// values returns the billColumns.
func (b MadeBill) values() []any {
	u, k := b.Usage, keyOf(b.Session.ID)
	return []any{b.ID.String(), k.app, b.RoomID, k.session, b.CloseReason, b.RoomCloseTime.UnixMilli(), b.MadeAt.UnixMilli(),
		oneIf(b.Reconciled), millis(u.Start), u.StartFrom, millis(u.End), u.EndFrom, u.Participants, u.Stays,
		u.Millis, u.Seconds, u.Minutes, u.Estimated.String(),
		u.Published, u.PublishedSeconds, u.PublishedEstimated.String(), missing(u.Callbacks), missing(u.StreamCallbacks), u.Excluded,
		b.Charge.Currency, b.Charge.PerMinute, oneIf(b.Charge.Function), b.Charge.Amount, b.Charge.Lines}
}

// valuesOf returns the adjustmentColumns.
func valuesOf(a Adjustment) []any {
	d := a.Difference
	return append(MadeBill{a.Bill, a.MadeAt}.values(), a.ID.String(), int64(a.Number), d.Millis, d.Seconds, d.Minutes, d.Amount, d.Lines)
}

// insert writes a row with all of the columns.
func insert(ctx context.Context, tx transaction, table, columns string, values []any, more string) (int64, error) {
	var places []string
	for i := range values {
		places = append(places, "$"+strconv.Itoa(i+1))
	}
	return tx.exec(ctx, "INSERT INTO "+table+" ("+columns+") VALUES ("+strings.Join(places, ", ")+") "+more, values...)
}

func scanBill(r row) (MadeBill, error) { return scanEntry(r) }

// scanEntry scans the billColumns of a row, and others.
func scanEntry(r row, others ...any) (b MadeBill, err error) {
	u := &b.Usage
	columns := []any{&b.ID, &b.AppID, &b.RoomID, (*sessionColumn)(&b.RoomSessionID), &b.CloseReason, (*timeColumn)(&b.RoomCloseTime), (*timeColumn)(&b.MadeAt),
		&b.Reconciled, (*timeColumn)(&u.Start), &u.StartFrom, (*timeColumn)(&u.End), &u.EndFrom, &u.Participants, &u.Stays,
		&u.Millis, &u.Seconds, &u.Minutes, (*reasonsColumn)(&u.Estimated),
		&u.Published, &u.PublishedSeconds, (*reasonsColumn)(&u.PublishedEstimated), (*missingColumn)(&u.Callbacks), (*missingColumn)(&u.StreamCallbacks), &u.Excluded,
		&b.Charge.Currency, &b.Charge.PerMinute, &b.Charge.Function, &b.Charge.Amount, &b.Charge.Lines}
	err = r.Scan(append(columns, others...)...)
	return b, err
}

func scanAdjustment(r row) (a Adjustment, err error) {
	d := &a.Difference
	b, err := scanEntry(r, &a.ID, &a.Number, &d.Millis, &d.Seconds, &d.Minutes, &d.Amount, &d.Lines)
	a.Bill, a.MadeAt = b.Bill, b.MadeAt
	return a, err
}

// An Approver returns an error to prevent an entry. doubt says why its figures must be wrong;
// it is empty if they are plausible.
type Approver func(due Bill, doubt string) error

// Finalize makes the session's bill from the recorded events, unless there is a bill. It
// returns the session's bill and reports whether it made it. A bill never changes.
//
// In b, Usage holds known reasons for inexact figures, and Charge the price of a minute,
// unless the ledger has a price function.
func (l *Ledger) Finalize(ctx context.Context, b Bill, approve ...Approver) (bill Bill, made bool, err error) {
	if l.Price != nil {
		b.Charge = pricing.Charge{Function: true}
	}
	err = l.inComputed(ctx, func(tx transaction, c *computation) (err error) {
		bill, made, err = l.finalize(ctx, tx, c, b, approve...)
		return err
	})
	return bill, made, wrap(err, "finalize session %s", keyOf(b.Session.ID))
}

const (
	lockedColumns = "entries, room_create_time, contradicted = 1, implausible = 1"
	returningRoom = " RETURNING " + lockedColumns
)

// lockedSession is a session whose row is locked until the transaction ends.
type lockedSession struct {
	entries int
	room    metering.Room
}

func scanLocked(r row) (s lockedSession, err error) {
	err = r.Scan(&s.entries, &s.room.Create, &s.room.Contradicted, &s.room.Implausible)
	return s, err
}

func (l *Ledger) finalize(ctx context.Context, tx transaction, c *computation, b Bill, approve ...Approver) (_ Bill, made bool, err error) {
	due := MadeBill{b, time.Now()}
	due.Session = session.Session{ID: b.Session.ID, RoomID: b.RoomID, CloseReason: b.CloseReason, RoomCloseTime: fromMillis(b.RoomCloseTime.UnixMilli()), Reconciled: b.Reconciled}
	room, first, err := lockUnbilled(ctx, tx, due)
	if err != nil {
		return b, false, err
	}
	if first != nil {
		return first.Bill, false, nil // a retry
	}
	result, err := l.computed(ctx, tx, c, basis{due.Bill, room, b.Usage.Estimated, 0})
	if err != nil {
		return b, false, err
	}
	for _, a := range approve {
		if err := a(result.bill, result.doubt); err != nil {
			return b, false, err
		}
	}
	due.Bill = result.bill
	return due.Bill, true, l.insertBill(ctx, tx, due, result.people.rows, result.lines)
}

// lockBilled locks a session with a bill. The error wraps [sql.ErrNoRows] if there is none.
func lockBilled(ctx context.Context, tx transaction, k key) (locked lockedSession, bill MadeBill, err error) {
	locked, err = one(ctx, tx, scanLocked, "UPDATE sessions SET dirty_at = dirty_at WHERE appid = $1 AND room_session_id = $2"+returningRoom, k.app, k.session)
	if err != nil {
		return locked, bill, fmt.Errorf("lock the session: %w", err)
	}
	bill, err = one(ctx, tx, scanBill, selectBill, k.app, k.session)
	return locked, bill, wrap(err, "read the bill")
}

// lockUnbilled locks a session until its bill is made: see Record. If the session has a bill,
// it returns that.
func lockUnbilled(ctx context.Context, tx transaction, b MadeBill) (room metering.Room, first *MadeBill, err error) {
	k := keyOf(b.Session.ID)
	locked, err := one(ctx, tx, scanLocked, `
		INSERT INTO sessions (appid, room_session_id, room_id, room_create_time, contradicted, implausible, seen_at, closed_at, entries, dirty_at)
		VALUES ($1, $2, $3, 0, 0, 0, $4, $4, 1, 0)
		ON CONFLICT (appid, room_session_id) DO UPDATE SET
			closed_at = CASE WHEN sessions.closed_at = 0 THEN excluded.closed_at ELSE sessions.closed_at END,
			entries = CASE WHEN sessions.entries = 0 THEN 1 ELSE sessions.entries END`+returningRoom, k.app, k.session, b.RoomID, time.Now().UnixMilli())
	if err != nil {
		return room, nil, fmt.Errorf("lock the session: %w", err)
	}
	switch made, err := one(ctx, tx, scanBill, selectBill, k.app, k.session); {
	case err == nil:
		return locked.room, &made, nil
	case !errors.Is(err, sql.ErrNoRows):
		return room, nil, fmt.Errorf("read the bill: %w", err)
	}
	return locked.room, nil, nil
}

func (l *Ledger) insertBill(ctx context.Context, tx transaction, b MadeBill, people []billedRow, lines []pricing.Line) error {
	if _, err := insert(ctx, tx, "bills", billColumns, b.values(), ""); err != nil {
		return fmt.Errorf("insert bill: %w", err)
	}
	if err := l.insertBilled(ctx, tx, keyOf(b.Session.ID), people); err != nil {
		return err
	}
	return l.insertLines(ctx, tx, keyOf(b.Session.ID), 0, lines, b.Charge.Amount)
}

// lasting holds the reasons that stay in adjustments: callbacks that were not collected
// remain missing, and an impossible close time remains impossible.
const lasting = session.NotCollected | session.ImplausibleTime

// compute returns an entry with figures and charge of the events recorded so far.
func (l *Ledger) compute(ctx context.Context, from source, b basis) (c computed, err error) {
	bill, room, k := b.bill, b.room, keyOf(b.bill.Session.ID)
	room.Close, room.Reconciled = bill.RoomCloseTime.UnixMilli(), bill.Reconciled
	if room, c.doubt, err = roomOf(ctx, from, k, room); err != nil {
		return c, err
	}
	if bill.Usage, c.people, err = l.count(ctx, from, bill.Session, k, room, int64(b.number)); err != nil {
		return c, err
	}
	bill.Usage.Estimated |= b.known
	bill.Charge, c.lines, err = l.price(bill, func(yield func(session.Participant, error) bool) {
		for p, err := range l.peopleOf(ctx, from, k, metering.NewMeter(room), l.Rules.Of(bill.Session, room), int64(b.number)-1) {
			if !yield(p.Participant, err) || err != nil {
				return
			}
		}
	})
	c.bill = bill
	return c, err
}

// Lacks reports whether the ledger lacks the event: the creation of a room, or that end of a
// stay. It reads the fields Event, AppID, RoomSessionID and Stay.
func (l *Ledger) Lacks(ctx context.Context, u Event) (bool, error) {
	k := keyOf(u.ID)
	from, args := "FROM sessions WHERE room_create_time <> 0", []any{k.app, k.session}
	switch u.Event {
	case zego.EventRoomLogin:
		from, args = "FROM stays WHERE login_time <> 0 AND stay = $3", append(args, u.Stay)
	case zego.EventStreamCreate:
		from, args = "FROM streams WHERE create_time <> 0 AND stream_sid = $3", append(args, u.Stay)
	case zego.EventStreamClose:
		from, args = "FROM streams WHERE close_time <> 0 AND stream_sid = $3", append(args, u.Stay)
	case zego.EventRoomLogout:
		from, args = "FROM stays WHERE logout_time <> 0 AND stay = $3", append(args, u.Stay)
	}
	lacks, err := one(ctx, l, value[bool], "SELECT NOT EXISTS (SELECT 1 "+from+" AND appid = $1 AND room_session_id = $2)", args...)
	return lacks, wrap(err, "look for a %s of session %s", u.Event, k)
}

const (
	selectBill        = "SELECT " + billColumns + " FROM bills WHERE appid = $1 AND room_session_id = $2"
	selectAdjustments = "SELECT " + adjustmentColumns + " FROM adjustments WHERE appid = $1 AND room_session_id = $2 ORDER BY number"
)

// Bill returns the session's bill. The error wraps [sql.ErrNoRows] if there is none.
func (l *Ledger) Bill(ctx context.Context, id session.ID) (Bill, error) {
	b, err := l.MadeBill(ctx, id)
	return b.Bill, err
}

// MadeBill is [Ledger.Bill], with the time at which the bill was made.
func (l *Ledger) MadeBill(ctx context.Context, id session.ID) (MadeBill, error) {
	k := keyOf(id)
	b, err := one(ctx, l, scanBill, selectBill, k.app, k.session)
	return b, wrap(err, "read the bill of session %s", k)
}

// Bills lists the bills made since a time, each once. A bill made during the call may be
// missing.
func (l *Ledger) Bills(ctx context.Context, since time.Time) iter.Seq2[MadeBill, error] {
	return pages("list bills", MadeBill{}, func(last MadeBill) ([]MadeBill, error) {
		// The order is that of the index bills_session. It depends on the database's collation,
		// which does not matter here.
		after := keyOf(last.Session.ID)
		return list(ctx, l, scanBill, "SELECT "+billColumns+` FROM bills
			WHERE (appid, room_session_id) > ($1, $2) AND made_at >= $3
			ORDER BY appid, room_session_id LIMIT $4`, after.app, after.session, since.UnixMilli(), pageSize)
	})
}

// Filter selects entries. Its zero value selects all.
type Filter struct {
	// AppID is the app.
	AppID uint32
	// From and To bound the room's close time: From <= close time < To.
	From, To time.Time
}

// where is the condition of a Filter with the arguments $1 to $3.
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

// Entries lists bills with their adjustments, in the order in which the rooms closed.
func (l *Ledger) Entries(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return pages("list bills", Entry{}, func(last Entry) ([]Entry, error) {
		after := keyOf(last.Session.ID)
		page, err := list(ctx, l, func(r row) (Entry, error) { b, err := scanBill(r); return Entry{MadeBill: b}, err }, "SELECT "+billColumns+" FROM bills"+where+`
			AND (room_close_time, appid, room_session_id) > ($4, $5, $6)
			ORDER BY room_close_time, appid, room_session_id LIMIT $7`, append(f.args(), last.RoomCloseTime.UnixMilli(), after.app, after.session, pageSize)...)
		if err != nil || len(page) == 0 {
			return nil, err
		}
		at := map[key]*Entry{}
		for i := range page {
			at[keyOf(page[i].Session.ID)] = &page[i]
		}
		return page, each(ctx, l, scanAdjustment, func(a Adjustment) error {
			if e := at[keyOf(a.Session.ID)]; e != nil {
				e.Adjustments = append(e.Adjustments, a)
			}
			return nil
		}, "SELECT "+adjustmentColumns+` FROM adjustments
			WHERE (CAST($1 AS BIGINT) = 0 OR appid = $1) AND room_close_time >= $2 AND room_close_time <= $3 ORDER BY number`,
			int64(f.AppID), page[0].RoomCloseTime.UnixMilli(), page[len(page)-1].RoomCloseTime.UnixMilli())
	})
}

// CountBills counts the bills that [Ledger.Entries] lists.
func (l *Ledger) CountBills(ctx context.Context, f Filter) (int64, error) {
	n, err := one(ctx, l, value[int64], "SELECT count(*) FROM bills"+where, f.args()...)
	return n, wrap(err, "count bills")
}
