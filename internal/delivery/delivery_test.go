package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/inbox"
)

type item struct {
	Key  string
	Text string
}

var (
	errAway  = errors.New("connection refused")
	errNever = errors.New("no such customer")
	errWait  = errors.New("not yet")
)

// sink is a sink whose time and error a test sets. By default it delivers after a millisecond.
type sink struct {
	mu        sync.Mutex
	takes     time.Duration
	err       func(item) error
	delivered []string // keys, in order
	attempts  int
	inFlight  int
	most      int
}

func (s *sink) Deliver(_ context.Context, i item, _ bool, done func(string, error)) {
	s.mu.Lock()
	s.attempts++
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	takes := max(s.takes, time.Millisecond)
	s.mu.Unlock()
	go func() {
		time.Sleep(takes)
		s.mu.Lock()
		var err error
		if s.err != nil {
			err = s.err(i)
		}
		if s.inFlight--; err == nil {
			s.delivered = append(s.delivered, i.Key)
		}
		s.mu.Unlock()
		done("started", err)
	}()
}

func (s *sink) Fault() error { return nil }

func (s *sink) Judge(err error) delivery.Verdict {
	switch {
	case errors.Is(err, errNever):
		return delivery.Refused
	case errors.Is(err, errWait):
		return delivery.Later
	}
	return delivery.Unavailable
}

func (s *sink) Key(i item) string { return i.Key }

// set changes how long a delivery takes, and its error.
func (s *sink) set(takes time.Duration, err func(item) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes, s.err = takes, err
}

func always(err error) func(item) error { return func(item) error { return err } }

// world is a Delivery with a sink and an inbox.
type world struct {
	*delivery.Delivery[item]
	t     *testing.T
	sink  *sink
	inbox *inbox.Inbox
	disk  *disk
}

// disk is an inbox that can fail or hang.
type disk struct {
	*inbox.Inbox
	err   error
	hangs bool         // until a second after ctx ends
	puts  atomic.Int64 // ended while it hung
}

func (d *disk) Put(ctx context.Context, e inbox.Entry) ([]byte, error) {
	if d.hangs {
		<-ctx.Done()
		time.Sleep(time.Second)
		d.puts.Add(1)
		return nil, context.Cause(ctx)
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.Inbox.Put(ctx, e)
}

// in runs a test in a synctest bubble.
func in(t *testing.T, options func(*delivery.Options[item]), test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		box, err := inbox.OpenFS(t.Context(), vfs.NewMem(), "inbox", log)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, sink: &sink{}, inbox: box, disk: &disk{Inbox: box}}
		o := delivery.Options[item]{Name: "the sink", Sink: w.sink, Inbox: w.disk, MinInFlight: 2, MaxInFlight: 8, MaxFailures: 3, Log: log}
		if options != nil {
			options(&o)
		}
		w.Delivery = delivery.New(o)
		test(w)
		w.Wait()
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
}

// deliver delivers an item. An error ends the test.
func (w *world) deliver(key string) delivery.Result {
	w.t.Helper()
	result, err := w.Deliver(w.t.Context(), item{Key: key})
	if err != nil {
		w.t.Fatalf("%s: %v", key, err)
	}
	return result
}

// relay runs the relay for d.
func (w *world) relay(d time.Duration) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	w.Relay(ctx)
}

// queued returns the keys in the inbox, with the reasons of dead letters.
func (w *world) queued() (keys []string) {
	w.t.Helper()
	for e, err := range w.inbox.All(context.Background()) {
		if err != nil {
			w.t.Fatal(err)
		}
		keys = append(keys, strings.TrimSuffix(e.Key+": "+e.Reason, ": "))
	}
	return keys
}

func (w *world) expect(delivered, queued []string) {
	w.t.Helper()
	w.Wait()
	if got := w.queued(); !slices.Equal(got, queued) {
		w.t.Errorf("the inbox has %q, want %q", got, queued)
	}
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	if !slices.Equal(w.sink.delivered, delivered) {
		w.t.Errorf("the sink has %q, want %q", w.sink.delivered, delivered)
	}
}

// rested checks that the sink saw a limited number of attempts.
func (w *world) rested(most int) {
	w.t.Helper()
	if w.sink.attempts > most {
		w.t.Errorf("%d attempts, want at most %d", w.sink.attempts, most)
	}
}

func TestDirectDeliveryIsNotQueued(t *testing.T) {
	in(t, nil, func(w *world) {
		if r := w.deliver("a"); r != (delivery.Result{Outcome: "started"}) {
			t.Errorf("result %+v", r)
		}
		w.expect([]string{"a"}, nil)
	})
}

func TestSlowDeliveryIsQueuedAndRemovedAtItsEnd(t *testing.T) {
	in(t, nil, func(w *world) {
		w.sink.set(2*time.Second, nil)
		began := time.Now()
		if r := w.deliver("a"); r != (delivery.Result{}) {
			t.Errorf("result %+v", r)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the sender waited for %v", took)
		}
		if got := w.queued(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("the inbox has %q", got)
		}
		w.expect([]string{"a"}, nil)
	})
}

func TestRelayDeliversOldestFirst(t *testing.T) {
	in(t, func(o *delivery.Options[item]) { o.MinInFlight, o.MaxInFlight = 1, 1 }, func(w *world) {
		w.sink.set(0, always(errAway))
		for _, key := range []string{"c", "a", "b"} {
			w.deliver(key)
		}
		w.expect(nil, []string{"c", "a", "b"})
		w.sink.set(0, nil)
		w.relay(10 * time.Second)
		w.expect([]string{"c", "a", "b"}, nil)
	})
}

func TestUnavailableSinkIsRarelyAsked(t *testing.T) {
	in(t, nil, func(w *world) {
		w.sink.set(0, always(errAway))
		for n := range 50 {
			w.deliver(fmt.Sprint("k", n))
		}
		if w.sink.attempts > 5 {
			t.Errorf("%d attempts for 50 items after 3 failures", w.sink.attempts)
		}
		if err := w.Fault(); !errors.Is(err, errAway) {
			t.Errorf("fault %v", err)
		}
		before := w.sink.attempts
		w.relay(time.Minute)
		if n := w.sink.attempts - before; n < 20 || n > 90 {
			t.Errorf("the relay made %d attempts in a minute, want about one a second", n)
		}
		w.sink.set(0, nil)
		w.relay(time.Minute)
		if got := w.queued(); len(got) > 0 || len(w.sink.delivered) != 50 || w.Fault() != nil {
			t.Errorf("the inbox has %q, %d are delivered, fault %v", got, len(w.sink.delivered), w.Fault())
		}
	})
}

func TestRefusedItemIsADeadLetterAndDelaysNoOther(t *testing.T) {
	in(t, nil, func(w *world) {
		w.sink.set(0, always(errAway))
		for _, key := range []string{"a", "never", "b"} {
			w.deliver(key)
		}
		w.sink.set(0, func(i item) error {
			if i.Key == "never" {
				return errNever
			}
			return nil
		})
		w.relay(10 * time.Second)
		w.expect([]string{"a", "b"}, []string{"never: no such customer"})
		if w.Fault() != nil {
			t.Errorf("a refusal counts as a fault: %v", w.Fault())
		}
	})
}

func TestWaitingItemStaysAndOthersPass(t *testing.T) {
	in(t, nil, func(w *world) {
		w.sink.set(0, func(i item) error {
			if i.Key == "later" {
				return errWait
			}
			return nil
		})
		for _, key := range []string{"later", "a", "b", "c", "d"} {
			w.deliver(key)
		}
		w.relay(30 * time.Second)
		w.expect([]string{"a", "b", "c", "d"}, []string{"later"})
		w.rested(30)
		if w.Fault() != nil {
			t.Errorf("fault %v", w.Fault())
		}
		w.sink.set(0, nil)
		w.relay(30 * time.Second)
		w.expect([]string{"a", "b", "c", "d", "later"}, nil)
	})
}

// If an item's deliveries fail while others succeed, it doesn't keep the only place in flight.
func TestItemFailingAloneDelaysNoOther(t *testing.T) {
	in(t, func(o *delivery.Options[item]) { o.MinInFlight, o.MaxInFlight, o.MaxFailures = 1, 1, 1000 }, func(w *world) {
		w.sink.set(0, always(errAway))
		w.deliver("poison")
		for n := range 5 {
			w.deliver(fmt.Sprint("k", n))
		}
		w.sink.set(0, func(i item) error {
			if i.Key == "poison" {
				return errAway
			}
			return nil
		})
		w.relay(10 * time.Second)
		w.expect([]string{"k0", "k1", "k2", "k3", "k4"}, []string{"poison"})
		w.rested(40)
	})
}

func TestItemsOfOneKeyShareADelivery(t *testing.T) {
	full := errors.New("no space left on device")
	for n, join := range []bool{true, true, false} {
		in(t, func(o *delivery.Options[item]) { o.Join = join }, func(w *world) {
			w.sink.set(100*time.Millisecond, nil)
			if n == 1 { // all wait for the sink
				w.disk.err = full
				w.sink.set(700*time.Millisecond, nil)
			}
			var all sync.WaitGroup
			var joined [3]bool
			for n := range joined {
				all.Go(func() {
					time.Sleep(time.Duration(n) * time.Millisecond)
					joined[n] = w.deliver("a").Joined
				})
			}
			all.Wait()
			attempts, want := 3, [3]bool{}
			if join {
				attempts, want = 1, [3]bool{false, true, true}
			}
			if w.sink.attempts != attempts || joined != want {
				t.Errorf("case %d: %d attempts, joined %v", n, w.sink.attempts, joined)
			}
		})
	}
}

func TestFailingDiskLeavesTheSink(t *testing.T) {
	in(t, nil, func(w *world) {
		full := errors.New("no space left on device")
		w.disk.err = full
		w.sink.set(700*time.Millisecond, nil) // longer than a sender waits if there is a disk
		if r := w.deliver("a"); r.Outcome != "started" {
			t.Errorf("result %+v", r)
		}
		w.sink.set(0, always(errAway))
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Deliver(ctx, item{Key: "b"}); !errors.Is(err, full) || !errors.Is(err, errAway) {
			t.Errorf("error %v, want the disk's and the sink's", err)
		}
		w.expect([]string{"a"}, nil)
	})
}

// The inbox must not be closed before the attempts to store an item have ended.
func TestWaitOutlastsAHangingDisk(t *testing.T) {
	in(t, nil, func(w *world) {
		w.disk.hangs = true
		w.sink.set(2*time.Second, nil)
		if r := w.deliver("a"); r.Outcome != "started" {
			t.Errorf("result %+v", r)
		}
		w.sink.set(2*time.Second, always(errAway))
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if r, err := w.Deliver(ctx, item{Key: "b"}); err == nil {
			t.Errorf("result %+v", r)
		}
		w.Wait()
		if n := w.disk.puts.Load(); n != 2 {
			t.Errorf("%d of 2 attempts to store an item have ended", n)
		}
		w.expect([]string{"a"}, nil)
	})
}

func TestHangingDeliveryDelaysNoSender(t *testing.T) {
	in(t, nil, func(w *world) {
		w.sink.set(time.Hour, nil)
		for n := range 40 {
			began := time.Now()
			w.deliver(fmt.Sprint("k", n))
			if took := time.Since(began); took > 400*time.Millisecond || n > 0 && took > 50*time.Millisecond {
				t.Errorf("sender %d waited for %v", n, took)
			}
		}
		if w.sink.most > 8 {
			t.Errorf("%d deliveries in flight", w.sink.most)
		}
	})
}

func TestItemsInFlightAreBoundedByMemory(t *testing.T) {
	in(t, func(o *delivery.Options[item]) { o.Size = func(item) int { return 10 << 20 } }, func(w *world) {
		w.sink.set(200*time.Millisecond, nil)
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() { w.deliver(fmt.Sprint("k", n)) })
		}
		all.Wait()
		w.relay(10 * time.Second)
		if w.sink.most != 1 {
			t.Errorf("%d items of 10 MiB in flight", w.sink.most)
		}
		if got := w.queued(); len(got) > 0 || len(w.sink.delivered) != 4 {
			t.Errorf("the inbox has %q, the sink %q", got, w.sink.delivered)
		}
	})
}

func TestItemContradictingAQueuedOneIsReported(t *testing.T) {
	var reported []string
	fail := error(nil)
	contradicted := func(o *delivery.Options[item]) {
		o.Contradicted = func(_ context.Context, kept, other item) error {
			reported = append(reported, kept.Text+" "+other.Text)
			return fail
		}
	}
	in(t, contradicted, func(w *world) {
		w.sink.set(0, always(errAway))
		for _, text := range []string{"first", "first", "second"} {
			if _, err := w.Deliver(w.t.Context(), item{"a", text}); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(reported, []string{"first second"}) {
			t.Errorf("reported %q", reported)
		}
		fail = errors.New("not stored")
		if _, err := w.Deliver(w.t.Context(), item{"a", "third"}); !errors.Is(err, fail) {
			t.Errorf("a contradiction that is not stored was acknowledged: %v", err)
		}
	})
}
