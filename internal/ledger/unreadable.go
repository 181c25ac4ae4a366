package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Unreadable is why a genuine callback was refused.
type Unreadable struct {
	// TaskID is that of a recording callback, if it can be read.
	TaskID string `json:"task_id,omitempty"`
	// Field is at fault, and Problem says why.
	Field   string `json:"field"`
	Problem string `json:"problem"`
}

// UnreadableCallback is one kind of genuine callback that was refused.
type UnreadableCallback struct {
	Unreadable
	// AppID is ZEGO's id of the app, and Event the event.
	AppID uint32 `json:"appid"`
	Event string `json:"event"`
	// RoomID is the room's name; empty if it can't be read.
	RoomID string `json:"room_id"`
	// Last is when the last one was sent, by ZEGO's clock.
	Last time.Time `json:"last"`
}

// recordUnreadable writes what was refused: one row for each app, event, room, task
// and field, so that ZEGO's repeats are one.
func (l *Ledger) recordUnreadable(ctx context.Context, tx *sql.Tx, all []Usage) error {
	// In an order that all writers have, so that none waits for another that waits for it.
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Event, b.Event), cmp.Compare(a.RoomID, b.RoomID),
			cmp.Compare(a.Unreadable.TaskID, b.Unreadable.TaskID), cmp.Compare(a.Unreadable.Field, b.Unreadable.Field))
	})
	for _, u := range all {
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO unreadable (appid, event, room_id, task_id, field, problem, last_time) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (appid, event, room_id, task_id, field) DO UPDATE SET problem = excluded.problem, last_time = excluded.last_time
			WHERE excluded.last_time > unreadable.last_time`,
			int64(u.AppID), u.Event, u.RoomID, u.Unreadable.TaskID, u.Unreadable.Field, u.Unreadable.Problem, u.SentAt.UnixMilli()); err != nil {
			return fmt.Errorf("write an unreadable callback: %w", err)
		}
	}
	return nil
}

// UnreadableSince lists the genuine callbacks that were refused since a time, the
// latest first, at most so many.
func (l *Ledger) UnreadableSince(ctx context.Context, since time.Time, limit int) ([]UnreadableCallback, error) {
	return l.unreadable(ctx, "last_time >= $1 ORDER BY last_time DESC LIMIT $2", since.UnixMilli(), limit)
}

// UnreadableRecordings lists the recording callbacks that were refused since a time,
// and that may be of the room: those whose room can't be read, too. A task of which
// another callback told the files is not among them.
func (l *Ledger) UnreadableRecordings(ctx context.Context, appID uint32, roomID string, since time.Time) ([]UnreadableCallback, error) {
	return l.unreadable(ctx, `appid = $1 AND event = $2 AND (room_id = $3 OR room_id = '') AND last_time >= $4
		AND NOT EXISTS (SELECT 1 FROM recording_files f WHERE f.appid = unreadable.appid AND f.task_id = unreadable.task_id)
		ORDER BY last_time DESC LIMIT 100`, int64(appID), zego.EventRecording, roomID, since.UnixMilli())
}

func (l *Ledger) unreadable(ctx context.Context, where string, args ...any) ([]UnreadableCallback, error) {
	if err := l.Migrate(ctx); err != nil {
		return nil, err
	}
	rows, err := l.db.QueryContext(ctx, "SELECT appid, event, room_id, task_id, field, problem, last_time FROM unreadable WHERE "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list unreadable callbacks: %w", err)
	}
	defer rows.Close()
	var all []UnreadableCallback
	for rows.Next() {
		var u UnreadableCallback
		var last int64
		if err := rows.Scan(&u.AppID, &u.Event, &u.RoomID, &u.TaskID, &u.Field, &u.Problem, &last); err != nil {
			return nil, fmt.Errorf("list unreadable callbacks: %w", err)
		}
		u.Last = fromMillis(last)
		all = append(all, u)
	}
	return all, rows.Err()
}
