package ledger

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Unreadable is why a genuine callback was refused.
type Unreadable struct {
	// TaskID is the task of a recording callback, if readable.
	TaskID string `json:"task_id,omitempty"`
	// Field is the unreadable field, and Problem the reason.
	Field   string `json:"field"`
	Problem string `json:"problem"`
}

// UnreadableCallback describes refused genuine callbacks of one kind.
type UnreadableCallback struct {
	Unreadable
	// AppID is ZEGO's appid, and Event the event.
	AppID uint32 `json:"appid"`
	Event string `json:"event"`
	// RoomID is the room's name; empty if unreadable.
	RoomID string `json:"room_id"`
	// Last is when the last one was sent, by ZEGO's clock.
	Last time.Time `json:"last"`
}

// recordUnreadable stores one row for each app, event, room, task and field, so that ZEGO's
// retries share a row.
func recordUnreadable(ctx context.Context, tx transaction, all []Event) error {
	// All writers use the same order, so that they never deadlock.
	slices.SortFunc(all, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Event, b.Event), cmp.Compare(a.RoomID, b.RoomID),
			cmp.Compare(a.Unreadable.TaskID, b.Unreadable.TaskID), cmp.Compare(a.Unreadable.Field, b.Unreadable.Field))
	})
	for _, u := range all {
		if _, err := tx.exec(ctx, `
			INSERT INTO unreadable (appid, event, room_id, task_id, field, problem, last_time) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (appid, event, room_id, task_id, field) DO UPDATE SET problem = excluded.problem, last_time = excluded.last_time
			WHERE excluded.last_time > unreadable.last_time`,
			int64(u.AppID), u.Event, u.RoomID, u.Unreadable.TaskID, u.Unreadable.Field, u.Unreadable.Problem, u.SentAt.UnixMilli()); err != nil {
			return fmt.Errorf("write a refused callback: %w", err)
		}
	}
	return nil
}

// UnreadableSince lists up to limit genuine callbacks refused since a time, latest first.
func (l *Ledger) UnreadableSince(ctx context.Context, since time.Time, limit int) ([]UnreadableCallback, error) {
	return l.unreadable(ctx, "last_time >= $1 ORDER BY last_time DESC LIMIT $2", since.UnixMilli(), limit)
}

// UnreadableRecordings lists the refused recording callbacks since a time that may belong to the
// room, including those without a readable room. It leaves out tasks with files from another
// callback.
func (l *Ledger) UnreadableRecordings(ctx context.Context, appID uint32, roomID string, since time.Time) ([]UnreadableCallback, error) {
	return l.unreadable(ctx, `appid = $1 AND event = $2 AND (room_id = $3 OR room_id = '') AND last_time >= $4
		AND NOT EXISTS (SELECT 1 FROM recording_files f WHERE f.appid = unreadable.appid AND f.task_id = unreadable.task_id)
		ORDER BY last_time DESC LIMIT 100`, int64(appID), zego.EventRecording, roomID, since.UnixMilli())
}

func (l *Ledger) unreadable(ctx context.Context, where string, args ...any) ([]UnreadableCallback, error) {
	all, err := list(ctx, l, func(r row) (u UnreadableCallback, err error) {
		err = r.Scan(&u.AppID, &u.Event, &u.RoomID, &u.TaskID, &u.Field, &u.Problem, (*timeColumn)(&u.Last))
		return u, err
	}, "SELECT appid, event, room_id, task_id, field, problem, last_time FROM unreadable WHERE "+where, args...)
	return all, wrap(err, "list refused callbacks")
}

// Contradiction is a room_close that contradicts the first one of its session.
type Contradiction struct {
	session.ID
	// RoomID and RoomCloseTime are the callback's.
	RoomID        string
	RoomCloseTime time.Time
	// SeenAt is when it arrived, by our clock.
	SeenAt time.Time
}

// recordContradictions stores the first contradicting room_close of each session.
func recordContradictions(ctx context.Context, tx transaction, events []Event) error {
	closes := slices.DeleteFunc(slices.Clone(events), func(u Event) bool { return u.Event != zego.EventRoomClose })
	// All writers use the same order, so that they never deadlock.
	slices.SortStableFunc(closes, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.RoomSessionID, b.RoomSessionID))
	})
	for _, u := range closes {
		k := keyOf(u.ID)
		if _, err := tx.exec(ctx, `INSERT INTO contradictions (appid, room_session_id, room_id, room_close_time, seen_at)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (appid, room_session_id) DO NOTHING`,
			k.app, k.session, u.RoomID, millis(u.Close), millis(u.SeenAt)); err != nil {
			return fmt.Errorf("write a contradicting room_close: %w", err)
		}
	}
	return nil
}

// Contradictions lists the sessions with a contradicting room_close since a time.
func (l *Ledger) Contradictions(ctx context.Context, since time.Time) iter.Seq2[Contradiction, error] {
	return pages("list contradicting room_close callbacks", Contradiction{}, func(last Contradiction) ([]Contradiction, error) {
		after := keyOf(last.ID)
		return list(ctx, l, func(r row) (c Contradiction, err error) {
			err = r.Scan(&c.AppID, (*sessionColumn)(&c.RoomSessionID), &c.RoomID, (*timeColumn)(&c.RoomCloseTime), (*timeColumn)(&c.SeenAt))
			return c, err
		}, `SELECT appid, room_session_id, room_id, room_close_time, seen_at FROM contradictions
			WHERE (appid, room_session_id) > ($1, $2) AND seen_at >= $3 ORDER BY appid, room_session_id LIMIT $4`, after.app, after.session, millis(since), pageSize)
	})
}
