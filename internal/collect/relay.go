package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
)

const (
	// pageEntries is how many entries are read at once, as far as a page of the inbox
	// has room for them. They are all that is in memory.
	pageEntries = 500
	// maxTimeouts is how often an entry may time out alone while the ledger takes
	// others, before a person has to look at it: once it may be for a lock.
	maxTimeouts = 2
	// lookAgain is how often an inbox is looked into in which nothing was put:
	// another process may have given something its turn again.
	lookAgain = 2 * time.Second
	// mostPause is how long the relay leaves a ledger alone that doesn't take
	// anything.
	mostPause = 5 * time.Second
)

// Relay stores what is in the inbox, the oldest first, until ctx ends. An entry
// leaves the inbox only when the ledger has it; after a crash it may be stored
// once more, which changes nothing.
func (c *Collector) Relay(ctx context.Context) {
	pause := backoff.NewExponentialBackOff() // with jitter
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, mostPause
	for ctx.Err() == nil {
		moved, err := c.pass(ctx)
		if moved {
			pause.Reset()
		}
		wait, wake := lookAgain, c.Inbox.Wake()
		if err != nil {
			// New entries are behind those that have to wait.
			wait, wake = pause.NextBackOff(), nil
			if ctx.Err() == nil {
				c.Log.Debug("usage waits in its inbox", "error", err, "next_try", wait.Round(time.Millisecond))
			}
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

// pass goes through the inbox, until nothing waits in it. moved says that something
// has left it.
func (c *Collector) pass(ctx context.Context) (moved bool, err error) {
	for after := int64(0); ; {
		entries, err := c.Inbox.Next(ctx, after, pageEntries)
		if err != nil {
			c.Log.Warn("can't read the inbox of usage, trying again", "error", err)
			return moved, err
		}
		if len(entries) == 0 {
			return moved, nil
		}
		if err := c.relay(ctx, entries); err != nil {
			return moved, err
		}
		if moved = true; ctx.Err() != nil {
			return moved, ctx.Err()
		}
		after = entries[len(entries)-1].ID
	}
}

// relay stores a page of entries and removes them from the inbox.
func (c *Collector) relay(ctx context.Context, entries []inbox.Entry) error {
	stored := 0
	var whole, slow []queued
	for _, e := range entries {
		q := queued{Entry: e}
		if err := json.Unmarshal(e.Body, &q.usage); err != nil {
			if err := c.shelve(ctx, e, fmt.Errorf("decode usage: %w", err)); err != nil {
				return err
			}
			continue
		}
		if c.timeouts[e.Key] > 0 {
			slow = append(slow, q)
		} else {
			whole = append(whole, q)
		}
	}
	// What timed out before is tried alone, behind the others.
	for len(whole) > 0 {
		n, rows := 0, 0
		for n < len(whole) && (n == 0 || rows+rowsOf(whole[n].usage) <= maxRows) {
			rows += rowsOf(whole[n].usage)
			n++
		}
		done, err := c.settle(ctx, whole[:n])
		if stored += done; err != nil {
			return err
		}
		whole = whole[n:]
	}
	for _, q := range slow {
		done, err := c.settle(ctx, []queued{q})
		if stored += done; err != nil {
			return err
		}
	}
	if stored > 0 {
		c.Log.Info("usage from the inbox taken by the ledger", "count", stored, "oldest_queued_for", time.Since(entries[0].QueuedAt).Round(time.Millisecond))
	}
	return nil
}

// queued is an entry with what it holds.
type queued struct {
	inbox.Entry
	usage ledger.Usage
}

// settle stores entries. Where the ledger refuses one for its content, or one takes
// too long, the others are told apart from it by halves.
func (c *Collector) settle(ctx context.Context, entries []queued) (stored int, err error) {
	usage, keys := make([]ledger.Usage, len(entries)), make([]string, len(entries))
	for n, e := range entries {
		usage[n], keys[n] = e.usage, e.Key
	}
	err = c.record(usage, true)
	timedOut := errors.Is(err, context.DeadlineExceeded)
	switch {
	case err == nil:
		for _, key := range keys {
			delete(c.timeouts, key)
		}
		return len(entries), c.Inbox.Remove(context.WithoutCancel(ctx), keys...)
	case timedOut && ctx.Err() != nil:
		return 0, ctx.Err()
	case timedOut && len(entries) == 1:
		return 0, c.timeout(ctx, entries[0].Entry, err)
	case !c.Refusal(err) && !timedOut:
		return 0, err
	case len(entries) == 1:
		c.Observe(refused, true, 1)
		return 0, c.shelve(ctx, entries[0].Entry, err)
	}
	half := len(entries) / 2
	stored, err = c.settle(ctx, entries[:half])
	if err != nil {
		return stored, err
	}
	more, err := c.settle(ctx, entries[half:])
	return stored + more, err
}

// timeout counts how often an entry timed out alone, and sets it aside in the end. It
// returns an error where it is the ledger that is slow.
func (c *Collector) timeout(ctx context.Context, e inbox.Entry, reason error) error {
	probeCtx, cancel := context.WithTimeout(ctx, c.writeTimeout)
	defer cancel()
	if err := c.Ledger.Probe(probeCtx); err != nil {
		return errors.Join(reason, err)
	}
	c.away.Store(false)
	if c.timeouts[e.Key]++; c.timeouts[e.Key] < maxTimeouts {
		return nil
	}
	delete(c.timeouts, e.Key)
	c.Observe(refused, true, 1)
	return c.shelve(ctx, e, fmt.Errorf("timed out alone %d times while the ledger took others: %w", maxTimeouts, reason))
}

// shelve sets aside what the ledger will never take, where a person finds it.
func (c *Collector) shelve(ctx context.Context, e inbox.Entry, reason error) error {
	c.Log.Error("a usage callback is set aside; see `closeout inbox list`", "key", e.Key, "error", reason)
	return c.Inbox.Shelve(context.WithoutCancel(ctx), e.Key, reason.Error())
}
