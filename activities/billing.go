package activities

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/closeouthq/closeout/internal/ledger"
)

// Billing makes a session's bill.
type Billing struct {
	// Ledger keeps the bills.
	Ledger *ledger.Ledger
	// API, if its URL is not empty, hears of each bill, in a CloudEvents 1.0 event.
	API Endpoint
	// Observe, if set, is told of each bill that was "made", "found" by a repeat, and
	// "posted".
	Observe func(outcome string)
}

// Bill is what was billed for a session.
type Bill struct {
	ledger.Bill
	// Posted says that the billing API has it.
	Posted bool `json:"posted"`
}

// String says it in a few words, for people.
func (b Bill) String() string {
	if b.Posted {
		return "bill " + b.ID.String() + ", also at the billing API"
	}
	return "bill " + b.ID.String()
}

// FinalizeBill writes the session's bill to the ledger and then, if there is a
// billing API, posts it there. A repeat finds the first bill and posts the same
// one under the same Idempotency-Key.
func (b *Billing) FinalizeBill(ctx context.Context, task Task) (Bill, error) {
	s := task.Session
	outcome := "made"
	if b.Observe != nil {
		// What goes wrong here goes wrong once more below.
		if _, err := b.Ledger.Bill(ctx, s.AppID, s.RoomSessionID); err == nil {
			outcome = "found"
		}
	}
	bill, err := b.Ledger.Finalize(ctx, ledger.Bill{
		ID:            task.IdempotencyKey,
		AppID:         s.AppID,
		RoomID:        s.RoomID,
		RoomSessionID: s.RoomSessionID,
		CloseReason:   uint32(s.CloseReason),
		RoomCloseTime: s.RoomCloseTime,
	})
	if err != nil {
		return Bill{}, fmt.Errorf("write the bill to the ledger: %w", err)
	}
	b.observe(outcome)
	if b.API.URL == "" {
		return Bill{Bill: bill}, nil
	}
	api := b.API
	api.ContentType = "application/cloudevents+json; charset=utf-8"
	if err := api.Post(ctx, bill.ID, event(bill), nil); err != nil {
		return Bill{}, err
	}
	b.observe("posted")
	activity.GetLogger(ctx).Info("bill posted", "bill", bill.ID)
	return Bill{Bill: bill, Posted: true}, nil
}

func (b *Billing) observe(outcome string) {
	if b.Observe != nil {
		b.Observe(outcome)
	}
}

// cloudEvent is a CloudEvents 1.0 event in its JSON format.
type cloudEvent struct {
	SpecVersion     string      `json:"specversion"`
	ID              string      `json:"id"`
	Source          string      `json:"source"`
	Type            string      `json:"type"`
	Subject         string      `json:"subject"`
	Time            time.Time   `json:"time"`
	DataContentType string      `json:"datacontenttype"`
	Data            ledger.Bill `json:"data"`
}

// event tells the billing API of a bill.
func event(bill ledger.Bill) cloudEvent {
	return cloudEvent{
		SpecVersion:     "1.0",
		ID:              bill.ID.String(),
		Source:          "/closeout/apps/" + strconv.FormatUint(uint64(bill.AppID), 10),
		Type:            "io.closeout.bill.finalized.v1",
		Subject:         strconv.FormatUint(bill.RoomSessionID, 10),
		Time:            bill.RoomCloseTime,
		DataContentType: "application/json",
		Data:            bill,
	}
}
