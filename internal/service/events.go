package service

import (
	"context"
	"fmt"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/internal/starter"
)

// openEvents opens what stores events, with a ledger and an inbox of its own: a room_close is delivered whatever becomes of
// them.
func (w *webhookPart) openEvents(ctx context.Context) (*eventsink.Receiver, error) {
	c, log := w.config, w.log.With("inbox", "events")
	if !w.parts.Worker && c.LedgerInData() {
		log.Warn("participants are stored in this data folder, workers with another folder bill without them; set CLOSEOUT_DATABASE_URL for both, or CLOSEOUT_PARTICIPANTS=off",
			"ledger", config.Where(c.DatabaseURL))
	}
	books, err := patiently(ctx, log, "open the ledger", func() (*ledger.Ledger, error) { return ledger.Open(c.DatabaseURL) })
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	w.opened.add("the ledger of events", func() { _ = books.Close() })
	box, err := patiently(ctx, log, "open the inbox of events", func() (*inbox.Inbox, error) { return inbox.Open(ctx, c.EventInbox(), log) })
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATA: %w", err)
	}
	w.opened.add("the inbox of events", func() { _ = box.Close() })
	events := &eventsink.Receiver{Delivery: eventsink.New(books, box, log, relays(w.metrics.writes)), MaxRoomLife: c.MaxRoomLife, Log: log,
		Observe: func(event string) { w.metrics.implausible.WithLabelValues(event).Inc() }}
	w.opened.add("the last events", events.Delivery.Wait)
	notifier := starter.NewNotifier(books, w.temporal, w.log)
	events.Stored, w.notify = notifier.Stored, notifier.Run
	w.witness = &repair.Witness{Ledger: books, File: c.LookFile(), Log: w.log}

	w.health.ledger.Store(books)
	w.asked.events, w.asked.ledger, w.asked.stores = askQueue(answerWithin, box), askLedger(answerWithin, books), events.Delivery.Fault
	w.metrics.inbox(eventMetrics, w.asked.events, events.Delivery.Fault)
	w.backlogs = append(w.backlogs, backlog{"events", events.Delivery.Relay, w.asked.events.waiting, events.Delivery.Fault})
	return events, nil
}
