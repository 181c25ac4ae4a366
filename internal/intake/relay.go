package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/inbox"
)

const (
	// page is how many entries are read at once. They are all that is in memory.
	page = 200
	// lookAgain is how often an inbox is looked into in which nothing was put:
	// another process may have given something its turn again.
	lookAgain = 2 * time.Second
	// removeEvery is how long what was started may stay in the inbox. After a crash
	// it is started again, and found to be a duplicate.
	removeEvery = 250 * time.Millisecond
	// lookAround is how long the relay waits before it looks again whether it is its
	// turn.
	lookAround = 20 * time.Millisecond
	// lookAroundCrowded is how long it waits before each start in a burst.
	lookAroundCrowded = 100 * time.Millisecond
	// quiet is for how long no callback has come in when the relay has Temporal for
	// itself.
	quiet = time.Second
	// mostAlone is how often an entry is tried in a row that fails while others
	// don't, before it makes room for them.
	mostAlone = 3
	// waitForSetup is for how long an entry waits for the search attributes that
	// its run should have. Later, one that is hard to find is better than none.
	waitForSetup = time.Minute
)

// Relay starts what is in the inbox, the oldest first, until ctx ends, and waits
// for the starts that are under way. An entry leaves the inbox only when Temporal
// has it.
func (i *Intake) Relay(ctx context.Context) {
	pause := backoff.NewExponentialBackOff() // with jitter
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		left, err := i.pass(ctx)
		i.relaying.Store(false)
		wait := lookAgain
		switch {
		case err != nil && ctx.Err() == nil:
			wait = pause.NextBackOff()
			i.Log.Warn("can't read the inbox, trying again", "error", err, "next_try", wait.Round(time.Millisecond))
		case left > 0:
			wait = pause.NextBackOff()
		default:
			pause.Reset()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-i.Inbox.Wake():
			if left > 0 || err != nil {
				// New entries are behind those that have to wait.
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			}
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// item is an entry on its way to Temporal.
type item struct {
	inbox.Entry
	session activities.Session
	alone   int // how often it failed while others didn't
	*attempt
}

// pass goes through the inbox once, and tells how many entries are still there
// that it came across.
func (i *Intake) pass(ctx context.Context) (left int, err error) {
	var (
		entries []inbox.Entry // that were read and not begun
		again   []*item       // that are older than those, and failed with all others
		after   int64
		more    = true
		running int
		ended   = make(chan *item, mostInFlight) // never full, so that no start waits here
		settled = make(chan bool)
		settles int
		started []string // and not yet removed
		removed = time.Now()
	)
	settle := func(f func() error) {
		settles++
		go func() { settled <- f() == nil }() // the disk is not what permits are scarce for
	}
	remove := func() {
		keys := started
		started, removed = nil, time.Now()
		if len(keys) > 0 {
			settle(func() error {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
				defer cancel()
				return i.Inbox.Remove(ctx, keys...)
			})
		}
	}
	finish := func(e *item) {
		running--
		switch i.judge(e) {
		case retry:
			again = append(again, e)
		case keep:
			left++
		case refused:
			settle(i.shelve(ctx, e.Entry, e.err))
		case taken:
			// Many at once: each transaction is a sync, and Temporal may share the disk.
			if started = append(started, e.Key); len(started) >= page || time.Since(removed) > removeEvery {
				remove()
			}
		}
	}
	defer func() {
		for running > 0 {
			finish(<-ended) // each within startTimeout
		}
		remove()
		for ; settles > 0; settles-- {
			if !<-settled {
				left++
			}
		}
	}()
	for {
		select {
		case e := <-ended:
			finish(e)
			continue
		case ok := <-settled:
			if settles--; !ok {
				left++
			}
			continue
		case <-ctx.Done():
			return 1, nil
		default:
		}

		var next *item
		switch {
		case len(again) > 0:
			next, again = again[0], again[1:]
		case len(entries) > 0:
			next, entries = &item{Entry: entries[0]}, entries[1:]
			after = next.ID
			if err := json.Unmarshal(next.Body, &next.session); err != nil {
				settle(i.shelve(ctx, next.Entry, fmt.Errorf("decode session: %w", err)))
				continue
			}
		case more:
			if entries, err = i.Inbox.Next(ctx, after, page); err != nil {
				return 1, err
			}
			if more = len(entries) > 0; len(entries) == page {
				i.relaying.Store(true)
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

		if next.attempt, err = i.attemptRelayed(ctx, next); err != nil {
			return 1, nil // ctx has ended
		}
		if next.attempt == nil {
			left++ // another start of the session is under way
			continue
		}
		running++
		go func() {
			<-next.done
			ended <- next
		}()
	}
}

// verdict is what became of an entry's start.
type verdict int

const (
	taken   verdict = iota // Temporal has it
	refused                // Temporal will never take it
	retry                  // it is to be started before all others
	keep                   // it stays in the inbox until the next pass
)

func (i *Intake) judge(e *item) verdict {
	switch {
	case e.err == nil:
		if time.Since(e.QueuedAt) < waitForSetup { // else it was tried without them
			i.unset.End()
		}
		i.Log.Info("callback from the inbox taken by Temporal", "workflow_id", e.Key, "outcome", e.status,
			"queued_for", time.Since(e.QueuedAt).Round(time.Millisecond))
		return taken
	case e.refused:
		return refused
	case errors.Is(e.err, errNotSetUp):
		i.unset.Fail(e.err)
		return keep
	}
	i.Log.Debug("a callback from the inbox can't be started yet", "workflow_id", e.Key, "error", e.err)
	if i.breaker.IsClosed() {
		e.alone++
	}
	if e.alone < mostAlone {
		// While nothing can be started, the oldest keep their place.
		return retry
	}
	i.Log.Warn("a callback from the inbox can't be started while others can, it is tried again later", "workflow_id", e.Key, "error", e.err)
	return keep
}

// shelve sets aside what Temporal will never take, where a person finds it. That
// has to be done whoever wants the relay to stop.
func (i *Intake) shelve(ctx context.Context, e inbox.Entry, reason error) func() error {
	i.Log.Error("a callback is set aside; see `closeout inbox list`", "workflow_id", e.Key, "error", reason)
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
		defer cancel()
		return i.Inbox.Shelve(ctx, e.Key, reason.Error())
	}
}

// attemptRelayed is attempt for the relay, which waits for its turn. It gives no
// attempt if another start of the session is under way.
func (i *Intake) attemptRelayed(ctx context.Context, e *item) (*attempt, error) {
	if i.Inbox.Crowded() {
		// Starts take more of a machine than anything else does. A few go on, as a
		// burst may last.
		select {
		case <-time.After(lookAroundCrowded):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		wait := i.breaker.RemainingDelay()
		if wait <= 0 && i.relayed.Load() < i.share() {
			permit, err := i.limiter.AcquirePermit(ctx)
			if err != nil {
				return nil, err
			}
			a, joined := i.enter(e.Key, e.session, permit, true, time.Since(e.QueuedAt) > waitForSetup)
			switch {
			case joined:
				return nil, nil
			case a != nil:
				return a, nil
			}
		}
		// Something has to end first, or another start finds out whether Temporal is
		// there.
		timer := time.NewTimer(max(wait, lookAround))
		select {
		case <-timer.C:
		case <-i.ended:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// share is how many starts the relay may have in flight. With nothing else to do
// it leaves a single place. Where callbacks come in, it takes a quarter of what
// Temporal can take, as they shall find it quick to answer, and one start while one
// of theirs is in flight or a burst comes in.
func (i *Intake) share() int64 {
	limit := int64(i.limiter.Limit())
	switch {
	case i.direct.Load() > 0 || i.Inbox.Crowded():
		return 1
	case time.Since(time.Unix(0, i.came.Load())) < quiet:
		return max(1, limit/4)
	}
	return max(1, limit-1)
}
