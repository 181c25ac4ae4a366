package service

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// receiver hands each callback to its sink.
type receiver struct {
	closes *starter.Receiver
	events *events // nil where participants' events aren't stored
}

// Receive implements [webhook.Receiver].
func (r *receiver) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	switch e := event.(type) {
	case *zego.RoomClose:
		return r.closes.Receive(ctx, e)
	case *zego.Other:
		return r.closes.ReceiveOther(ctx, e)
	default:
		if r.events != nil {
			return r.events.Receive(ctx, event)
		}
	}
	return webhook.Receipt{Status: webhook.Ignored}, nil
}

// events receives the callbacks of participants and recordings.
type events struct {
	delivery *delivery.Delivery[ledger.Usage]
	// stored is called with each callback that is safe.
	stored func(zego.Event)
	// maxRoomLife is how long a room can live; 0 is without a limit.
	maxRoomLife time.Duration
	log         *slog.Logger
	// observe, if set, is called with the name of each event with an impossible time.
	observe func(event string)

	implausible atomic.Int64 // when one was logged, in Unix nanoseconds
}

// Receive returns once the ledger or the inbox has the event.
func (r *events) Receive(ctx context.Context, callback zego.Event) (webhook.Receipt, error) {
	told, ok := ledger.UsageOf(callback, time.Now())
	if !ok {
		return webhook.Receipt{Status: webhook.Ignored}, nil
	}
	result, err := r.delivery.Deliver(ctx, r.plausible(told))
	if err != nil {
		return webhook.Receipt{}, err
	}
	r.stored(callback)
	if result.Outcome == "" {
		return webhook.Receipt{Status: webhook.Queued}, nil
	}
	return webhook.Receipt{Status: webhook.Status(result.Outcome)}, nil
}

// plausible returns what can be true of an event.
func (r *events) plausible(told ledger.Usage) ledger.Usage {
	e := told.Plausible(r.maxRoomLife)
	if e.Implausible && r.observe != nil {
		r.observe(e.Event)
	}
	now, last := time.Now().UnixNano(), r.implausible.Load()
	if e.Implausible && now-last > int64(time.Minute) && r.implausible.CompareAndSwap(last, now) {
		r.log.Warn("callback with impossible time", "event", e.Event, "appid", e.AppID, "room_session_id", e.RoomSessionID, "stay", e.Stay,
			"sent", told.SentAt, "create_time", told.Create, "login_time", told.Login, "logout_time", told.Logout)
	}
	return e
}

// contradictWait bounds the delivery of a contradiction.
const contradictWait = 10 * time.Second

// Contradicted stores that a session was closed twice, in another room or at another time,
// so that its bill is flagged.
func (r *events) Contradicted(s session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), contradictWait)
	defer cancel()
	if _, err := r.delivery.Deliver(ctx, ledger.Usage{
		AppID: s.AppID, RoomID: s.RoomID, RoomSessionID: s.RoomSessionID,
		Event: zego.EventRoomClose, Close: s.RoomCloseTime, SeenAt: time.Now(),
	}); err != nil {
		r.log.Error("contradicting room_close not stored, bill won't be flagged", "appid", s.AppID, "room_session_id", s.RoomSessionID, "error", err)
	}
}
