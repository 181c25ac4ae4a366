package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// receiver hands each callback to its sink.
type receiver struct {
	closes *starter.Receiver
	events *eventsink.Receiver // nil if participants' events are not stored

	// The refused callbacks since the start, if no ledger records them.
	mu      sync.Mutex
	refused int
	last    *zego.Unreadable
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
		if u, ok := event.(*zego.Unreadable); ok {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused++
			r.last = u
		}
	}
	return webhook.Receipt{Status: webhook.Ignored}, nil
}

// refusals returns an error if genuine callbacks were refused and no ledger records them.
func (r *receiver) refusals() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == 0 {
		return nil
	}
	return fmt.Errorf("%d genuine callbacks refused since the start, the last at %s: %s of appid %d, room %q: %s: %s", r.refused,
		r.last.SentAt().Format(time.RFC3339), r.last.Event, r.last.AppID, r.last.RoomID, r.last.Fault.Field, r.last.Fault.Problem)
}
