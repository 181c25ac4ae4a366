// Package eventsink is the sink of callbacks about participants and recordings. It stores
// their events in the ledger, many in a transaction.
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
	// writeTimeout bounds a transaction. Senders don't wait that long, only the relay does.
	writeTimeout = 10 * time.Second
	// probeTimeout bounds the probe that shows whether the event or the ledger caused a
	// timeout.
	probeTimeout = 2 * time.Second
	// hangsAfter is the duration after which a transaction is considered to hang.
	hangsAfter = time.Second
	// maxRows bounds the rows that a transaction writes. A row takes at most a tenth of a
	// millisecond. An event with more rows, such as a recording of many files, has its own
	// transaction.
	maxRows = 10_000
	// fullBatch is the number of events that are written without waiting for more. A
	// smaller batch waits after a transaction for a quarter of the transaction's duration,
	// at most maxGather, because senders that were just answered send again and can share
	// the next sync. An event without a transaction before it doesn't wait.
	fullBatch, maxGather = 500, 25 * time.Millisecond
	// maxTimeouts is the number of timeouts of a single event, while the ledger stores
	// others, after which the event is refused. One timeout may be due to a lock.
	maxTimeouts = 2
)

// maxBatch bounds the events in a transaction. The simulation lowers it.
var maxBatch = 1000

// Stored is the outcome of an event that was delivered, for metrics.
const Stored = "stored"

// Store stores events. A [ledger.Ledger] implements it.
type Store interface {
	// Record stores all events or none. Storing an event again changes nothing.
	Record(ctx context.Context, events []ledger.Event) error
	// Probe returns an error if nothing can be stored.
	Probe(ctx context.Context) error
}

// sink is a [delivery.Sink] that stores events, many in a transaction.
type sink struct {
	store   Store
	refused func(error) bool
	timeout time.Duration

	mu      sync.Mutex
	queue   []*batch // new events join the last batch
	writing bool
	since   time.Time     // when the transaction in flight began
	gather  time.Time     // until then the next batch waits, unless it is full
	full    chan struct{} // receives when the next batch is full
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
		MinInFlight: uint(2 * maxBatch), MaxInFlight: uint(2 * maxBatch), Size: size,
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

// batch holds the events of one transaction.
type batch struct {
	events   []ledger.Event
	done     []func(string, error)
	rows     int
	closed   bool // no more events may join: it is a part of a failed batch
	timeouts int  // timeouts of its only event
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

// write writes one batch after the other until the queue is empty.
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

// next waits until the next batch is full or has waited long enough, and returns it. It
// returns nil if the queue is empty. The writer must end then.
func (s *sink) next() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait := time.Until(s.gather); wait > 0 && len(s.queue) == 1 && !s.queue[0].closed && len(s.queue[0].events) < fullBatch {
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.full: // perhaps from an earlier batch, which only makes this one smaller
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

// record stores events. timedOut reports that they took too long while the ledger stores
// other events.
func (s *sink) record(events []ledger.Event) (err error, timedOut bool) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	err = s.store.Record(ctx, events)
	if err == nil || ctx.Err() == nil {
		return err, false
	}
	err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err) // databases report a timeout in different ways
	ctx, cancel = context.WithTimeout(context.Background(), min(s.timeout, probeTimeout))
	defer cancel()
	if probeErr := s.store.Probe(ctx); probeErr != nil {
		return errors.Join(err, probeErr), false
	}
	return err, true
}

// finish reports the outcome of a batch. If one event is refused or takes too long, finish
// halves the batch, which separates that event from the others step by step.
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
		if timedOut { // store other events first
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
		err = refusedError{fmt.Errorf("timed out alone %d times while the ledger stored others: %w", maxTimeouts, err)}
	case refused:
		err = refusedError{err}
	}
	for _, done := range b.done {
		done(Stored, err)
	}
}

// refusedError means that the ledger refuses an event for good.
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

// Key implements [delivery.Sink]. The key is a hash of the event's whole content. A repeated
// callback has the same key, and a contradicting one another.
func (s *sink) Key(event ledger.Event) string { return Key(event) }

// Key returns the key of an event in the inbox.
func Key(event ledger.Event) string {
	event.SentAt, event.SeenAt = time.Time{}, time.Time{} // a repeat has other times
	body, err := json.Marshal(event)
	if err != nil {
		panic(err) // every event can be encoded
	}
	sum := sha256.Sum256(body)
	return fmt.Sprintf("%s-%d-%d-%x", event.Event, event.AppID, event.RoomSessionID, sum[:10])
}

// ParseKey returns the event and session of a key. The RoomSessionID is 0 for a recording
// or an unreadable callback, because their session isn't known.
func ParseKey(key string) (event string, id session.ID, err error) {
	if parts := strings.Split(key, "-"); len(parts) == 4 {
		if id, err := session.ParseID(parts[1] + "-" + parts[2]); err == nil {
			return parts[0], id, nil
		}
	}
	return "", session.ID{}, fmt.Errorf("%q is not the key of an event, want one as in room_login-1-858012925204410417-0123456789abcdef0123", key)
}
