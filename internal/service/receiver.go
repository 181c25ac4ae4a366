package service

import (
	"context"

	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/internal/wake"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// receiver hands each callback to the sink that takes its event.
type receiver struct {
	intake    *intake.Intake
	collector *wake.Collector // nil where the events of a session aren't stored
}

// Receive implements [webhook.Receiver].
func (r *receiver) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	switch e := event.(type) {
	case *zego.RoomClose:
		return r.intake.RoomClose(ctx, e)
	case *zego.Other:
	default:
		if r.collector != nil {
			return r.collector.Collect(ctx, event)
		}
	}
	return webhook.Receipt{Status: webhook.Ignored}, nil
}
