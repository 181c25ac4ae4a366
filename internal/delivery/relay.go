package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
)

const (
	// page is how many entries are read at once, and maxAgain how many bytes those have at
	// most that are tried again. They are all that is in memory beside the items in flight.
	page, maxAgain = 200, 4 << 20
	// lookAgain is how often an inbox is read that nothing was put into: another process
	// may have retried a dead letter.
	lookAgain = 2 * time.Second
	// minPause and maxPause bound the pause before entries that failed are tried again.
	minPause, maxPause = 200 * time.Millisecond, 5 * time.Second
	// removeEvery is how long what was delivered may stay in the inbox. Each removal is a
	// sync, and the sink may share the disk.
	removeEvery = 250 * time.Millisecond
	// turnEvery is how often the relay looks whether it is its turn, and crowdedPause how
	// long it waits before each delivery in a burst.
	turnEvery, crowdedPause = 20 * time.Millisecond, 100 * time.Millisecond
	// idleAfter is how long no item has come when the relay has the sink for itself.
	idleAfter = time.Second
	// maxAlone is how often in a row an entry fails while the sink takes others, before it
	// makes room for them.
	maxAlone = 3
)

// Relay delivers what is in the inbox, the oldest first, until ctx ends, and waits for the
// deliveries in flight. An entry leaves the inbox once the sink has it.
func (d *Delivery[T]) Relay(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		left, err := d.pass(ctx)
		d.relaying.Store(false)
		wait, wake := lookAgain, d.Inbox.Wake()
		switch {
		case err != nil && ctx.Err() == nil:
			d.Log.Warn("read of inbox failed", "error", err, "next_try", pause)
			fallthrough
		case left > 0 && d.breaker.IsClosed():
			wait, pause = pause, min(2*pause, maxPause)
			wake = nil // new entries are behind those that wait
		case left > 0:
			wait, wake = max(d.breaker.RemainingDelay(), minPause), nil
		default:
			pause = minPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// entry is an entry of the inbox on its way to the sink.
type entry[T any] struct {
	inbox.Entry
	item  T
	alone int // failures while the sink took others
	*call
}

// pass goes through the inbox once, and returns how many of its entries are left.
func (d *Delivery[T]) pass(ctx context.Context) (left int, err error) {
	var (
		entries   []inbox.Entry // read and not begun
		again     []*entry[T]   // older than those, and to be tried again
		againSize int64
		failed    bool // the last delivery did
		after     int64
		more      = true
		running   int
		ended     = make(chan *entry[T], d.MaxInFlight) // never full
		written   = make(chan bool)
		writes    int
		delivered []string // and not yet removed
		removed   = time.Now()
	)
	write := func(f func(context.Context) error) { // whoever wants the relay to stop
		writes++
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
			defer cancel()
			written <- f(ctx) == nil
		}()
	}
	remove := func() {
		keys := delivered
		delivered, removed = nil, time.Now()
		if len(keys) > 0 {
			d.Log.Info("callbacks from inbox delivered", "to", d.Name, "count", len(keys))
			write(func(ctx context.Context) error { return d.Inbox.Remove(ctx, keys...) })
		}
	}
	deadLetter := func(e inbox.Entry, reason error) {
		d.Log.Error("callback is a dead letter, see closeout inbox list", "key", e.Key, "error", reason)
		write(func(ctx context.Context) error { return d.Inbox.DeadLetter(ctx, e.Key, reason.Error()) })
	}
	finish := func(e *entry[T]) {
		running--
		if failed = e.err != nil; !failed {
			d.Log.Debug("callback from inbox delivered", "key", e.Key, "outcome", e.outcome, "queued_for", time.Since(e.QueuedAt).Round(time.Millisecond))
			if delivered = append(delivered, e.Key); len(delivered) >= page || time.Since(removed) > removeEvery {
				remove()
			}
			return
		}
		verdict := d.Sink.Judge(e.err)
		takes := d.breaker.IsClosed()
		if verdict == Unavailable && takes {
			e.alone++
		}
		switch {
		case verdict == Refused:
			deadLetter(e.Entry, e.err)
		case verdict == Later, !takes && !more && len(entries) == 0:
			left++
		case e.alone < maxAlone:
			again = append(again, e) // while nothing is delivered, the oldest keep their place
			againSize += d.size(e.item)
		default:
			d.Log.Warn("delivery from inbox failed, tried again later", "key", e.Key, "error", e.err)
			left++
		}
	}
	defer func() {
		for running > 0 {
			finish(<-ended) // each within the sink's timeout
		}
		left += len(again)
		remove()
		for ; writes > 0; writes-- {
			if !<-written {
				left++
			}
		}
	}()
	for {
		select {
		case e := <-ended:
			finish(e)
			continue
		case ok := <-written:
			if writes--; !ok {
				left++
			}
			continue
		case <-ctx.Done():
			return 1, nil
		default:
		}

		var next *entry[T]
		switch {
		// One that always fails must not be all that is tried.
		case len(again) > 0 && (!failed || len(entries) == 0 || len(again) > page || againSize > maxAgain):
			next, again = again[0], again[1:]
			againSize -= d.size(next.item)
		case len(entries) > 0:
			next, entries = &entry[T]{Entry: entries[0]}, entries[1:]
			after = next.ID
			if err := json.Unmarshal(next.Body, &next.item); err != nil {
				deadLetter(next.Entry, fmt.Errorf("decode callback: %w", err))
				continue
			}
			next.Body = nil // the item has it
		case more:
			if entries, err = d.Inbox.Next(ctx, after, page); err != nil {
				return 1, err
			}
			if more = len(entries) > 0; len(entries) == page {
				d.relaying.Store(true)
			}
			continue
		case running > 0:
			select {
			case e := <-ended:
				finish(e)
			case <-ctx.Done():
			}
			continue
		default:
			return left, nil
		}

		c := &call{relayed: true, ended: func() { ended <- next }}
		if next.call, err = d.turn(ctx, next, c); err != nil {
			return 1, nil // ctx has ended
		}
		if next.call == nil {
			left++ // another delivery of its key is in flight
			continue
		}
		running++
	}
}

// turn begins a delivery once it is the relay's turn. It returns none if another one of
// the key is in flight.
func (d *Delivery[T]) turn(ctx context.Context, e *entry[T], c *call) (*call, error) {
	if d.Yield && d.Inbox.Crowded() {
		// Starts take more of a machine than anything else. A few go on, as a burst may
		// last.
		select {
		case <-time.After(crowdedPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if d.Join {
		c.key = e.Key
	}
	for {
		wait := d.breaker.RemainingDelay()
		if wait <= 0 && d.relayed.Load() < d.share() {
			if err := d.acquire(ctx, e.item, c); err != nil {
				return nil, err
			}
			begun, joined := d.begin(withTrace(ctx, e.Trace), e.item, c, false, time.Since(e.QueuedAt) > overdueAfter)
			switch {
			case joined:
				return nil, nil
			case begun != nil:
				return begun, nil
			}
		}
		timer := time.NewTimer(max(wait, turnEvery))
		select {
		case <-timer.C:
		case <-d.ended:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// share is how many deliveries the relay may have in flight. It leaves a place for those
// that come; where it yields, most of the places while they do.
func (d *Delivery[T]) share() int64 {
	limit := int64(d.limiter.Limit())
	switch {
	case !d.Yield:
		limit /= 2
	case d.direct.Load() > 0 || d.Inbox.Crowded():
		limit = 1
	case time.Since(time.Unix(0, d.came.Load())) < idleAfter:
		limit /= 4
	default:
		limit--
	}
	return max(1, limit)
}
