package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// ErrNothingToAdjust means that what arrived after a session's last entry changes nothing.
var ErrNothingToAdjust = errors.New("nothing to adjust")

// Adjust makes the session's adjustment of the number, unless there is one, and returns it.
// The error wraps [ErrNothingToAdjust] if none is needed, [sql.ErrNoRows] if there is no
// bill, and is a [*RestoredError] if the bill was restored.
func (l *Ledger) Adjust(ctx context.Context, adjustmentID uuid.UUID, id session.ID, number int, approve ...Approver) (Adjustment, error) {
	var a Adjustment
	var nothing bool
	k := keyOf(id)
	err := l.inComputed(ctx, func(tx transaction, c *computation) (err error) {
		a, nothing, err = l.adjust(ctx, tx, c, adjustmentID, k, number, approve)
		return err
	})
	if err == nil && nothing {
		err = ErrNothingToAdjust
	}
	return a, wrap(err, "make adjustment %d of session %s", number, k)
}

func (l *Ledger) adjust(ctx context.Context, tx transaction, c *computation, id uuid.UUID, k key, number int, approve []Approver) (a Adjustment, nothing bool, err error) {
	locked, bill, err := lockBilled(ctx, tx, k)
	if err != nil {
		return a, false, err
	}
	made, err := list(ctx, tx, scanAdjustment, selectAdjustments, k.app, k.session)
	if err != nil {
		return a, false, fmt.Errorf("read adjustments: %w", err)
	}
	last := bill.Bill
	for _, m := range made {
		if m.Number == number {
			return m, false, nil
		}
		last = m.Bill
	}
	if number != len(made)+1 {
		return a, false, fmt.Errorf("found number %d, want %d, which is the next", number, len(made)+1)
	}
	var restored bool
	if restored, err = one(ctx, tx, value[bool], "SELECT EXISTS (SELECT 1 FROM restored WHERE appid = $1 AND room_session_id = $2)", k.app, k.session); err != nil {
		return a, false, fmt.Errorf("read whether the bill was restored: %w", err)
	}
	a = Adjustment{ID: id, Number: number, MadeAt: time.Now().Truncate(time.Millisecond).UTC()}
	result, err := l.computed(ctx, tx, c, basis{bill.Bill, locked.room, bill.Usage.Estimated & lasting, number})
	if err != nil {
		return a, false, err
	}
	before, err := soFar(ctx, tx, k)
	if err != nil {
		return a, false, err
	}
	due := result.bill
	lines, err := pricing.Difference(before, result.lines)
	if err != nil {
		return a, false, &PriceError{err}
	}
	same := last
	same.Usage.Excluded = due.Usage.Excluded // a change of the excluded users alone needs no adjustment
	switch nothing = due == same && len(lines) == 0 && !result.people.billed; {
	case nothing:
	case restored:
		return a, false, &RestoredError{last, due}
	default:
		for _, ask := range approve {
			if err := ask(due, result.doubt); err != nil {
				return a, false, err
			}
		}
	}
	a.Bill = due
	entries := locked.entries
	if !nothing {
		entries++
		a.Difference = a.Since(last)
		a.Difference.Lines = int64(len(lines))
		if _, err := insert(ctx, tx, "adjustments", adjustmentColumns, valuesOf(a), ""); err != nil {
			return a, false, fmt.Errorf("insert adjustment: %w", err)
		}
		if err := l.insertBilled(ctx, tx, k, result.people.rows); err != nil {
			return a, false, err
		}
		if err := l.insertLines(ctx, tx, k, number, lines, a.Difference.Amount); err != nil {
			return a, false, err
		}
	}
	if _, err := tx.exec(ctx, "UPDATE sessions SET entries = $1, dirty_at = 0, adjusting_at = 0 WHERE appid = $2 AND room_session_id = $3", entries, k.app, k.session); err != nil {
		return a, false, fmt.Errorf("note the adjustment: %w", err)
	}
	return a, nothing, nil
}

// Adjustments returns the adjustments of the session's bill in the order of their numbers.
func (l *Ledger) Adjustments(ctx context.Context, id session.ID) ([]Adjustment, error) {
	k := keyOf(id)
	all, err := list(ctx, l, scanAdjustment, selectAdjustments, k.app, k.session)
	return all, wrap(err, "read the adjustments of session %s", k)
}

// BilledSession is a session with events after its last entry.
type BilledSession struct {
	// Session is the session, as its bill has it.
	session.Session
	// Number is the number of the next adjustment, from 1.
	Number int `json:"number"`
	// DirtyAt is when the first of those events was recorded, by our clock.
	DirtyAt time.Time `json:"dirty_at"`
}

// Dirty lists up to limit sessions with events after their last entry, longest waiting first,
// starting behind the session after. It leaves out those with an adjustment started at or
// after the given time.
func (l *Ledger) Dirty(ctx context.Context, started time.Time, after BilledSession, limit int) ([]BilledSession, error) {
	k := keyOf(after.ID)
	all, err := list(ctx, l, func(r row) (b BilledSession, err error) {
		err = r.Scan(&b.AppID, &b.RoomID, (*sessionColumn)(&b.RoomSessionID), &b.CloseReason, (*timeColumn)(&b.RoomCloseTime),
			&b.Reconciled, &b.Number, (*timeColumn)(&b.DirtyAt))
		return b, err
	}, `SELECT appid, bills.room_id, room_session_id, close_reason, room_close_time, reconciled = 1, entries, dirty_at
		FROM sessions JOIN bills USING (appid, room_session_id)
		WHERE dirty_at <> 0 AND adjusting_at < $5 AND (dirty_at, appid, room_session_id) > ($2, $3, $4)
		ORDER BY dirty_at, appid, room_session_id LIMIT $1`, limit, millis(after.DirtyAt), k.app, k.session, started.UnixMilli())
	return all, wrap(err, "list sessions to adjust")
}

// AdjustmentStarted records the start of a run that adjusts the session, so that no other is
// started while it waits.
func (l *Ledger) AdjustmentStarted(ctx context.Context, s BilledSession, at time.Time) error {
	k := keyOf(s.ID)
	// If the run has ended meanwhile, the session is not dirty, or dirty again.
	_, err := l.exec(ctx, "UPDATE sessions SET adjusting_at = $1 WHERE appid = $2 AND room_session_id = $3 AND dirty_at = $4",
		at.UnixMilli(), k.app, k.session, millis(s.DirtyAt))
	return wrap(err, "note that session %s is being adjusted", k)
}

// Adjusting reports whether events arrived after the session's last entry.
func (l *Ledger) Adjusting(ctx context.Context, id session.ID) (bool, error) {
	k := keyOf(id)
	adjusting, err := one(ctx, l, value[bool], "SELECT EXISTS (SELECT 1 FROM sessions WHERE appid = $1 AND room_session_id = $2 AND dirty_at <> 0)", k.app, k.session)
	return adjusting, wrap(err, "read whether session %s is to be adjusted", k)
}

// Adjusted reports whether the ledger has a session's adjustment of a number.
func (l *Ledger) Adjusted(ctx context.Context, id session.ID, number int) (bool, error) {
	k := keyOf(id)
	there, err := one(ctx, l, value[bool], "SELECT EXISTS (SELECT 1 FROM adjustments WHERE appid = $1 AND room_session_id = $2 AND number = $3)", k.app, k.session, number)
	return there, wrap(err, "look for adjustment %d of session %s", number, k)
}
