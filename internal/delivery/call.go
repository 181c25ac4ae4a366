package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

// call is a delivery in flight, or an ended one.
type call struct {
	done    chan struct{}
	relayed bool
	permit  adaptivelimiter.Permit
	memory  int64  // of the item
	key     string // set if the call can be joined
	began   time.Time
	ended   func() // if not nil, called at the end
	// outcome and err are set when done is closed.
	outcome string
	err     error
	queued  string // key of the item if it is in the inbox; guarded by Delivery.mu
}

// wait waits until the given time and reports whether the call has ended.
func (c *call) wait(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-c.done: // at the same time
		return true
	default:
		return false
	}
}

// try begins or joins a delivery. It returns nil if the sink is unavailable or a limit is
// reached.
func (d *Delivery[T]) try(ctx context.Context, item T, until time.Time, mayWait bool) (c *call, joined bool) {
	key := ""
	if d.Join {
		key = d.Sink.Key(item)
		d.mu.Lock()
		c = d.joining[key]
		d.mu.Unlock()
		if c != nil {
			return c, true
		}
	}
	// In a burst, answer as many callbacks as possible first: ZEGO drops the others.
	if d.Inbox.Crowded() && d.Yield || d.Sink.Fault() != nil {
		return nil, false
	}
	memory := d.size(item)
	if !d.memory.TryAcquire(memory) {
		return nil, false
	}
	permit, ok := d.limiter.TryAcquirePermit()
	if !ok && mayWait && d.limiter.Queued() < maxWaiting {
		var err error
		permit, err = d.limiter.AcquirePermitWithMaxWait(ctx, time.Until(until)/2)
		ok = err == nil
	}
	if !ok {
		d.memory.Release(memory)
		return nil, false
	}
	return d.begin(ctx, item, &call{key: key, permit: permit, memory: memory}, false, false)
}

// size returns the bytes of an item that count towards maxMemory.
func (d *Delivery[T]) size(item T) int64 { return min(int64(d.Size(item)), maxMemory) }

// acquire waits for the memory and the permit of a call.
func (d *Delivery[T]) acquire(ctx context.Context, item T, c *call) (err error) {
	c.memory = d.size(item)
	if err := d.memory.Acquire(ctx, c.memory); err != nil {
		return err
	}
	if c.permit, err = d.limiter.AcquirePermit(ctx); err != nil {
		d.memory.Release(c.memory)
	}
	return err
}

// drop releases the memory and the permit of a call that does not begin.
func (d *Delivery[T]) drop(c *call) {
	c.permit.Drop()
	d.memory.Release(c.memory)
}

// begin starts a delivery, or joins one of the same key. It returns nil if the circuit
// breaker is open and forced is not set.
func (d *Delivery[T]) begin(ctx context.Context, item T, c *call, forced, overdue bool) (_ *call, joined bool) {
	d.mu.Lock()
	if other := d.joining[c.key]; other != nil {
		d.mu.Unlock()
		d.drop(c)
		return other, true
	}
	// Ask the breaker last, because it expects the result of each permit.
	if !d.breaker.TryAcquirePermit() && !forced {
		d.mu.Unlock()
		d.drop(c)
		return nil, false
	}
	c.done, c.began = make(chan struct{}), time.Now()
	if c.key != "" {
		d.joining[c.key] = c
	}
	d.mu.Unlock()
	d.calls.Add(1)
	d.inFlight(c).Add(1)
	d.Sink.Deliver(context.WithoutCancel(ctx), item, overdue, func(outcome string, err error) { d.finish(c, outcome, err) })
	return c, false
}

func (d *Delivery[T]) inFlight(c *call) *atomic.Int64 {
	if c.relayed {
		return &d.relayed
	}
	return &d.direct
}

func (d *Delivery[T]) finish(c *call, outcome string, err error) {
	defer d.calls.Done()
	defer d.memory.Release(c.memory)
	switch {
	case err == nil || d.Sink.Judge(err) != Unavailable:
		c.permit.Record()
		if d.breaker.IsClosed() {
			d.breaker.RecordSuccess()
		} else {
			d.breaker.Close()
		}
		d.slow.Store(time.Since(c.began) > maxWait)
		d.outage.End()
		if err != nil {
			outcome = "refused"
		}
	default:
		c.permit.Drop() // the latency of a failure says nothing about the load
		d.breaker.RecordFailure()
		if !d.breaker.IsClosed() {
			d.outage.Fail(err)
		}
		d.slow.Store(true)
		outcome = "failed"
	}
	d.Observe(outcome, c.relayed)
	d.mu.Lock()
	delete(d.joining, c.key)
	c.outcome, c.err = outcome, err
	queued := c.queued
	close(c.done)
	d.mu.Unlock()
	d.inFlight(c).Add(-1)
	select {
	case d.ended <- struct{}{}:
	default: // the relay checks anyway
	}
	if c.ended != nil {
		c.ended()
	}
	if queued != "" && err == nil {
		d.calls.Go(func() { d.remove(queued) })
	}
}
