package eventsink

import (
	"log/slog"
	"time"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/ledger"
)

// NewForTest returns a Delivery to the ledger store. refused reports whether an error is the
// ledger's refusal of an event, and timeout bounds a transaction.
func NewForTest(store Store, box delivery.Inbox, refused func(error) bool, timeout time.Duration) *delivery.Delivery[ledger.Event] {
	s := newSink(store)
	s.refused, s.timeout = refused, timeout
	return newDelivery(s, box, slog.New(slog.DiscardHandler), nil)
}
