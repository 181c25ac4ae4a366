package service

import (
	"context"
	"log/slog"
	"time"
)

// drainPoll is how often a draining inbox is checked.
const drainPoll = 50 * time.Millisecond

// backlog is an inbox with its relay.
type backlog struct {
	name string
	// relay drains the inbox until ctx ends.
	relay func(ctx context.Context)
	// waiting returns the number of queued callbacks.
	waiting func(ctx context.Context) (int64, error)
	// fault returns why its sink takes nothing, or nil.
	fault func() error
}

// empty relays until ctx has ended, closed is closed and the inbox is empty, but stops after
// within. The rest stays on disk. Draining matters for a folder that is not used again soon.
func (b backlog) empty(ctx context.Context, closed <-chan struct{}, within time.Duration, log *slog.Logger) {
	relaying, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() { b.relay(relaying); close(stopped) }()
	defer func() { stop(); <-stopped }()

	<-ctx.Done()
	<-closed
	drain, cancel := context.WithTimeout(relaying, within)
	defer cancel()
	look := time.NewTicker(drainPoll)
	defer look.Stop()
	for began := false; ; {
		// Check once more even if the time is over.
		waiting, err := b.waiting(relaying)
		switch {
		case err != nil:
			log.Error("inbox not counted, next start on this folder delivers what is left", "error", err)
			return
		case waiting == 0:
			return
		case drain.Err() != nil || b.fault() != nil:
			log.Warn("callbacks left in inbox, next start on this folder delivers them", "count", waiting)
			return
		case !began:
			log.Info("draining inbox", "count", waiting, "within", within)
			began = true
		}
		select {
		case <-look.C:
		case <-drain.Done():
		}
	}
}
