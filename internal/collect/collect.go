// Package collect takes responsibility for the verified callbacks that tell what
// happened in a session: it stores them in the ledger, many in a transaction, or
// keeps them on the disk until the ledger takes them. It shares nothing with the
// intake of room_close but the machine.
package collect

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

const (
	// patience is how long a sender waits for the ledger. What takes longer goes into
	// the inbox, and is written twice if need be, which the ledger doesn't mind.
	patience = 300 * time.Millisecond
	// putWithin is how long a sender waits for the disk before the ledger is tried beside
	// it: a sync takes some ms, and the webhook answers after 1.5 s.
	putWithin = 500 * time.Millisecond
	// writeTimeout bounds a transaction. Nobody waits for it that long but the relay.
	writeTimeout = 10 * time.Second
	// mostTogether is how many callbacks share a transaction, and how many more may
	// wait for the next one. What comes beyond that goes into the inbox.
	mostTogether = 1000
	// maxRows is how many rows they may write. One callback tells of many recorded
	// files, and goes alone if it writes more: a row takes a tenth of a millisecond at
	// worst, so that a transaction is well within writeTimeout.
	maxRows = 10_000
	// full is how many callbacks don't wait for more. Fewer wait after a transaction
	// for a part of the time that it took, at most for so long: those that were just
	// answered come again, and share the next sync. One that comes alone doesn't wait.
	full, gatherPart, gatherMost = 500, 4, 25 * time.Millisecond
)

// Ledger stores usage. A [ledger.Ledger] is one.
type Ledger interface {
	// Record stores it all or none of it, however often it is told.
	Record(ctx context.Context, usage []ledger.Usage) error
	// Probe reports whether it can store anything.
	Probe(ctx context.Context) error
}

// Inbox keeps on the disk what the ledger doesn't take at once. An [inbox.Inbox]
// is one.
type Inbox interface {
	Put(ctx context.Context, key string, body []byte) error
	Next(ctx context.Context, after int64, n int) ([]inbox.Entry, error)
	Remove(ctx context.Context, keys ...string) error
	Shelve(ctx context.Context, key, reason string) error
	Wake() <-chan struct{}
}

// Options are what a [Collector] needs.
type Options struct {
	// Ledger stores what is collected.
	Ledger Ledger
	// Inbox takes what the ledger doesn't. It is not that of the intake.
	Inbox Inbox
	// Refusal says whether an error of the ledger is about what it was told, so that
	// it would be the same again; [ledger.Refusal] unless set.
	Refusal func(error) bool
	// MaxRoomLife is how long a room can live; 0 is without a limit. See
	// [ledger.Usage.Plausible].
	MaxRoomLife time.Duration
	// Log gets what operators should know.
	Log *slog.Logger
	// Observe, if set, is told what became of so many callbacks: "stored", "refused"
	// or "failed"; and whether they came from the inbox.
	Observe func(outcome string, relayed bool, n int)
}

// Collector stores callbacks in the ledger, and in
// the inbox where the ledger can't take them at once. Run what is in the inbox
// with [Collector.Relay].
type Collector struct {
	Options

	mu      sync.Mutex
	pending *batch // shares the next transaction
	writing bool
	since   time.Time // when the transaction under way began
	gather  time.Time // before which the next transaction doesn't begin, unless it is full
	ready   chan struct{}
	writers sync.WaitGroup

	writeTimeout time.Duration
	timeouts     map[string]int // of entries that timed out alone; the relay's

	turn sync.Mutex // whose transaction it is: that of senders, or the relay's
	// away says that the ledger didn't take the last that it was told, or not in time:
	// nobody waits for it then but the relay.
	away   atomic.Bool
	outage *outage.Outage // of the ledger

	queued      atomic.Int64 // since it was logged
	logged      everyMinute
	implausible everyMinute
}

// New makes a collector.
func New(o Options) *Collector {
	if o.Observe == nil {
		o.Observe = func(string, bool, int) {}
	}
	if o.Refusal == nil {
		o.Refusal = ledger.Refusal
	}
	return &Collector{Options: o, writeTimeout: writeTimeout, timeouts: map[string]int{}, ready: make(chan struct{}, 1), outage: outage.New(o.Log, "ledger", "usage callbacks are queued on disk")}
}

// Collect returns a receipt for a callback. It counts as taken when the
// ledger has committed it, or when the inbox has it on the disk.
func (c *Collector) Collect(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	usage, ok := ledger.UsageOf(event, time.Now())
	if !ok {
		return webhook.Receipt{Status: webhook.Ignored}, nil
	}
	usage = c.plausible(usage)
	var b *batch
	if !c.away.Load() {
		if b = c.join(usage, false); b != nil {
			err, written := b.wait(ctx, patience)
			if written && err == nil {
				return webhook.Receipt{Status: webhook.Stored}, nil
			}
			if !written && c.hangs() {
				// The callback is in the inbox next, and the relay finds out how the ledger is.
				c.away.Store(true)
			}
		}
	}
	putting, cancel := context.WithTimeout(ctx, putWithin)
	diskErr := c.put(putting, usage)
	cancel()
	if diskErr == nil {
		c.tell()
		return webhook.Receipt{Status: webhook.Queued}, nil
	}

	// Where the disk fails there is only the ledger, for as long as the sender waits. A
	// disk that doesn't answer may only be slow, and is asked beside it.
	var disk chan error
	if ctx.Err() == nil && errors.Is(diskErr, context.DeadlineExceeded) {
		disk = make(chan error, 1)
		go func(done chan<- error) { done <- c.put(ctx, usage) }(disk)
	}
	var written <-chan struct{}
	ledgerErr := errors.New("as many callbacks as may be wait for the ledger")
	if b = c.join(usage, true); b != nil {
		written = b.done
	}
	for ctx.Err() == nil && (disk != nil || written != nil) {
		select {
		case diskErr = <-disk:
			if diskErr == nil {
				c.tell()
				return webhook.Receipt{Status: webhook.Queued}, nil
			}
			disk = nil
		case <-written:
			if b.err == nil {
				return webhook.Receipt{Status: webhook.Stored}, nil
			}
			ledgerErr, written = fmt.Errorf("store usage in the ledger: %w", b.err), nil
		case <-ctx.Done():
		}
	}
	if written != nil {
		ledgerErr = fmt.Errorf("store usage in the ledger: %w", context.Cause(ctx))
	}
	return webhook.Receipt{}, errors.Join(diskErr, ledgerErr)
}

// Contradict notes that a session was closed twice, in another room or at another
// time, so that its bill says so. It is on the disk when this returns, or logged.
func (c *Collector) Contradict(s activities.Session) {
	usage := ledger.Usage{AppID: s.AppID, RoomID: s.RoomID, RoomSessionID: s.RoomSessionID, Event: zego.EventRoomClose, Close: s.RoomCloseTime, SeenAt: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), c.writeTimeout)
	defer cancel()
	if err := c.put(ctx, usage); err != nil {
		c.Log.Error("bill won't say that its session was closed twice", "appid", s.AppID, "room_session_id", s.RoomSessionID, "error", err)
	}
}

// plausible returns what is to be believed of a callback.
func (c *Collector) plausible(told ledger.Usage) ledger.Usage {
	u := told.Plausible(c.MaxRoomLife)
	if u.Implausible && c.implausible.due() {
		c.Log.Warn("callback tells a time that can't be", "event", u.Event, "appid", u.AppID, "room_session_id", u.RoomSessionID, "stay", u.Stay,
			"sent", told.SentAt, "create_time", told.Create, "login_time", told.Login, "logout_time", told.Logout)
	}
	return u
}

// everyMinute is due once a minute.
type everyMinute struct{ last atomic.Int64 } // in Unix nanoseconds

func (e *everyMinute) due() bool {
	now, last := time.Now().UnixNano(), e.last.Load()
	return now-last > int64(time.Minute) && e.last.CompareAndSwap(last, now)
}

// hangs says that the transaction under way takes so long that it is no use to wait
// for the next one either. Where there is only much to do, the next one helps more
// than the disk does, which the ledger may share.
func (c *Collector) hangs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.since.IsZero() && time.Since(c.since) > patience/2
}

// put keeps usage on the disk.
func (c *Collector) put(ctx context.Context, usage ledger.Usage) error {
	body, err := json.Marshal(usage)
	if err != nil {
		return fmt.Errorf("encode usage: %w", err)
	}
	return c.Inbox.Put(ctx, Key(usage), body)
}

// tell logs how many callbacks were queued, once a minute.
func (c *Collector) tell() {
	if c.outage.Queue() {
		return
	}
	c.queued.Add(1)
	if c.logged.due() {
		c.Log.Info("usage callbacks queued on disk", "count", c.queued.Swap(0))
	}
}

// Takes tells whether the ledger takes usage at the moment, as far as is known.
func (c *Collector) Takes() bool { return !c.away.Load() }

// Fault returns why the ledger didn't take the last usage, or nil.
func (c *Collector) Fault() error { return c.outage.Cause() }

// Wait waits for the transactions that outlast the answers to their callbacks: at
// most some seconds. Neither ledger nor inbox is to be closed before.
func (c *Collector) Wait() { c.writers.Wait() }

// batch is what shares a transaction.
type batch struct {
	usage []ledger.Usage
	rows  int
	// insist says that somebody waits for it who has nowhere else to go, and that it
	// is written even if the ledger is thought to be away.
	insist bool
	done   chan struct{}
	err    error // set when done is closed
}

// wait says whether the batch was written within that time, and what came of it.
func (b *batch) wait(ctx context.Context, most time.Duration) (err error, written bool) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-b.done:
		return b.err, true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-b.done: // at the same moment
		return b.err, true
	default:
		return nil, false
	}
}

// join adds usage to the next transaction; nil if that is full.
func (c *Collector) join(usage ledger.Usage, insist bool) *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.pending
	if b == nil {
		b = &batch{done: make(chan struct{})}
		c.pending = b
	}
	rows := rowsOf(usage)
	if len(b.usage) >= mostTogether || len(b.usage) > 0 && b.rows+rows > maxRows {
		return nil
	}
	b.usage, b.rows = append(b.usage, usage), b.rows+rows
	b.insist = b.insist || insist
	switch {
	case !c.writing:
		c.writing = true
		c.writers.Go(c.write)
	case len(b.usage) == full:
		select {
		case c.ready <- struct{}{}:
		default: // it is awake
		}
	}
	return b
}

// rowsOf is how many rows a callback writes.
func rowsOf(usage ledger.Usage) int {
	if usage.Recording == nil {
		return 2
	}
	return 1 + len(usage.Recording.Files)
}

// write writes one batch after another, until there is none.
func (c *Collector) write() {
	for {
		b := c.take()
		if b == nil {
			return
		}
		began := time.Now()
		if c.away.Load() && !b.insist {
			b.err = errAway
		} else {
			b.err = c.record(b.usage, false)
		}
		c.mu.Lock()
		c.since = time.Time{}
		c.gather = time.Now().Add(min(time.Since(began)/gatherPart, gatherMost))
		c.mu.Unlock()
		close(b.done)
	}
}

var errAway = errors.New("the ledger didn't take what it was told before")

// take gives the next batch, when it is full or it is its time; nil if there is
// none, and then the writer has to end.
func (c *Collector) take() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if wait := time.Until(c.gather); c.pending != nil && len(c.pending.usage) < full && wait > 0 {
		c.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.ready: // maybe of a batch that is gone, which only makes this one smaller
		}
		timer.Stop()
		c.mu.Lock()
	}
	b := c.pending
	c.pending, c.writing, c.since = nil, b != nil, time.Now()
	return b
}

// record has the ledger store usage, in one transaction.
func (c *Collector) record(usage []ledger.Usage, relayed bool) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), c.writeTimeout)
	defer cancel()
	err := c.Ledger.Record(ctx, usage)
	if err != nil && ctx.Err() != nil { // whatever the database says of it
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if err != nil && !c.Refusal(err) {
		c.away.Store(true)
		c.outage.Fail(err)
		c.Observe(failed, relayed, len(usage))
		return err
	}
	// The ledger is there, whatever it says.
	c.away.Store(false)
	c.outage.End()
	if err == nil {
		c.Observe(stored, relayed, len(usage))
	}
	return err
}

// The outcomes of which [Options].Observe is told.
const (
	stored  = "stored"
	refused = "refused"
	failed  = "failed"
)

// Outcomes are all that [Options].Observe is told.
func Outcomes() []string { return []string{stored, refused, failed} }

// Key names usage in the inbox. All that a callback says is in it: one that comes
// again is there once, and one that contradicts another doesn't take its place.
func Key(usage ledger.Usage) string {
	usage.SentAt, usage.SeenAt = time.Time{}, time.Time{} // a repeat's are others
	body, err := json.Marshal(usage)
	if err != nil {
		panic(err) // it has nothing in it that can't be encoded
	}
	sum := sha256.Sum256(body)
	return fmt.Sprintf("%s-%d-%d-%x", usage.Event, usage.AppID, usage.RoomSessionID, sum[:10])
}

// ParseKey tells of which event and session the entry of a key is.
func ParseKey(key string) (event string, appID uint32, roomSessionID uint64, err error) {
	parts := strings.Split(key, "-")
	if len(parts) == 4 {
		app, appErr := strconv.ParseUint(parts[1], 10, 32)
		session, sessionErr := strconv.ParseUint(parts[2], 10, 64)
		if appErr == nil && sessionErr == nil {
			return parts[0], uint32(app), session, nil
		}
	}
	return "", 0, 0, fmt.Errorf("%q is no key of usage, want one as in room_login-1-858012925204410417-0123456789abcdef0123", key)
}
