package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

const (
	// maxUnknownLife is the assumed life of a room with unknown creation. Nearly all rooms live
	// shorter.
	maxUnknownLife = 24 * time.Hour
	// lateEvents is how long after a room closed its callbacks may arrive. ZEGO retries for 62
	// seconds, and clocks differ.
	lateEvents = 2 * time.Minute
)

// Past describes a session's state in a ledger that may have been restored.
type Past struct {
	// Billed reports whether the session has a bill.
	Billed bool
	// Loss is a loss during the session's life, or nil.
	Loss *Loss
}

// Past returns the state of a session that closed at the given time.
func (l *Ledger) Past(ctx context.Context, id session.ID, closed time.Time) (p Past, err error) {
	k := keyOf(id)
	var created int64
	if _, err = one(ctx, l, func(r row) (struct{}, error) { return struct{}{}, r.Scan(&p.Billed, &created) }, `
		SELECT EXISTS (SELECT 1 FROM bills WHERE appid = $1 AND room_session_id = $2),
			coalesce((SELECT room_create_time FROM sessions WHERE appid = $1 AND room_session_id = $2), 0)`, k.app, k.session); err != nil {
		return p, fmt.Errorf("read what is known of session %s: %w", k, err)
	}
	begun := millis(closed.Add(-maxUnknownLife))
	if created != 0 {
		begun = created
	}
	losses, err := list(ctx, l, scanLoss, "SELECT from_time, to_time FROM losses WHERE from_time <= $1 AND to_time >= $2 ORDER BY from_time LIMIT 1",
		millis(closed.Add(lateEvents)), begun)
	if err != nil {
		return p, fmt.Errorf("read what was lost: %w", err)
	}
	if len(losses) > 0 {
		p.Loss = &losses[0]
	}
	return p, nil
}

// RestoreBill puts back a lost bill unchanged. It reports false and changes nothing if the
// session has a bill. If the session's remaining events still give the bill's figures, its
// lines are computed again; otherwise a single line has the amount.
func (l *Ledger) RestoreBill(ctx context.Context, b MadeBill) (restored bool, err error) {
	k := keyOf(b.Session.ID)
	err = l.inComputed(ctx, func(tx transaction, c *computation) error {
		room, first, err := lockUnbilled(ctx, tx, b)
		if err != nil || first != nil {
			return err
		}
		left, err := l.left(ctx, tx, c, b.Bill, room)
		if err != nil {
			return err
		}
		lines := left.lines
		if left.bill.Usage != b.Usage || left.bill.Charge != b.Charge {
			lines = asBilled(b.Charge, b.Since(Bill{}))
			b.Charge.Lines = int64(len(lines))
		}
		if err := l.insertBill(ctx, tx, b, left.people.rows, lines); err != nil {
			return err
		}
		restored = true
		return noteRestored(ctx, tx, k)
	})
	return restored, wrap(err, "restore the bill of session %s", k)
}

// left computes the bill and the lines of a session's remaining events. There are none if the
// session cannot be priced.
func (l *Ledger) left(ctx context.Context, tx transaction, c *computation, b Bill, room metering.Room) (left computed, err error) {
	if _, err := l.priceOf(b.Charge); err != nil {
		return left, err
	}
	left, err = l.computed(ctx, tx, c, basis{b, room, b.Usage.Estimated & (lasting | session.EventsLost), 0})
	if unpriced := new(PriceError); errors.As(err, &unpriced) {
		return computed{}, nil
	}
	return left, err
}

// asBilled returns a line that stands for the lost lines of an entry.
func asBilled(c pricing.Charge, d pricing.Change) []pricing.Line {
	line := pricing.Line{Description: "as billed, lines lost", Quantity: 1, Unit: "entry", Amount: d.Amount, Currency: c.Currency}
	switch {
	case d.Amount == 0:
		return nil
	case !c.Function:
		line.Description, line.Quantity, line.Unit, line.UnitPrice = pricing.ParticipantMinutes, d.Minutes, "minute", c.PerMinute
	}
	return []pricing.Line{line}
}

// RestoreAdjustment puts back a lost adjustment unchanged, with lines as in
// [Ledger.RestoreBill]. It reports false and changes nothing if the adjustment exists. The
// error wraps [sql.ErrNoRows] if its bill does not.
func (l *Ledger) RestoreAdjustment(ctx context.Context, a Adjustment) (restored bool, err error) {
	k := keyOf(a.Session.ID)
	err = l.inComputed(ctx, func(tx transaction, c *computation) error {
		locked, _, err := lockBilled(ctx, tx, k)
		if err != nil {
			return err
		}
		left, err := l.left(ctx, tx, c, a.Bill, locked.room)
		if err != nil {
			return err
		}
		before, err := soFar(ctx, tx, k)
		if err != nil {
			return err
		}
		lines, err := pricing.Difference(before, left.lines)
		if due := left.bill; err != nil || due.Usage != a.Usage || due.Charge != a.Charge || int64(len(lines)) != a.Difference.Lines {
			lines = asBilled(a.Charge, a.Difference)
		}
		a.Difference.Lines = int64(len(lines))
		n, err := insert(ctx, tx, "adjustments", adjustmentColumns, valuesOf(a), "ON CONFLICT DO NOTHING")
		if restored = n == 1; err != nil || !restored {
			return err
		}
		if err := l.insertLines(ctx, tx, k, a.Number, lines, a.Difference.Amount); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, "UPDATE sessions SET entries = $1 WHERE appid = $2 AND room_session_id = $3 AND entries < $1", a.Number+1, k.app, k.session); err != nil {
			return err
		}
		return noteRestored(ctx, tx, k)
	})
	return restored, wrap(err, "restore adjustment %d of session %s", a.Number, k)
}

func noteRestored(ctx context.Context, tx transaction, k key) error {
	_, err := tx.exec(ctx, "INSERT INTO restored (appid, room_session_id, restored_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", k.app, k.session, time.Now().UnixMilli())
	return err
}

// RestoredError means that the session's entries were restored but not all of their events, so
// that an adjustment would be wrong.
type RestoredError struct {
	// Last is the sum of the entries, and Due the figures of the remaining events.
	Last, Due Bill
}

// Error implements error.
func (e *RestoredError) Error() string {
	return fmt.Sprintf("the ledger lost callbacks of this session: its restored entries have %d stays and %d ms, and what is left has %d and %d",
		e.Last.Usage.Stays, e.Last.Usage.Millis, e.Due.Usage.Stays, e.Due.Usage.Millis)
}

// AdjustRestored allows adjustments of a session's restored entries from the remaining events.
// An operator decides that.
func (l *Ledger) AdjustRestored(ctx context.Context, id session.ID) error {
	k := keyOf(id)
	_, err := l.exec(ctx, "DELETE FROM restored WHERE appid = $1 AND room_session_id = $2", k.app, k.session)
	return wrap(err, "let session %s be adjusted", k)
}
