package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
)

// eventStore stores participants' events. It has its own ledger connection and inbox, so that its
// failures do not affect a room_close.
type eventStore struct {
	*eventsink.Receiver
	ledger *ledger.Ledger
	inbox  *inbox.Inbox
	queue  *queueQuestions
}

// openEvents opens the store. alone reports that this process has no worker.
func openEvents(ctx context.Context, c *config.Config, alone bool, metrics *metrics, log *slog.Logger) (*eventStore, error) {
	if alone && c.LedgerInData() {
		log.Warn("participants are stored in this data folder, workers with another folder bill without them; set CLOSEOUT_DATABASE_URL for both, or CLOSEOUT_PARTICIPANTS=off",
			"ledger", config.Where(c.DatabaseURL))
	}
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	log = log.With("inbox", "events")
	box, err := inbox.Open(ctx, c.EventInbox(), log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("CLOSEOUT_DATA: %w", err), books.Close())
	}
	u := &eventStore{
		&eventsink.Receiver{Delivery: eventsink.New(books, box, log, relays(metrics.writes)), MaxRoomLife: c.MaxRoomLife, Log: log, Observe: func(event string) { metrics.implausible.WithLabelValues(event).Inc() }},
		books, box, askQueue(answerWithin, box),
	}
	metrics.inbox(eventMetrics, u.queue, u.Delivery.Fault)
	return u, nil
}

// close closes the store after the last transaction.
func (u *eventStore) close() {
	u.Delivery.Wait()
	_ = u.inbox.Close()
	_ = u.ledger.Close()
}
