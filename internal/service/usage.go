package service

import (
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
}

// openUsage opens it. alone says that no worker is in this process.
func openUsage(ctx context.Context, c *config.Config, alone bool, metrics *telemetry.Metrics, log *slog.Logger) (*usage, error) {
	if alone && c.LedgerInData() {
		log.Warn("usage is stored in this data folder; a worker with another folder bills without it: give both one ledger by CLOSEOUT_DATABASE_URL, or set CLOSEOUT_USAGE=off",
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
	u := &usage{collect.New(collect.Options{Ledger: books, Inbox: box, Log: log, Observe: metrics.Collected}), books, box}
	if err := metrics.Usage(func(ctx context.Context) (telemetry.Inbox, error) {
		l := telemetry.Inbox{Takes: u.Takes()}
		err := depth(ctx, box, &l)
		return l, err
	}); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// close closes it when the last transaction is over.
func (u *usage) close() {
	u.Wait()
	_ = u.inbox.Close()
	_ = u.ledger.Close()
}

// backlog is what a stop waits for.
func (u *usage) backlog() backlog {
	return backlog{name: "usage", relay: u.Relay, waiting: waitingIn(u.inbox), takes: u.Takes}
}

// state is what people should know of it, for /readyz; empty if it is nothing.
func (u *usage) state(ctx context.Context) (degraded, more string) {
	stats, err := u.inbox.Stats(ctx)
	switch {
	case err != nil && !u.Takes():
		degraded = "can't take usage: the ledger doesn't, and " + err.Error()
	case err != nil:
		degraded = "can't queue usage: " + err.Error()
	case !u.Takes():
		degraded = "queuing usage: the ledger doesn't take it"
	}
	if stats.Waiting > 0 {
		more += "\n" + waits(stats, "usage callbacks wait in their inbox")
	}
	if stats.SetAside > 0 {
		more += fmt.Sprintf("\n%d usage callbacks were set aside, see `closeout inbox list --usage`", stats.SetAside)
	}
	return degraded, more
}
