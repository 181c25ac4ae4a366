package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Contradiction is a room_close that contradicts the one its session was closed out
// with.
type Contradiction struct {
	AppID         uint32
	RoomSessionID uint64
	// RoomID and RoomCloseTime are what it told.
	RoomID        string
	RoomCloseTime time.Time
	SeenAt        time.Time
}

// recordContradictions keeps what the first contradicting room_close of each session
// told, so that a session has one row however many come.
func (l *Ledger) recordContradictions(ctx context.Context, tx *sql.Tx, usage []Usage) error {
	var all []Usage
	for _, u := range usage {
		if u.Event == zego.EventRoomClose {
			all = append(all, u)
		}
	}
	// In an order that all writers have, so that no two wait for each other.
	slices.SortStableFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.RoomSessionID, b.RoomSessionID))
	})
	for _, u := range all {
		k := keyOf(u.AppID, u.RoomSessionID)
		if _, err := tx.ExecContext(ctx, `INSERT INTO contradictions (appid, room_session_id, room_id, room_close_time, seen_at)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (appid, room_session_id) DO NOTHING`,
			k.app, k.session, u.RoomID, millis(u.Close), millis(u.SeenAt)); err != nil {
			return fmt.Errorf("write a contradicting room_close: %w", err)
		}
	}
	return nil
}

// Contradictions lists the sessions of which a second room_close contradicts the first,
// and came at that time or later. They are read in pages; an error ends the list.
func (l *Ledger) Contradictions(ctx context.Context, since time.Time) iter.Seq2[Contradiction, error] {
	return func(yield func(Contradiction, error) bool) {
		if err := l.Migrate(ctx); err != nil {
			yield(Contradiction{}, err)
			return
		}
		for last := (sessionKey{-1, ""}); ; {
			page, err := contradictions(l.db.QueryContext(ctx, `SELECT appid, room_session_id, room_id, room_close_time, seen_at FROM contradictions
				WHERE (appid, room_session_id) > ($1, $2) AND seen_at >= $3 ORDER BY appid, room_session_id LIMIT $4`, last.app, last.session, millis(since), billsPage))
			if err != nil {
				yield(Contradiction{}, fmt.Errorf("list contradicting room_close callbacks: %w", err))
				return
			}
			for _, c := range page {
				if last = keyOf(c.AppID, c.RoomSessionID); !yield(c, nil) {
					return
				}
			}
			if len(page) < billsPage {
				return
			}
		}
	}
}

func contradictions(rows *sql.Rows, err error) (all []Contradiction, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c Contradiction
		var session string
		var closed, seen int64
		if err := rows.Scan(&c.AppID, &session, &c.RoomID, &closed, &seen); err != nil {
			return nil, err
		}
		if c.RoomSessionID, err = strconv.ParseUint(session, 10, 64); err != nil {
			return nil, err
		}
		c.RoomCloseTime, c.SeenAt = fromMillis(closed), fromMillis(seen)
		all = append(all, c)
	}
	return all, rows.Err()
}
