package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// OpenSession is a session of which callbacks came, and no room_close yet.
type OpenSession struct {
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// RoomSessionID is the life of the room.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CreateTime is when the room was created by ZEGO's clock; zero if no
	// room_create came.
	CreateTime time.Time `json:"room_create_time,omitzero"`
	// SeenAt is the last sign of life, by our clock: when the last callback was
	// received, or what [Ledger.Alive] noted. It may be too early by 15 s.
	SeenAt time.Time `json:"seen_at"`
}

// Overdue lists sessions of which no room_close is known, and no sign of life
// since before: those after a session, in the order of their last sign of life, at
// most so many. The zero OpenSession is before all.
//
// That a room_close came is known when it is billed, or by [Ledger.Closed]: one
// that waits for Temporal, or to be billed, isn't known here.
func (l *Ledger) Overdue(ctx context.Context, before time.Time, after OpenSession, limit int) ([]OpenSession, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	last := sessionKey{-1, ""}
	if after != (OpenSession{}) {
		last = keyOf(after.AppID, after.RoomSessionID)
	}
	open, err := openSessions(l.db.QueryContext(ctx, `
		SELECT appid, room_id, room_session_id, room_create_time, seen_at FROM sessions
		WHERE closed_at = 0 AND seen_at < $1 AND (seen_at, appid, room_session_id) > ($2, $3, $4)
		ORDER BY seen_at, appid, room_session_id LIMIT $5`, before.UnixMilli(), millis(after.SeenAt), last.app, last.session, limit))
	if err != nil {
		return nil, fmt.Errorf("list overdue sessions: %w", err)
	}
	return open, nil
}

// Alive notes a sign of life of a session that is no callback: somebody has seen
// its users. It isn't overdue then for as long as after a callback.
func (l *Ledger) Alive(ctx context.Context, appID uint32, roomSessionID uint64, at time.Time) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	k := keyOf(appID, roomSessionID)
	if _, err := l.exec(ctx, "UPDATE sessions SET seen_at = $1 WHERE appid = $2 AND room_session_id = $3 AND seen_at < $1",
		at.UnixMilli(), k.app, k.session); err != nil {
		return fmt.Errorf("note a sign of life of session %d of app %d: %w", roomSessionID, appID, err)
	}
	return nil
}

// Closed notes that a session's room has closed and that a workflow looks after
// it, so that it isn't overdue ever again.
func (l *Ledger) Closed(ctx context.Context, appID uint32, roomSessionID uint64) error {
	if err := l.Migrate(ctx); err != nil {
		return err
	}
	k := keyOf(appID, roomSessionID)
	if _, err := l.exec(ctx, "UPDATE sessions SET closed_at = $1 WHERE appid = $2 AND room_session_id = $3 AND closed_at = 0",
		time.Now().UnixMilli(), k.app, k.session); err != nil {
		return fmt.Errorf("note that session %d of app %d has closed: %w", roomSessionID, appID, err)
	}
	return nil
}

// ClosedUnbilled lists the sessions whose room has closed and that have no bill. They
// are read in pages; an error ends the list.
func (l *Ledger) ClosedUnbilled(ctx context.Context) iter.Seq2[OpenSession, error] {
	return func(yield func(OpenSession, error) bool) {
		if err := l.Migrate(ctx); err != nil {
			yield(OpenSession{}, err)
			return
		}
		for last := (sessionKey{-1, ""}); ; {
			page, err := openSessions(l.db.QueryContext(ctx, `
				SELECT s.appid, s.room_id, s.room_session_id, s.room_create_time, s.seen_at FROM sessions s
				WHERE s.closed_at <> 0 AND (s.appid, s.room_session_id) > ($1, $2)
					AND NOT EXISTS (SELECT 1 FROM bills b WHERE b.appid = s.appid AND b.room_session_id = s.room_session_id)
				ORDER BY s.appid, s.room_session_id LIMIT $3`, last.app, last.session, billsPage))
			if err != nil {
				yield(OpenSession{}, fmt.Errorf("list closed sessions without a bill: %w", err))
				return
			}
			for _, s := range page {
				if last = s.key(); !yield(s, nil) {
					return
				}
			}
			if len(page) < billsPage {
				return
			}
		}
	}
}

// openSessions reads sessions from rows.
func openSessions(rows *sql.Rows, err error) (all []OpenSession, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s OpenSession
		var session string
		var created, seen int64
		if err := rows.Scan(&s.AppID, &s.RoomID, &session, &created, &seen); err != nil {
			return nil, err
		}
		if s.RoomSessionID, err = strconv.ParseUint(session, 10, 64); err != nil {
			return nil, err
		}
		s.CreateTime, s.SeenAt = fromMillis(created), fromMillis(seen)
		all = append(all, s)
	}
	return all, rows.Err()
}

// LastTime is the latest of the times that callbacks told of a session, by ZEGO's
// clock: a logout, a login, or when the room was created. It is the best that is
// known of the end of a room whose room_close never came. It is zero if nothing is
// known.
func (l *Ledger) LastTime(ctx context.Context, appID uint32, roomSessionID uint64) (time.Time, error) {
	if err := l.Migrate(ctx); err != nil {
		return time.Time{}, err
	}
	k := keyOf(appID, roomSessionID)
	var created, login, logout int64
	if err := l.db.QueryRowContext(ctx, `
		SELECT (SELECT coalesce(max(room_create_time), 0) FROM sessions WHERE appid = $1 AND room_session_id = $2),
			coalesce(max(login_time), 0), coalesce(max(logout_time), 0)
		FROM stays WHERE appid = $1 AND room_session_id = $2`, k.app, k.session).Scan(&created, &login, &logout); err != nil {
		return time.Time{}, fmt.Errorf("ask for the last time of session %d of app %d: %w", roomSessionID, appID, err)
	}
	return fromMillis(max(created, login, logout)), nil
}

// BilledSession is a session of which something came after its last entry.
type BilledSession struct {
	// AppID is ZEGO's id of the app.
	AppID uint32 `json:"appid"`
	// RoomID is the room's name.
	RoomID string `json:"room_id"`
	// RoomSessionID is the life of the room.
	RoomSessionID uint64 `json:"room_session_id,string"`
	// CloseReason, RoomCloseTime and Reconciled are those of its bill.
	CloseReason   uint32    `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`
	Reconciled    bool      `json:"reconciled,omitempty"`
	// Number is that of the next adjustment, from 1.
	Number int `json:"number"`
	// DirtyAt is when the first of what came later was recorded, by our clock.
	DirtyAt time.Time `json:"dirty_at"`
}

// Dirty lists the sessions with events after their last entry whose adjustment was
// started before a time, or not at all: those that have waited longest first, after
// another session, at most limit.
func (l *Ledger) Dirty(ctx context.Context, started time.Time, after BilledSession, limit int) ([]BilledSession, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	k := keyOf(after.AppID, after.RoomSessionID)
	rows, err := l.db.QueryContext(ctx, `
		SELECT appid, bills.room_id, room_session_id, close_reason, room_close_time, reconciled = 1, entries, dirty_at
		FROM sessions JOIN bills USING (appid, room_session_id)
		WHERE dirty_at <> 0 AND adjusting_at < $5 AND (dirty_at, appid, room_session_id) > ($2, $3, $4)
		ORDER BY dirty_at, appid, room_session_id LIMIT $1`, limit, millis(after.DirtyAt), k.app, k.session, started.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("list sessions to adjust: %w", err)
	}
	defer rows.Close()
	var billed []BilledSession
	for rows.Next() {
		var b BilledSession
		var session string
		var closed, dirty int64
		if err := rows.Scan(&b.AppID, &b.RoomID, &session, &b.CloseReason, &closed, &b.Reconciled, &b.Number, &dirty); err != nil {
			return nil, fmt.Errorf("list sessions to adjust: %w", err)
		}
		if b.RoomSessionID, err = strconv.ParseUint(session, 10, 64); err != nil {
			return nil, fmt.Errorf("list sessions to adjust: %w", err)
		}
		b.RoomCloseTime, b.DirtyAt = fromMillis(closed), fromMillis(dirty)
		billed = append(billed, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list sessions to adjust: %w", err)
	}
	return billed, nil
}

// AdjustmentStarted notes that the run which adjusts the session was started, so that
// none is started again while that one waits.
func (l *Ledger) AdjustmentStarted(ctx context.Context, s BilledSession, at time.Time) error {
	k := keyOf(s.AppID, s.RoomSessionID)
	// If it is over already, the session isn't dirty, or is again.
	if _, err := l.exec(ctx, "UPDATE sessions SET adjusting_at = $1 WHERE appid = $2 AND room_session_id = $3 AND dirty_at = $4",
		at.UnixMilli(), k.app, k.session, millis(s.DirtyAt)); err != nil {
		return fmt.Errorf("note that session %d of app %d is being adjusted: %w", s.RoomSessionID, s.AppID, err)
	}
	return nil
}
