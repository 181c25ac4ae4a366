package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// maxUnknownLife is how long a room may have lived of which no callback tells the
// beginning: longer than nearly all do, and not so long that a loss of last month
// matters.
const maxUnknownLife = 24 * time.Hour

// Past is what the ledger has of a session, and may have lost.
type Past struct {
	// Billed says that it has a bill.
	Billed bool
	// Loss is one that the session's life touches; or nil.
	Loss *Loss
}

// Past tells what the ledger has of a session that closed at a time, and may have lost.
func (l *Ledger) Past(ctx context.Context, appID uint32, roomSessionID uint64, closed time.Time) (p Past, err error) {
	if err := l.Migrate(ctx); err != nil {
		return p, err
	}
	k := keyOf(appID, roomSessionID)
	var created int64
	if err := l.db.QueryRowContext(ctx, `
		SELECT EXISTS (SELECT 1 FROM bills WHERE appid = $1 AND room_session_id = $2),
			coalesce((SELECT room_create_time FROM sessions WHERE appid = $1 AND room_session_id = $2), 0)`,
		k.app, k.session).Scan(&p.Billed, &created); err != nil {
		return p, fmt.Errorf("read what is known of session %d of app %d: %w", roomSessionID, appID, err)
	}
	begun := millis(closed.Add(-maxUnknownLife))
	if created != 0 {
		begun = created
	}
	var from, to int64
	switch err := l.db.QueryRowContext(ctx, "SELECT from_time, to_time FROM losses WHERE from_time <= $1 AND to_time >= $2 ORDER BY from_time LIMIT 1",
		millis(closed.Add(lateEvents)), begun).Scan(&from, &to); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return p, fmt.Errorf("read what was lost: %w", err)
	default:
		p.Loss = &Loss{fromMillis(from), fromMillis(to)}
	}
	return p, nil
}

// lateEvents is for how long after a room has closed its callbacks may still come: ZEGO
// tries for 62 seconds, and clocks differ.
const lateEvents = 2 * time.Minute

// RestoreBill puts back a bill that the ledger has lost, as it was. It reports false,
// and changes nothing, if the session has one.
func (l *Ledger) RestoreBill(ctx context.Context, b MadeBill) (restored bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	err = l.in(ctx, func(tx *sql.Tx) error {
		// A bill of what is left notes that there is one, and locks the session.
		var err error
		if _, restored, err = l.finalize(ctx, tx, b.Bill); err != nil || !restored {
			return err
		}
		k := keyOf(b.AppID, b.RoomSessionID)
		if _, err := tx.ExecContext(ctx, "DELETE FROM bills WHERE appid = $1 AND room_session_id = $2", k.app, k.session); err != nil {
			return err
		}
		values := b.values()
		if _, err := tx.ExecContext(ctx, "INSERT INTO bills ("+billColumns+") VALUES ("+placeholders(len(values))+")", values...); err != nil {
			return err
		}
		return noteRestored(ctx, tx, k)
	})
	if err != nil {
		return false, fmt.Errorf("restore the bill of session %d of app %d: %w", b.RoomSessionID, b.AppID, err)
	}
	return restored, nil
}

// RestoreAdjustment puts back an adjustment that the ledger has lost, as it was. It
// reports false, and changes nothing, if it is there. The error wraps [sql.ErrNoRows]
// if its bill isn't.
func (l *Ledger) RestoreAdjustment(ctx context.Context, a Adjustment) (restored bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	k := keyOf(a.AppID, a.RoomSessionID)
	err = l.in(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE sessions SET dirty_at = dirty_at WHERE appid = $1 AND room_session_id = $2", k.app, k.session); err != nil {
			return err
		}
		if _, err := scanBill(tx.QueryRowContext(ctx, selectBill, k.app, k.session)); err != nil {
			return fmt.Errorf("read the bill: %w", err)
		}
		d := a.Difference
		values := append(MadeBill{a.Bill, a.MadeAt}.values(), a.ID.String(), int64(a.Number), d.Millis, d.Seconds, d.Minutes, d.Amount)
		done, err := tx.ExecContext(ctx, "INSERT INTO adjustments ("+adjustmentColumns+") VALUES ("+placeholders(len(values))+") ON CONFLICT DO NOTHING", values...)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if restored = n == 1; err != nil || !restored {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE sessions SET entries = $1 WHERE appid = $2 AND room_session_id = $3 AND entries < $1", a.Number+1, k.app, k.session); err != nil {
			return err
		}
		return noteRestored(ctx, tx, k)
	})
	if err != nil {
		return false, fmt.Errorf("restore adjustment %d of session %d of app %d: %w", a.Number, a.RoomSessionID, a.AppID, err)
	}
	return restored, nil
}

func noteRestored(ctx context.Context, tx *sql.Tx, k sessionKey) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO restored (appid, room_session_id, restored_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", k.app, k.session, time.Now().UnixMilli())
	return err
}

// RestoredError means that an adjustment would be made of what is left: the session's
// entries were restored, and the events that they are of are not all there.
type RestoredError struct {
	// Last is what the entries add up to, and Due what they would by what is left.
	Last, Due Bill
}

// Error implements error.
func (e *RestoredError) Error() string {
	return fmt.Sprintf("the ledger lost callbacks of this session: its entries were restored and are of %d stays and %d ms, and what is left has %d and %d",
		e.Last.Usage.Stays, e.Last.Usage.Millis, e.Due.Usage.Stays, e.Due.Usage.Millis)
}

// allowAdjusting refuses to adjust restored entries by what is left of their events.
func allowAdjusting(ctx context.Context, tx *sql.Tx, k sessionKey, last, due Bill) error {
	var restored bool
	if err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM restored WHERE appid = $1 AND room_session_id = $2)", k.app, k.session).Scan(&restored); err != nil {
		return fmt.Errorf("ask whether the bill was restored: %w", err)
	}
	if restored {
		return &RestoredError{last, due}
	}
	return nil
}

// AdjustRestored lets a session's restored entries be adjusted by the events that
// are there: a person says that they are all that count.
func (l *Ledger) AdjustRestored(ctx context.Context, appID uint32, roomSessionID uint64) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	k := keyOf(appID, roomSessionID)
	if _, err := l.db.ExecContext(ctx, "DELETE FROM restored WHERE appid = $1 AND room_session_id = $2", k.app, k.session); err != nil {
		return fmt.Errorf("note what counts of session %d of app %d: %w", roomSessionID, appID, err)
	}
	return nil
}

// Adjusted reports whether the ledger has a session's adjustment of a number.
func (l *Ledger) Adjusted(ctx context.Context, appID uint32, roomSessionID uint64, number int) (there bool, err error) {
	if err := l.Migrate(ctx); err != nil {
		return false, err
	}
	k := keyOf(appID, roomSessionID)
	if err := l.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM adjustments WHERE appid = $1 AND room_session_id = $2 AND number = $3)",
		k.app, k.session, number).Scan(&there); err != nil {
		return false, fmt.Errorf("look for adjustment %d of session %d of app %d: %w", number, roomSessionID, appID, err)
	}
	return there, nil
}

// Session finds a session, open or closed. The error wraps [sql.ErrNoRows] if no
// callback told of it.
func (l *Ledger) Session(ctx context.Context, appID uint32, roomSessionID uint64) (s OpenSession, err error) {
	if err := l.Migrate(ctx); err != nil {
		return s, err
	}
	k := keyOf(appID, roomSessionID)
	all, err := openSessions(l.db.QueryContext(ctx, "SELECT appid, room_id, room_session_id, room_create_time, seen_at FROM sessions WHERE appid = $1 AND room_session_id = $2", k.app, k.session))
	if err == nil && len(all) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return s, fmt.Errorf("read session %d of app %d: %w", roomSessionID, appID, err)
	}
	return all[0], nil
}
