package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
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
	// lookForSlots is how often the number of slots is looked at, if none is given
	// back meanwhile.
	lookForSlots = 100 * time.Millisecond
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

// pass goes through the inbox once, and tells how many entries are still there
// that it came across.
func (i *Intake) pass(ctx context.Context) (left int, err error) {
	var (
		mu      sync.Mutex
		started sync.WaitGroup
		slots   = slots{free: make(chan struct{}, 1)}
	)
	defer started.Wait()
	keep := func() { mu.Lock(); left++; mu.Unlock() }
	for after := int64(0); ; {
		entries, err := i.Inbox.Next(ctx, after, page)
		if err != nil {
			return 1, err
		}
		for _, e := range entries {
			after = e.ID
			if !slots.take(ctx, i.share) {
				return 1, nil
			}
			started.Go(func() {
				settle := i.relay(ctx, e)
				slots.give() // the disk is not what they are scarce for
				if settle == nil || settle() != nil {
					keep()
				}
			})
		}
		if len(entries) < page {
			started.Wait()
			return left, nil
		}
	}
}

// share is how many starts the relay may have in flight. The other half is for
// new callbacks, which find a place however much is waiting. In a burst it keeps
// to one, as starts take more of a machine than anything else does.
func (i *Intake) share() int {
	if i.Inbox.Crowded() {
		return 1
	}
	return max(1, (i.limiter.Limit()+1)/2)
}

// relay starts one entry, and gives what is then to be done with it in the inbox.
// It gives nothing if the entry stays there: while the relay ends, while another
// start of the session is under way, or when it alone can't be started.
func (i *Intake) relay(ctx context.Context, e inbox.Entry) (settle func() error) {
	// What Temporal has must not stay, whoever wants the relay to stop.
	settled := context.WithoutCancel(ctx)
	shelve := func(reason error) func() error {
		i.Log.Error("a callback is set aside; see `closeout inbox list`", "workflow_id", e.Key, "error", reason)
		return func() error { return i.Inbox.Shelve(settled, e.Key, reason.Error()) }
	}
	var s activities.Session
	if err := json.Unmarshal(e.Body, &s); err != nil {
		return shelve(fmt.Errorf("decode session: %w", err))
	}
	for alone := 0; alone < mostAlone; {
		a := i.attemptRelayed(ctx, e.Key, s, time.Since(e.QueuedAt) > waitForSetup)
		if a == nil {
			return nil
		}
		<-a.done // within startTimeout
		switch {
		case a.refused:
			return shelve(a.err)
		case a.err == nil:
			i.Log.Info("callback from the inbox taken by Temporal", "workflow_id", e.Key, "outcome", a.status,
				"queued_for", time.Since(e.QueuedAt).Round(time.Millisecond))
			return func() error { return i.Inbox.Remove(settled, e.Key) }
		}
		if errors.Is(a.err, errNotSetUp) {
			i.Log.Error("a callback waits in the inbox", "workflow_id", e.Key, "error", a.err)
			return nil
		}
		i.Log.Debug("a callback from the inbox can't be started yet", "workflow_id", e.Key, "error", a.err)
		// While nothing can be started, the oldest keep their place.
		if i.breaker.IsClosed() {
			alone++
		}
	}
	i.Log.Warn("a callback from the inbox can't be started while others can, it is tried again later", "workflow_id", e.Key)
	return nil
}

// attemptRelayed is attempt for the relay, which can wait.
func (i *Intake) attemptRelayed(ctx context.Context, id string, s activities.Session, bare bool) *attempt {
	for {
		permit, err := i.limiter.AcquirePermit(ctx)
		if err != nil {
			return nil
		}
		i.mu.Lock()
		if i.inFlight[id] != nil {
			i.mu.Unlock()
			permit.Drop()
			return nil
		}
		if i.breaker.TryAcquirePermit() {
			a := i.begin(id, s, permit, true, bare)
			i.mu.Unlock()
			return a
		}
		i.mu.Unlock()
		permit.Drop()
		// One of the starts that wait here will be the next attempt.
		timer := time.NewTimer(max(i.breaker.RemainingDelay(), 10*time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// slots bounds goroutines by a number that changes.
type slots struct {
	mu   sync.Mutex
	used int
	free chan struct{}
}

// take waits for a slot. It says no when ctx ends.
func (s *slots) take(ctx context.Context, most func() int) bool {
	for {
		s.mu.Lock()
		if s.used < most() {
			s.used++
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		timer := time.NewTimer(lookForSlots)
		select {
		case <-s.free:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

func (s *slots) give() {
	s.mu.Lock()
	s.used--
	s.mu.Unlock()
	select {
	case s.free <- struct{}{}:
	default:
	}
}
