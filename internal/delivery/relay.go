package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
)

const (
	// maxAgain bounds the entries to be retried, in bytes.
	maxAgain = 4 << 20
	// lookAgain is how often the inbox is read without a wake-up, because another process may
	// have retried a dead letter.
	lookAgain = 2 * time.Second
	// minPause and maxPause bound the pause before failed entries are retried.
	minPause, maxPause = 200 * time.Millisecond, 5 * time.Second
	// removeEvery is how long delivered entries may stay in the inbox. Each removal costs a
	// sync, and the sink may share the disk.
	removeEvery = 250 * time.Millisecond
	// turnEvery is how often the relay checks whether it may deliver. crowdedPause is its
	// pause before each delivery in a burst.
	turnEvery, crowdedPause = 20 * time.Millisecond, 100 * time.Millisecond
	// idleAfter is the time without a new item after which the relay uses the whole limit.
	idleAfter = time.Second
	// maxAlone is the number of failures of an entry, while the sink takes others, after which
	// it has to wait for the next pass.
	maxAlone = 3
)

// page is the number of entries read at once. Together with the entries to be retried and the
// items in flight they are all that is in memory. The simulation lowers it.
var page = 200

// Relay delivers the entries of the inbox, oldest first, until ctx ends. It removes an entry
// once the sink has taken it. It returns after the deliveries in flight.
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
			wake = nil // new entries come after the failed ones
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

// entry is an entry of the inbox that is being delivered.
type entry[T any] struct {
	inbox.Entry
	item  T
	alone int // failures while the sink took others
	*call
}

// pass goes through the inbox once and returns the number of entries left.
func (d *Delivery[T]) pass(ctx context.Context) (left int, err error) {
	var (
		entries   []inbox.Entry // read, not yet begun
		again     []*entry[T]   // to be retried; older than entries
		againSize int64
		failed    bool // whether the last delivery failed
		after     int64
		more      = true
		running   int
		ended     = make(chan *entry[T], d.MaxInFlight) // never full
		written   = make(chan bool)
		writes    int
		delivered []string // not yet removed
		removed   = time.Now()
	)
	write := func(f func(context.Context) error) { // even after ctx has ended
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
			again = append(again, e) // the oldest stay first
			againSize += d.size(e.item)
		default:
			d.Log.Warn("delivery from inbox failed, tried again later", "key", e.Key, "error", e.err)
			left++
		}
	}
	defer func() {
		for running > 0 {
			finish(<-ended) // bounded by the sink's timeout
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
		// Alternate, so that an entry that always fails does not block the others.
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
			next.Body = nil // no longer needed
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
			return 1, nil // ctx ended
		}
		if next.call == nil {
			left++ // another delivery of the key is in flight
			continue
		}
		running++
	}
}

// turn waits for the relay's share of the limit and begins a delivery. It returns nil if
// another delivery of the key is in flight.
func (d *Delivery[T]) turn(ctx context.Context, e *entry[T], c *call) (*call, error) {
	if d.Yield && d.Inbox.Crowded() {
		// Starts take most of the machine. Slow down, but do not stop, in case the burst lasts.
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

// share returns the number of deliveries that the relay may have in flight. It leaves room
// for new items, and most of the limit if Yield is set and items arrive.
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
