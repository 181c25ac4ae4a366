package collect

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
)

const (
	// page is how many entries are read and written at once. They are all that is in
	// memory.
	page = 500
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
		entries, err := c.Inbox.Next(ctx, after, page)
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
	var whole []inbox.Entry
	var usage []ledger.Usage
	for _, e := range entries {
		var u ledger.Usage
		if err := json.Unmarshal(e.Body, &u); err != nil {
			if err := c.shelve(ctx, e, fmt.Errorf("decode usage: %w", err)); err != nil {
				return err
			}
			continue
		}
		whole, usage = append(whole, e), append(usage, u)
	}
	if err := c.settle(ctx, whole, usage); err != nil {
		return err
	}
	if len(whole) > 0 {
		c.Log.Info("usage from the inbox taken by the ledger", "count", len(whole), "oldest_queued_for", time.Since(whole[0].QueuedAt).Round(time.Millisecond))
	}
	return nil
}

// settle stores entries. Where the ledger refuses one for its content, the others
// are told apart from it by halves.
func (c *Collector) settle(ctx context.Context, entries []inbox.Entry, usage []ledger.Usage) error {
	if len(entries) == 0 {
		return nil
	}
	err := c.record(usage, true)
	switch {
	case err == nil:
		keys := make([]string, len(entries))
		for n, e := range entries {
			keys[n] = e.Key
		}
		return c.Inbox.Remove(context.WithoutCancel(ctx), keys...)
	case !c.Refusal(err):
		return err
	case len(entries) == 1:
		c.Observe(refused, true, 1)
		return c.shelve(ctx, entries[0], err)
	}
	half := len(entries) / 2
	if err := c.settle(ctx, entries[:half], usage[:half]); err != nil {
		return err
	}
	return c.settle(ctx, entries[half:], usage[half:])
}

// shelve sets aside what the ledger will never take, where a person finds it.
func (c *Collector) shelve(ctx context.Context, e inbox.Entry, reason error) error {
	c.Log.Error("a usage callback is set aside; see `closeout inbox list`", "key", e.Key, "error", reason)
	return c.Inbox.Shelve(context.WithoutCancel(ctx), e.Key, reason.Error())
}
