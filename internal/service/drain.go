package service

import (
	"context"
	"log/slog"
	"time"
)

// lookWhileDraining is how often an inbox is looked into that is to become empty.
const lookWhileDraining = 50 * time.Millisecond

// backlog is an inbox and what empties it.
type backlog struct {
	name string
	// relay empties the inbox until ctx ends.
	relay func(ctx context.Context)
	// waiting is how much is in it.
	waiting func(ctx context.Context) (int64, error)
	// fault returns why its sink takes nothing, or nil.
	fault func() error
}

// empty relays until ctx ends, no more callbacks come in and what came in has left
// the inbox, but then no longer than within. What is left over is on the disk. So
// a folder that isn't started on again soon has nothing in it that waits.
func (b backlog) empty(ctx context.Context, closed <-chan struct{}, within time.Duration, log *slog.Logger) {
	relaying, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() { b.relay(relaying); close(stopped) }()
	defer func() { stop(); <-stopped }()

	<-ctx.Done()
	<-closed
	drain, cancel := context.WithTimeout(relaying, within)
	defer cancel()
	look := time.NewTicker(lookWhileDraining)
	defer look.Stop()
	for began := false; ; {
		// The time may be over, and the last look still has to be possible.
		waiting, err := b.waiting(relaying)
		switch {
		case err != nil:
			log.Error("can't tell what is left in the inbox; a start on the same folder goes on with it", "error", err)
			return
		case waiting == 0:
			return
		case drain.Err() != nil || b.fault() != nil:
			log.Warn("callbacks stay in the inbox; a start on the same folder goes on with them", "count", waiting)
			return
		case !began:
			log.Info("emptying the inbox", "count", waiting, "within", within)
			began = true
		}
		select {
		case <-look.C:
		case <-drain.Done():
		}
	}
}
