// Package eventsink is the sink of participants' and recordings' callbacks: it stores their
// events in the ledger, many in a transaction.
package eventsink

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

const (
	// writeTimeout bounds a transaction. Only the relay waits for it that long.
	writeTimeout = 10 * time.Second
	// probeTimeout bounds the probe that shows whether a timeout is the event's or the
	// ledger's.
	probeTimeout = 2 * time.Second
	// hangsAfter is how long a transaction takes when it is likely to hang.
	hangsAfter = time.Second
	// maxBatch is how many events share a transaction, and maxRows how many rows they
	// write. A row takes a tenth of a millisecond at worst. An event of more rows, a
	// recording of many files, goes alone.
	maxBatch, maxRows = 1000, 10_000
	// fullBatch is how many events don't wait for more. Fewer wait after a transaction for
	// a quarter of the time that it took, at most maxGather: senders that were just
	// answered come again, and share the next sync. An event that comes alone doesn't wait.
	fullBatch, maxGather = 500, 25 * time.Millisecond
	// maxTimeouts is how often an event times out alone while the ledger takes others,
	// before it is refused: once may be for a lock.
	maxTimeouts = 2
)

// Stored is the outcome of an event that was delivered, for metrics.
const Stored = "stored"

// Store stores events. A [ledger.Ledger] is one.
type Store interface {
	// Record stores all events or none, however often it is called with them.
	Record(ctx context.Context, events []ledger.Event) error
	// Probe reports whether anything can be stored.
	Probe(ctx context.Context) error
}

// sink is a [delivery.Sink] that stores events, many in a transaction.
type sink struct {
	store   Store
	refused func(error) bool
	timeout time.Duration

	mu      sync.Mutex
	queue   []*batch // what comes joins the last one
	writing bool
	since   time.Time     // when the transaction in flight began
	gather  time.Time     // before which the next one waits unless it is full
	full    chan struct{} // receives when it is
}

var _ delivery.Sink[ledger.Event] = (*sink)(nil)

func newSink(store Store) *sink {
	return &sink{store: store, refused: ledger.Refusal, timeout: writeTimeout, full: make(chan struct{}, 1)}
}

// New returns a Delivery that stores events in store.
func New(store Store, box delivery.Inbox, log *slog.Logger, observe func(outcome string, relayed bool)) *delivery.Delivery[ledger.Event] {
	return newDelivery(newSink(store), box, log, observe)
}

func newDelivery(s *sink, box delivery.Inbox, log *slog.Logger, observe func(outcome string, relayed bool)) *delivery.Delivery[ledger.Event] {
	return delivery.New(delivery.Options[ledger.Event]{
		Name: "ledger", Sink: s, Inbox: box, MaxFailures: 1, Log: log, Observe: observe,
		// One batch is written while the next one fills.
		MinInFlight: 2 * maxBatch, MaxInFlight: 2 * maxBatch, Size: size,
	})
}

// size returns about how many bytes of memory an event takes.
func size(event ledger.Event) int {
	n := 1 << 10
	if event.Recording != nil {
		for _, f := range event.Recording.Files {
			n += 256 + len(f.FileID) + len(f.URL) + len(f.Format) + len(f.UserID) + len(f.StreamID)
		}
	}
	return n
}

// batch is what shares a transaction.
type batch struct {
	events   []ledger.Event
	done     []func(string, error)
	rows     int
	closed   bool // part of one that failed, for a transaction of its own
	timeouts int  // of its only event
}

// Deliver implements [delivery.Sink].
func (s *sink) Deliver(_ context.Context, event ledger.Event, _ bool, done func(string, error)) {
	rows := 2
	if event.Recording != nil {
		rows = 1 + len(event.Recording.Files)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b *batch
	if n := len(s.queue); n > 0 {
		b = s.queue[n-1]
	}
	if b == nil || b.closed || len(b.events) >= maxBatch || b.rows+rows > maxRows {
		b = &batch{}
		s.queue = append(s.queue, b)
	}
	b.events, b.done, b.rows = append(b.events, event), append(b.done, done), b.rows+rows
	switch {
	case !s.writing:
		s.writing = true
		go s.write()
	case len(b.events) == fullBatch:
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

// write writes one batch after the other until there is none.
func (s *sink) write() {
	for b := s.next(); b != nil; b = s.next() {
		began := time.Now()
		err, timedOut := s.record(b.events)
		s.mu.Lock()
		s.since = time.Time{}
		s.gather = time.Now().Add(min(time.Since(began)/4, maxGather))
		s.mu.Unlock()
		s.finish(b, err, timedOut)
	}
}

// next returns the next batch once it is full or has waited; nil if there is none, and
// then the writer has to end.
func (s *sink) next() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait := time.Until(s.gather); wait > 0 && len(s.queue) == 1 && !s.queue[0].closed && len(s.queue[0].events) < fullBatch {
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.full: // perhaps of an earlier batch, which only makes this one smaller
		}
		timer.Stop()
		s.mu.Lock()
	}
	if len(s.queue) == 0 {
		s.writing = false
		return nil
	}
	b := s.queue[0]
	s.queue, s.since = s.queue[1:], time.Now()
	return b
}

// record stores events. An error is a timeout only while the ledger takes others.
func (s *sink) record(events []ledger.Event) (err error, timedOut bool) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	err = s.store.Record(ctx, events)
	if err == nil || ctx.Err() == nil {
		return err, false
	}
	err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err) // whatever the database says of it
	ctx, cancel = context.WithTimeout(context.Background(), min(s.timeout, probeTimeout))
	defer cancel()
	if probeErr := s.store.Probe(ctx); probeErr != nil {
		return errors.Join(err, probeErr), false
	}
	return err, true
}

// finish reports what became of a batch. Where one event is refused or takes too long, the
// others are separated from it by halves.
func (s *sink) finish(b *batch, err error, timedOut bool) {
	refused := err != nil && s.refused(err)
	switch {
	case len(b.events) > 1 && (timedOut || refused):
		half := len(b.events) / 2
		halves := []*batch{
			{events: b.events[:half], done: b.done[:half], closed: true},
			{events: b.events[half:], done: b.done[half:], closed: true},
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if timedOut { // others first
			s.queue = append(s.queue, halves...)
		} else {
			s.queue = append(halves, s.queue...)
		}
		return
	case timedOut:
		if b.timeouts++; b.timeouts < maxTimeouts {
			b.closed = true
			s.mu.Lock()
			defer s.mu.Unlock()
			s.queue = append(s.queue, b)
			return
		}
		err = refusedError{fmt.Errorf("timed out alone %d times while the ledger took others: %w", maxTimeouts, err)}
	case refused:
		err = refusedError{err}
	}
	for _, done := range b.done {
		done(Stored, err)
	}
}

// refusedError is an error about the content of an event.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// Fault implements [delivery.Sink].
func (s *sink) Fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || time.Since(s.since) < hangsAfter {
		return nil
	}
	return fmt.Errorf("no answer to the last transaction since %s", s.since.UTC().Format(time.RFC3339))
}

// Judge implements [delivery.Sink].
func (s *sink) Judge(err error) delivery.Verdict {
	if errors.As(err, new(refusedError)) {
		return delivery.Refused
	}
	return delivery.Unavailable
}

// Key implements [delivery.Sink]. All that a callback says is in it: a repeat has the same
// key, and a contradiction another.
func (s *sink) Key(event ledger.Event) string { return Key(event) }

// Key returns the key of an event in the inbox.
func Key(event ledger.Event) string {
	event.SentAt, event.SeenAt = time.Time{}, time.Time{} // a repeat has others
	body, err := json.Marshal(event)
	if err != nil {
		panic(err) // nothing in it can fail to encode
	}
	sum := sha256.Sum256(body)
	return fmt.Sprintf("%s-%d-%d-%x", event.Event, event.AppID, event.RoomSessionID, sum[:10])
}

// ParseKey returns the event and session of a key. The RoomSessionID is 0 for a recording
// or an unreadable callback, whose session isn't known.
func ParseKey(key string) (event string, id session.ID, err error) {
	if parts := strings.Split(key, "-"); len(parts) == 4 {
		if id, err := session.ParseID(parts[1] + "-" + parts[2]); err == nil {
			return parts[0], id, nil
		}
	}
	return "", session.ID{}, fmt.Errorf("%q is not the key of an event, want one as in room_login-1-858012925204410417-0123456789abcdef0123", key)
}
