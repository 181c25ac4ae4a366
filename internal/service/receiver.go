package service

import (
	"context"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// receiver hands each callback to its sink.
type receiver struct {
	closes *starter.Receiver
	events *eventsink.Receiver // nil where participants' events aren't stored
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
