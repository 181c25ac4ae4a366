package eventsink_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

var quiet = slog.New(slog.DiscardHandler)

var (
	errGone    = errors.New("connection refused")
	errContent = errors.New("value too long")
)

// fakeLedger is a ledger that answers with a function and keeps the stored events.
type fakeLedger struct {
	mu     sync.Mutex
	taken  []ledger.Event
	sizes  []int // of all transactions, in order
	answer func(usage []ledger.Event) error
}

func (b *fakeLedger) Record(ctx context.Context, usage []ledger.Event) error {
	b.mu.Lock()
	answer := b.answer
	b.sizes = append(b.sizes, len(usage))
	b.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- answer(usage) }()
	select {
	case err := <-done:
		if err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.taken = append(b.taken, usage...)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Probe returns the answer to an event of stay "probe".
func (b *fakeLedger) Probe(ctx context.Context) error {
	b.mu.Lock()
	answer := b.answer
	b.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- answer([]ledger.Event{{Stay: "probe"}}) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// set changes the answer.
func (b *fakeLedger) set(answer func([]ledger.Event) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// stays returns the stays of the stored events, in order.
func (b *fakeLedger) stays() (stays []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.taken {
		stays = append(stays, u.Stay)
	}
	return stays
}

func (b *fakeLedger) transactions() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.sizes)
}

func always(err error) func([]ledger.Event) error { return func([]ledger.Event) error { return err } }

// hangUntil returns an answer that hangs until release is closed.
func hangUntil(release <-chan struct{}) func([]ledger.Event) error {
	return func([]ledger.Event) error { <-release; return nil }
}

func newInbox(t *testing.T) *inbox.Inbox {
	t.Helper()
	b, err := inbox.Open(t.Context(), t.TempDir(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func newDelivery(t *testing.T, l eventsink.Store, b delivery.Inbox) *events {
	t.Helper()
	c := unwaited(l, b, 10*time.Second)
	t.Cleanup(c.Wait)
	return c
}

// unwaited is newDelivery without a wait at the end of the test, for a ledger that hangs
// until then.
func unwaited(l eventsink.Store, b delivery.Inbox, timeout time.Duration) *events {
	return &events{eventsink.NewForTest(l, b, func(err error) bool { return errors.Is(err, errContent) }, timeout)}
}

// events delivers the events of callbacks.
type events struct {
	*delivery.Delivery[ledger.Event]
}

func (e *events) Collect(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	u, _ := ledger.EventOf(event, time.Now())
	r, err := e.Deliver(ctx, u)
	if err != nil {
		return webhook.Receipt{}, err
	}
	return webhook.Receipt{Status: webhook.Status(cmp.Or(r.Outcome, "queued"))}, nil
}

func (e *events) Takes() bool { return e.Fault() == nil }

// relay runs the relay until the test ends, or until it is stopped.
func relay(t *testing.T, c *events) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Relay(ctx) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func logout(stay int) *zego.RoomLogout {
	return &zego.RoomLogout{RoomLogin: zego.RoomLogin{
		Common: zego.Common{AppID: 1, Event: zego.EventRoomLogout}, RoomID: "lobby", RoomSessionID: 858012925204410417,
		UserAccount: "u", SessionID: fmt.Sprint(stay), LoginTime: time.UnixMilli(1000).UTC(),
	}, LogoutTime: time.UnixMilli(2000).UTC()}
}

func collected(t *testing.T, c *events, event zego.Event) webhook.Status {
	t.Helper()
	receipt, err := c.Collect(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Status
}

func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func put(t *testing.T, b *inbox.Inbox, key, body string) error {
	t.Helper()
	_, err := b.Put(t.Context(), inbox.Entry{Key: key, Body: []byte(body)})
	return err
}

func stats(t *testing.T, b *inbox.Inbox) (waiting, deadLetter int64) {
	t.Helper()
	s, err := b.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Waiting, s.DeadLetters
}

// full is an inbox whose disk is full.
type full struct{ delivery.Inbox }

func (full) Put(context.Context, inbox.Entry) ([]byte, error) {
	return nil, errors.New("no space left on device")
}

func TestEventIsStoredOrQueuedOrNotAcknowledged(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	tests := []struct {
		name     string
		ledger   func([]ledger.Event) error
		full     bool
		want     webhook.Status // empty with an error
		waiting  int64
		contains string
	}{
		{"the ledger takes it", always(nil), false, webhook.Stored, 0, ""},
		{"the ledger is down", always(errGone), false, webhook.Queued, 1, ""},
		{"the ledger hangs", hangUntil(never), false, webhook.Queued, 1, ""},
		{"the ledger refuses it", always(errContent), false, webhook.Queued, 1, ""},
		{"the disk is full", always(nil), true, webhook.Stored, 0, ""},
		{"the ledger is down and the disk is full", always(errGone), true, "", 0, "no space left on device"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newInbox(t)
			var box delivery.Inbox = b
			if test.full {
				box = full{b}
			}
			// Don't wait for the hanging ledger at the end of the test.
			c := unwaited(&fakeLedger{answer: test.ledger}, box, 10*time.Second)
			receipt, err := c.Collect(t.Context(), logout(1))
			if receipt.Status != test.want || (err != nil) != (test.want == "") {
				t.Errorf("got %+v, error %v, want %q", receipt, err, test.want)
			}
			if err != nil && (!strings.Contains(err.Error(), test.contains) || !errors.Is(err, errGone)) {
				t.Errorf("the error %q doesn't name both faults", err)
			}
			if waiting, dead := stats(t, b); waiting != test.waiting || dead != 0 {
				t.Errorf("%d wait in the inbox, %d are dead letters, want %d and none", waiting, dead, test.waiting)
			}
		})
	}
}

// hanging is an inbox on a disk that never answers.
type hanging struct{ *inbox.Inbox }

func (hanging) Put(ctx context.Context, _ inbox.Entry) ([]byte, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// A hanging disk keeps no event from a ledger that has recovered. If both hang, callers
// return when their contexts end.
func TestHangingDiskLeavesTheLedger(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	l := &fakeLedger{answer: always(errGone)}
	c := newDelivery(t, l, hanging{newInbox(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if got, err := c.Collect(ctx, logout(1)); err == nil || c.Takes() {
		t.Errorf("with both down: %+v, %v", got, err)
	}
	l.set(always(nil))
	if got := collected(t, c, logout(2)); got != webhook.Stored {
		t.Errorf("with the ledger back: %q", got)
	}
	l.set(hangUntil(never))
	ctx, cancel = context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if got, err := c.Collect(ctx, logout(3)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with both hanging: %+v, %v", got, err)
	}
}

func TestLedgerIsRetriedWithoutADisk(t *testing.T) {
	l := &fakeLedger{answer: always(errGone)}
	c := newDelivery(t, l, full{newInbox(t)})
	if _, err := c.Collect(t.Context(), logout(1)); err == nil {
		t.Fatal("acknowledged, but not stored")
	}
	l.set(always(nil))
	for n := range 3 {
		if got := collected(t, c, logout(n)); got != webhook.Stored {
			t.Errorf("callback %d is %q", n, got)
		}
	}
}

func TestCallersShareATransaction(t *testing.T) {
	release := make(chan struct{})
	l := &fakeLedger{answer: hangUntil(release)}
	c := newDelivery(t, l, newInbox(t))
	const callers = 200
	var group sync.WaitGroup
	group.Go(func() { _, _ = c.Collect(t.Context(), logout(0)) })
	wait(t, "the first is under way", func() bool { return len(l.transactions()) == 1 })
	statuses := make([]webhook.Status, callers)
	for n := range callers {
		group.Go(func() { statuses[n] = collected(t, c, logout(n+1)) })
	}
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	group.Wait()
	for n, s := range statuses {
		if s != webhook.Stored && s != webhook.Queued { // queued if the machine is too slow
			t.Errorf("callback %d is %q", n, s)
		}
	}
	if n := len(l.transactions()); n > callers/4 {
		t.Errorf("%d transactions for %d callers", n, callers)
	}
}

func TestNoCallerWaitsWhileTheLedgerIsDown(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for name, answer := range map[string]func([]ledger.Event) error{"it fails": always(errGone), "it hangs": hangUntil(never)} {
		t.Run(name, func(t *testing.T) {
			l := &fakeLedger{answer: answer}
			b := newInbox(t)
			c := unwaited(l, b, 10*time.Second)
			for n := range 20 {
				if got := collected(t, c, logout(n)); got != webhook.Queued {
					t.Errorf("callback %d is %q", n, got)
				}
			}
			if asked := l.transactions(); len(asked) != 1 {
				t.Errorf("the ledger was asked %d times", len(asked))
			}
			wait(t, "it reports that it accepts nothing", func() bool { return !c.Takes() })
			if waiting, _ := stats(t, b); waiting != 20 {
				t.Errorf("%d wait in the inbox", waiting)
			}
		})
	}
}

func TestQueuedEventsAreStoredInOrder(t *testing.T) {
	l, b := &fakeLedger{answer: always(errGone)}, newInbox(t)
	c := newDelivery(t, l, b)
	relay(t, c)
	var want []string
	for n := range 520 { // more than a page
		if got := collected(t, c, logout(n)); got != webhook.Queued {
			t.Fatalf("callback %d is %q", n, got)
		}
		want = append(want, fmt.Sprint(n))
	}
	l.set(always(nil))
	wait(t, "the inbox is empty", func() bool { waiting, dead := stats(t, b); return waiting+dead == 0 })
	got := l.stays()
	if len(got) != len(want) {
		t.Errorf("stored %d callbacks, want %d", len(got), len(want))
	}
	for place, stay := range got {
		// The attempt that finds the ledger back may overtake a few others.
		if n, err := strconv.Atoi(stay); err != nil || n < place-20 || n > place+20 {
			t.Errorf("%s is stored as number %d", stay, place)
		}
	}
	if got := collected(t, c, logout(5000)); got != webhook.Stored {
		t.Errorf("afterwards one is %q", got)
	}
}

// forgetful is an inbox that fails to remove entries, as if the process had been killed
// after the commit.
type forgetful struct {
	*inbox.Inbox
	broken atomic.Bool
}

func (f *forgetful) Remove(ctx context.Context, keys ...string) error {
	if f.broken.Load() {
		return errors.New("killed")
	}
	return f.Inbox.Remove(ctx, keys...)
}

func TestEventLeftInTheInboxIsStoredAgain(t *testing.T) {
	l := &fakeLedger{answer: always(errGone)}
	b := &forgetful{Inbox: newInbox(t)}
	b.broken.Store(true)
	c := newDelivery(t, l, b)
	for n := range 3 {
		collected(t, c, logout(n))
	}
	l.set(always(nil))
	relay(t, c)
	wait(t, "it is stored, and stored again", func() bool { return len(l.stays()) >= 6 })
	if waiting, _ := stats(t, b.Inbox); waiting != 3 {
		t.Errorf("%d wait", waiting)
	}
	b.broken.Store(false)
	wait(t, "the inbox is empty", func() bool { waiting, _ := stats(t, b.Inbox); return waiting == 0 })
}

func TestEventRefusedByTheLedgerIsADeadLetter(t *testing.T) {
	var mended atomic.Bool
	l, b := &fakeLedger{answer: always(errGone)}, newInbox(t)
	bad := map[string]bool{"0": true, "77": true, "78": true, "999": true}
	c := newDelivery(t, l, b)
	var group sync.WaitGroup
	for n := range 1000 {
		group.Go(func() { collected(t, c, logout(n)) })
	}
	group.Wait()
	// An entry that can't be decoded doesn't delay the others.
	if err := put(t, b, "room_login-1-2-zz", "{"); err != nil {
		t.Fatal(err)
	}
	l.set(func(usage []ledger.Event) error {
		for _, u := range usage {
			if bad[u.Stay] && !mended.Load() {
				return fmt.Errorf("stay %s: %w", u.Stay, errContent)
			}
		}
		return nil
	})
	relay(t, c)
	wait(t, "five are dead letters and nothing waits", func() bool { waiting, dead := stats(t, b); return waiting == 0 && dead == 5 })
	if got := len(l.stays()); got != 996 {
		t.Errorf("%d are stored, want all others", got)
	}
	e, err := b.Get(t.Context(), keyOf(logout(77)))
	if err != nil || !strings.Contains(e.Reason, "stay 77: value too long") {
		t.Errorf("entry %+v, error %v", e, err)
	}
	mended.Store(true)
	if err := b.Retry(t.Context(), e.Key); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is stored", func() bool { return slices.Contains(l.stays(), "77") })
}

func keyOf(event zego.Event) string {
	usage, _ := ledger.EventOf(event, time.Now())
	return eventsink.Key(usage)
}

func TestRepeatIsStoredOnceAndContradictionIsKept(t *testing.T) {
	first := logout(1)
	again := *first
	again.Timestamp, again.Nonce, again.Signature = 5, "other", "other" // ZEGO's retry
	other := *first
	other.LogoutTime = other.LogoutTime.Add(time.Millisecond)
	user := *first
	user.UserAccount = "v"
	if keyOf(first) != keyOf(&again) {
		t.Error("a repeat has a key of its own")
	}
	keys := []string{keyOf(first), keyOf(&other), keyOf(&user), keyOf(&first.RoomLogin), keyOf(logout(2))}
	slices.Sort(keys)
	if len(slices.Compact(keys)) != 5 {
		t.Errorf("some have the same key: %v", keys)
	}
	event, id, err := eventsink.ParseKey(keyOf(first))
	if err != nil || event != zego.EventRoomLogout || id != (session.ID{AppID: 1, RoomSessionID: first.RoomSessionID}) {
		t.Errorf("parsed %s %v, error %v", event, id, err)
	}
	for _, bad := range []string{"", "room-close-1-2", "room_login-1-2", "room_login-x-2-ab", "room_login-1-x-ab"} {
		if _, _, err := eventsink.ParseKey(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

// During a burst the ledger is slow, fails, hangs and recovers. In the end it has all
// acknowledged events, and every transaction was bounded.
func TestNothingAcknowledgedIsLostInABurst(t *testing.T) {
	const callbacks, senders = 10_000, 3000
	var calls atomic.Int64
	l, b := &fakeLedger{answer: func([]ledger.Event) error {
		switch n := calls.Add(1); {
		case n%7 == 0:
			return errGone
		case n%11 == 0:
			time.Sleep(400 * time.Millisecond) // longer than any sender waits
		}
		return nil
	}}, newInbox(t)
	c := newDelivery(t, l, b)
	relay(t, c)
	var next, queued atomic.Int64
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			for n := next.Add(1); n <= callbacks; n = next.Add(1) {
				receipt, err := c.Collect(t.Context(), logout(int(n)))
				if err != nil {
					t.Errorf("callback %d: %v", n, err)
				} else if receipt.Status == webhook.Queued {
					queued.Add(1)
				}
			}
		})
	}
	group.Wait()
	wait(t, "the inbox is empty", func() bool { waiting, _ := stats(t, b); return waiting == 0 })
	c.Wait()
	stays := l.stays()
	slices.Sort(stays)
	if got := len(slices.Compact(stays)); got != callbacks {
		t.Errorf("%d of %d are in the ledger", got, callbacks)
	}
	if most := slices.Max(l.transactions()); most > 1000 {
		t.Errorf("a transaction of %d", most)
	}
	if queued.Load() == 0 {
		t.Error("no callback was queued")
	}
}

// The relay ends with its context, even if the ledger never recovers.
func TestRelayStops(t *testing.T) {
	c := newDelivery(t, &fakeLedger{answer: always(errGone)}, newInbox(t))
	stop := relay(t, c)
	collected(t, c, logout(1))
	stop()
}

// An event that takes too long is separated from the others and becomes a dead letter. If
// the ledger is slow for all events, none becomes one.
func TestEventThatTimesOutAloneIsADeadLetter(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	poison := func(usage []ledger.Event) error {
		for _, u := range usage {
			if u.Stay == "3" || u.Stay == "4" {
				<-release
			}
		}
		return nil
	}
	b, box := &fakeLedger{answer: always(errGone)}, newInbox(t)
	c := unwaited(b, box, 50*time.Millisecond)
	for n := range 8 {
		collected(t, c, logout(n))
	}
	b.set(hangUntil(release)) // slow for all
	stop := relay(t, c)
	transactions := len(b.transactions())
	wait(t, "it tried for a while", func() bool { return len(b.transactions()) > transactions+8 })
	stop()
	if waiting, dead := stats(t, box); waiting != 8 || dead != 0 {
		t.Fatalf("while the ledger is slow %d wait and %d are dead letters, want 8 and 0", waiting, dead)
	}
	b.set(poison)
	relay(t, c)
	wait(t, "the others are stored, and the two are dead letters", func() bool {
		waiting, dead := stats(t, box)
		return waiting == 0 && dead == 2
	})
	stays := b.stays()
	slices.Sort(stays)
	if !slices.Equal(stays, []string{"0", "1", "2", "5", "6", "7"}) {
		t.Errorf("stored %v", stays)
	}
	for e, err := range box.DeadLetters(t.Context()) {
		if err != nil || !strings.Contains(e.Reason, "timed out alone 2 times while the ledger stored others") {
			t.Errorf("%s: %s, %v", e.Key, e.Reason, err)
		}
	}
	if !c.Takes() {
		t.Error("the ledger accepts events, but Takes is false")
	}
}

// The rows that events write bound their number in a transaction.
func TestRowsBoundATransaction(t *testing.T) {
	b, box := &fakeLedger{answer: always(errGone)}, newInbox(t)
	c := newDelivery(t, b, box)
	const files, callbacks = 4000, 7
	for n := range callbacks {
		r := &zego.Recording{Common: zego.Common{AppID: 1}, RoomID: "r", TaskID: strconv.Itoa(n), EventType: zego.RecordingUploaded, Files: make([]zego.RecordedFile, files)}
		collected(t, c, r)
	}
	b.set(always(nil))
	before := len(b.transactions())
	relay(t, c)
	wait(t, "all are stored", func() bool { waiting, _ := stats(t, box); return waiting == 0 })
	for _, size := range b.transactions()[before:] {
		if size > 2 {
			t.Errorf("%d callbacks of %d files in one transaction", size, files)
		}
	}
}
