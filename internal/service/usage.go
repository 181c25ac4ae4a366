package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/closeouthq/closeout/internal/collect"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/telemetry"
)

// usage is what stores the callbacks of participant time, with a ledger and an
// inbox of its own: whatever becomes of it, a room_close has its way.
type usage struct {
	*collect.Collector
	ledger *ledger.Ledger
	inbox  *inbox.Inbox
	queue  *queueQuestions
}

// openUsage opens it. alone says that no worker is in this process.
func openUsage(ctx context.Context, c *config.Config, alone bool, metrics *telemetry.Metrics, log *slog.Logger) (*usage, error) {
	if alone && c.LedgerInData() {
		log.Warn("usage is stored in this data folder; a worker with another folder bills without it: give both one ledger by CLOSEOUT_DATABASE_URL, or set CLOSEOUT_PARTICIPANTS=off",
			"ledger", config.Where(c.DatabaseURL))
	}
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	log = log.With("inbox", "usage")
	box, err := inbox.Open(ctx, c.UsageInbox(), log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("CLOSEOUT_DATA: %w", err), books.Close())
	}
	u := &usage{collect.New(collect.Options{Ledger: books, Inbox: box, Log: log, Observe: metrics.Collected, MaxRoomLife: c.MaxRoomLife}), books, box, askQueue(answerWithin, box)}
	if err := metrics.Usage(func(ctx context.Context) (telemetry.Inbox, error) {
		l := telemetry.Inbox{Takes: u.Takes()}
		err := u.queue.gauge(ctx, &l)
		return l, err
	}); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// fault returns why the ledger doesn't take usage, or nil while it does.
func (u *usage) fault() error {
	if u.Takes() {
		return nil
	}
	return cmp.Or(u.Fault(), errors.New("no answer to the last transaction"))
}

// close closes it when the last transaction is over.
func (u *usage) close() {
	u.Wait()
	_ = u.inbox.Close()
	_ = u.ledger.Close()
}

// backlog is what a stop waits for.
func (u *usage) backlog() backlog {
	return backlog{name: "usage", relay: u.Relay, waiting: u.queue.waiting, takes: u.Takes}
}
