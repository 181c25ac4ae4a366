package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
)

// queue stores an item in the inbox. If the disk fails, it waits for the sink until ctx ends.
// If the disk hangs, it waits for whichever of the two takes the item first.
func (d *Delivery[T]) queue(ctx context.Context, item T, c *call, joined bool) (Result, error) {
	body, err := json.Marshal(item)
	if err != nil {
		return Result{}, fmt.Errorf("encode callback: %w", err)
	}
	entry := inbox.Entry{Key: d.Sink.Key(item), Body: body, Trace: traceOf(ctx)}
	type put struct {
		kept []byte
		err  error
	}
	puts := make(chan put, 1)
	stored := func(kept []byte) (Result, error) {
		d.logQueued()
		return Result{}, d.compare(ctx, kept, body, item)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends whichever has not taken the item; Wait waits for it
	d.calls.Go(func() {
		kept, err := d.Inbox.Put(ctx, entry)
		puts <- put{kept, err}
	})
	hangs := time.NewTimer(diskWait)
	defer hangs.Stop()
	var diskErr, sinkErr error
	var asked, delivered chan error // the sink's result
	ask := func() {
		if asked != nil {
			return
		}
		asked = make(chan error, 1)
		delivered = asked
		d.calls.Go(func() {
			var err error
			c, joined, err = d.insist(ctx, item, c, joined)
			asked <- err
		})
	}
	for puts != nil || delivered != nil {
		select {
		case p := <-puts:
			if p.err == nil {
				if asked == nil { // otherwise the goroutine owns c
					d.keptAs(entry.Key, c)
				}
				return stored(p.kept)
			}
			puts, diskErr = nil, p.err
			ask()
		case <-hangs.C:
			ask()
		case err := <-delivered:
			if err == nil {
				return Result{Outcome: c.outcome, Joined: joined}, nil
			}
			delivered, sinkErr = nil, err
		case <-ctx.Done():
			if puts != nil {
				p := <-puts // Put returns when ctx ends
				if p.err == nil {
					return stored(p.kept)
				}
				diskErr = p.err
			}
			if sinkErr == nil {
				sinkErr = fmt.Errorf("%s: %w", d.Name, context.Cause(ctx))
			}
			return Result{}, errors.Join(diskErr, sinkErr)
		}
	}
	return Result{}, errors.Join(diskErr, sinkErr)
}

// insist waits for c, or for a new call if c is nil, until ctx ends. It reports whether another
// item began the call, as joined does for c.
func (d *Delivery[T]) insist(ctx context.Context, item T, c *call, joined bool) (*call, bool, error) {
	if c == nil {
		c = &call{}
		if err := d.acquire(ctx, item, c); err != nil {
			return nil, false, fmt.Errorf("%s: limit of deliveries reached: %w", d.Name, err)
		}
		if d.Join {
			c.key = d.Sink.Key(item)
		}
		c, joined = d.begin(ctx, item, c, true, true)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return c, joined, fmt.Errorf("%s: %w", d.Name, context.Cause(ctx))
	}
	if c.err != nil {
		return c, joined, fmt.Errorf("%s: %w", d.Name, c.err)
	}
	return c, joined, nil
}

// keptAs removes an item from the inbox if its call succeeds after all.
func (d *Delivery[T]) keptAs(key string, c *call) {
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-c.done:
		if c.err == nil {
			d.calls.Go(func() { d.remove(key) })
		}
	default:
		c.queued = key
	}
}

func (d *Delivery[T]) remove(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), removeWait)
	defer cancel()
	if err := d.Inbox.Remove(ctx, key); err != nil {
		d.Log.Warn("delivered callback not removed from inbox, tried again later", "key", key, "error", err)
	}
}

// compare calls Contradicted if the inbox has a different item of the same key.
func (d *Delivery[T]) compare(ctx context.Context, kept, body []byte, item T) error {
	if len(kept) == 0 || d.Contradicted == nil || string(kept) == string(body) {
		return nil
	}
	var first T
	if json.Unmarshal(kept, &first) != nil {
		return nil // the relay turns it into a dead letter
	}
	return d.Contradicted(ctx, first, item)
}

// logQueued logs the number of queued callbacks, once a minute.
func (d *Delivery[T]) logQueued() {
	if d.outage.Queue() {
		return
	}
	d.queued.Add(1)
	now, last := time.Now().UnixNano(), d.logged.Load()
	if now-last > int64(time.Minute) && d.logged.CompareAndSwap(last, now) {
		d.Log.Info("callbacks queued on disk", "to", d.Name, "count", d.queued.Swap(0))
	}
}
