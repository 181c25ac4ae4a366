package eventsink

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Receiver receives the callbacks of participants and recordings, and delivers their
// events to the ledger. Set its fields before use.
type Receiver struct {
	Delivery *delivery.Delivery[ledger.Event]
	// Stored, if set, is called with each callback that the ledger or the inbox has.
	Stored func(zego.Event)
	// MaxRoomLife is the maximum life of a room. 0 means no limit.
	MaxRoomLife time.Duration
	// Log gets log lines for operators.
	Log *slog.Logger
	// Observe, if set, is called with the name of each event with an impossible time.
	Observe func(event string)

	implausible atomic.Int64 // when one was logged, in Unix nanoseconds
}

// Receive returns after the ledger or the inbox has the event.
func (r *Receiver) Receive(ctx context.Context, callback zego.Event) (webhook.Receipt, error) {
	event, ok := ledger.EventOf(callback, time.Now())
	if !ok {
		return webhook.Receipt{Status: webhook.Ignored}, nil
	}
	result, err := r.Delivery.Deliver(ctx, r.plausible(event))
	if err != nil {
		return webhook.Receipt{}, err
	}
	if r.Stored != nil {
		r.Stored(callback)
	}
	if result.Outcome == "" {
		return webhook.Receipt{Status: webhook.Queued}, nil
	}
	return webhook.Receipt{Status: webhook.Status(result.Outcome)}, nil
}

// plausible returns an event with impossible times replaced, and reports them.
func (r *Receiver) plausible(reported ledger.Event) ledger.Event {
	e := reported.Plausible(r.MaxRoomLife)
	if e.Implausible && r.Observe != nil {
		r.Observe(e.Event)
	}
	now, last := time.Now().UnixNano(), r.implausible.Load()
	if e.Implausible && now-last > int64(time.Minute) && r.implausible.CompareAndSwap(last, now) {
		r.Log.Warn("callback with impossible time", "event", e.Event, "appid", e.AppID, "room_session_id", e.RoomSessionID, "stay", e.Stay,
			"sent", reported.SentAt, "create_time", reported.Create, "login_time", reported.Login, "logout_time", reported.Logout)
	}
	return e
}

// Contradicted stores a room_close that contradicts the first of its session, so that the
// bill is flagged.
func (r *Receiver) Contradicted(ctx context.Context, s session.Session) error {
	_, err := r.Delivery.Deliver(ctx, ledger.Event{
		ID: session.ID{AppID: s.AppID, RoomSessionID: s.RoomSessionID}, RoomID: s.RoomID,
		Event: zego.EventRoomClose, Close: s.RoomCloseTime, SeenAt: time.Now(),
	})
	if err != nil {
		r.Log.Error("contradicting room_close not stored, bill won't be flagged", "appid", s.AppID, "room_session_id", s.RoomSessionID, "error", err)
	}
	return err
}
