package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

const (
	app    = 1234
	secret = "secret"
	// otherSecret is the secret of app + 1.
	otherSecret = "other secret"
	// settling is CLOSEOUT_SETTLING.
	settling = 90 * time.Second
	// patience is how long ZEGO waits for an answer. The real value isn't known; this one
	// is long.
	patience = 5 * time.Second
	// maxAnswer is the longest time until an answer, even if everything hangs.
	maxAnswer = webhook.AnswerWithin + 50*time.Millisecond
	// window is CLOSEOUT_CALLBACK_WINDOW.
	window = 10 * time.Minute
	// maxStarts bounds the starts in flight.
	maxStarts = 200
	// mended is the time between the repair of a sink and an operator's retry of dead letters.
	mended = 15 * time.Second
	// idle is the longest time that an entry may wait while its sink accepts.
	idle = time.Minute
)

// maxMemoryOfSeed is the memory in bytes from which on garbage is collected within a seed. Usual
// seeds take a tenth of it.
const maxMemoryOfSeed = 2 << 30

// ladder holds ZEGO's pauses before each attempt, from the end of the previous one.
var ladder = append([]time.Duration{0}, send.Ladder[:]...)

// boxes are the folders of the inboxes.
var boxes = []string{"data/inbox/" + inbox.Folder, "data/events/" + inbox.Folder}

// outcome is the result of a history.
type outcome struct {
	failure string // the first broken guarantee, or empty
	lines   []string
	hash    uint64 // of all events and their times, and of the runtime's choices with a seed
	path    uint64 // of all events and their order
	ops     []int  // file operations of each process
	took    time.Duration
	// bills and adjustments are their numbers in the ledger at the end. overdue is the number
	// of sessions that were closed out without a room_close.
	bills, adjustments, overdue int
	decisions                   int            // about blocked steps
	answers                     map[string]int // answers and how often each was given
}

// play plays a history.
func play(t *testing.T, h history, verbose bool) (o outcome) {
	debug.SetGCPercent(-1) // it influences which goroutine runs next
	debug.SetMemoryLimit(maxMemoryOfSeed)
	if played++; played%20 == 0 {
		runtime.GC()
	}
	dir := ""
	if h.toTheBill() {
		dir = tempDir(t)
		if _, err := emptyLedger(); err != nil { // once, outside of a history
			t.Fatal(err)
		}
	}
	var w *world
	defer func() {
		switch fault := recover(); {
		case fault == nil:
		case !strings.HasPrefix(fmt.Sprint(fault), "deadlock: "):
			panic(fault)
		case !w.ends || !strings.Contains(fmt.Sprint(fault), "main bubble goroutine has exited"):
			w.broken("goroutines wait for each other: %v", fault)
			o = w.outcome
		}
	}()
	synctest.Test(t, func(*testing.T) {
		end := seedRuntime(t, h.seed)
		w = newWorld(h, verbose)
		if h.toTheBill() {
			w.worker = newWorker(w, dir)
			w.books.store = w.worker
		}
		w.play()
		if w.worker != nil {
			w.worker.finish(dir)
		}
		o = w.outcome
		o.took = time.Since(w.began)
		o.hash ^= end()
	})
	return o
}

var played int

// world is Closeout and its peers.
type world struct {
	history
	outcome
	verbose  bool
	began    time.Time
	temporal *temporal
	books    *books
	refused  map[string]bool // by key
	mendedAt time.Duration   // from then on, nothing is refused; 0 means never
	offered  map[string]bool
	limits   limits
	keyring  *zego.Keyring
	worker   *worker // nil unless the history bills

	mu        sync.Mutex
	mem       *vfs.MemFS
	process   *process // nil between two processes
	acked     map[string]bool
	starters  map[string]bool          // keys of callbacks that were answered "started"
	retried   map[string]bool          // dead letters that wait again
	began1st  map[string]time.Duration // first attempts, by key
	overdueAt map[string]time.Duration // when Temporal lacked search attributes for an overdue start, by Workflow ID
	closes    map[string][2]bool       // which room_close callbacks a process acknowledged, by key and process: without and with other times
	disputed  map[string]bool          // contradictions that must be reported, by contradictionOf
	forged    map[string][]taken       // by signature
	ends      bool                     // a process ended itself
	callbacks sync.WaitGroup
	shutdowns sync.WaitGroup
}

// taken is a body that came with a signature.
type taken struct {
	genuine           bool
	process           int
	began, over       time.Duration // over is 0 while the request is in flight
	accepted, refused bool
}

func newWorld(h history, verbose bool) *world {
	w := &world{history: h, verbose: verbose, began: time.Now(), refused: map[string]bool{}, offered: map[string]bool{},
		acked: map[string]bool{}, starters: map[string]bool{}, retried: map[string]bool{}, began1st: map[string]time.Duration{}, overdueAt: map[string]time.Duration{},
		closes: map[string][2]bool{}, disputed: map[string]bool{}, forged: map[string][]taken{}, mem: vfs.NewCrashableMem()}
	w.limits = h.limit()
	w.answers = map[string]int{}
	w.temporal = &temporal{w: w, runs: map[string][]*execution{}, calls: map[string]int{}}
	w.books = &books{w: w, stored: map[string]int{}}
	var err error
	if w.keyring, err = zego.NewKeyring(map[uint32][]string{app: {secret}, app + 1: {otherSecret}}, window, time.Now); err != nil {
		panic(err)
	}
	for _, a := range h.actions {
		if a.kind == callback {
			key := w.keyOf(a)
			w.offered[key] = true
			w.refused[key] = w.refused[key] || a.refused
			if a.event == zego.EventRoomClose && a.contradicts {
				w.offered[w.contradictionOf(a)] = true
			}
		}
		if a.kind == retry {
			w.mendedAt = a.at - mended
		}
	}
	return w
}

// play performs the actions, restarts crashed processes, and checks the result.
func (w *world) play() {
	p := w.start(0)
	for _, a := range w.actions {
		if a.kind == callback {
			for copy := range a.copies {
				w.callbacks.Go(func() { w.deliver(a, copy) })
			}
		}
		if a.kind == forgery {
			w.callbacks.Go(func() { time.Sleep(a.at); w.attempt(a, 0, 0) })
		}
		if a.kind == retry {
			w.callbacks.Go(func() { time.Sleep(a.at); w.retryDeadLetters() })
		}
	}
	done := make(chan struct{})
	go func() { w.callbacks.Wait(); close(done) }()
	// These crashes and restarts happen at a given time. The disk starts the other crashes.
	ends := slices.DeleteFunc(slices.Clone(w.actions), func(a action) bool {
		return a.kind != restart && (a.kind != crash || a.op > 0 || a.acks != 0)
	})
	end := time.After(w.end())
	for running := true; running; {
		var next <-chan time.Time
		if len(ends) > 0 {
			next = time.After(time.Until(w.began.Add(ends[0].at)))
		}
		select {
		case <-next:
			a := ends[0]
			ends = ends[1:]
			if a.kind == crash {
				p.kill(a)
				continue
			}
			p.stop()
			if p.dead.Load() {
				continue // it crashed before it was ready
			}
			w.note(p, "restart", "", "", "")
			w.away(a.lasts)
			p = w.start(p.number + 1)
		case a := <-p.crashed:
			w.shutdowns.Go(p.stop)
			w.away(a.lasts)
			p = w.start(p.number + 1)
		case <-done:
			done = nil
		case <-end:
			end = nil
		}
		running = done != nil || end != nil || len(ends) > 0 || p.dead.Load()
	}
	for !w.settle(p) { // it crashed after an operation of the last seconds
		a := <-p.crashed
		w.shutdowns.Go(p.stop)
		w.away(a.lasts)
		p = w.start(p.number + 1)
	}
	p.stop()
	w.shutdowns.Wait()
	if p.dead.Load() {
		return
	}
	for _, load := range []func() (int, int){p.closes.Delivery.Load, p.events.Delivery.Load} {
		if _, held := load(); held > 0 {
			w.failf("%d permits are held although nothing is in flight", held)
		}
	}
	for _, d := range []any{p.closes.Delivery, p.events.Delivery} {
		memory := (*semaphore.Weighted)(reflect.ValueOf(d).Elem().FieldByName("memory").UnsafePointer())
		if !memory.TryAcquire(w.limits.memory) {
			w.failf("memory of items is held although nothing is in flight")
		}
	}
}

// away lets time pass without a process.
func (w *world) away(d time.Duration) {
	w.mu.Lock()
	w.process = nil
	w.mu.Unlock()
	time.Sleep(d)
}

// fault returns a peer's answer to a call now, or "" if the peer works.
func (w *world) fault(call, window kind, is func(action) bool) string {
	for _, a := range w.actions {
		if a.kind == call && is(a) || a.kind == window && w.isNow(a) {
			return a.answer
		}
	}
	return ""
}

// failf records a broken guarantee.
func (w *world) failf(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf("after %v: ", time.Since(w.began)) + fmt.Sprintf(format, args...)
		w.lines = append(w.lines, w.failure)
	}
}

// note records an event.
func (w *world) note(p *process, who, did, what, answer string) {
	number := -1
	if p != nil {
		number = p.number
		if p.dead.Load() && who != "crash" {
			return // nobody receives the answer
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[strings.TrimSpace(who+" "+answer)]++
	line := fmt.Sprintf("process %d: %s %s %s: %s", number, who, did, what, answer)
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%d %s", w.path, line)
	w.path = sum.Sum64()
	line = fmt.Sprintf("%12v %s", time.Since(w.began), line)
	fmt.Fprintf(sum, "%d %s", w.hash, line)
	w.hash = sum.Sum64()
	if w.verbose {
		w.lines = append(w.lines, line)
	}
}

// process is one life of the webhook.
type process struct {
	w       *world
	number  int
	disk    *disk
	boxes   [2]*inbox.Inbox
	closes  *starter.Receiver
	events  *eventsink.Receiver
	handler http.Handler

	// posting counts the attempts in flight by key. tried has the Workflow IDs of all starts.
	posting map[string]int
	tried   map[string]bool
	acks    int // acknowledgments

	dead    atomic.Bool
	failed  atomic.Bool   // a write or a sync has failed
	ended   chan struct{} // closed when it has ended
	crashed chan action   // receives the crash
	ctx     context.Context
	cancel  context.CancelFunc
	relays  sync.WaitGroup
	serving sync.WaitGroup
	once    sync.Once
}

// start starts a process on the current disk. The process may be dead when start returns.
func (w *world) start(number int) *process {
	p := &process{w: w, number: number, posting: map[string]int{}, tried: map[string]bool{}, ended: make(chan struct{}), crashed: make(chan action, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.disk = newDisk(w.mem)
	p.disk.full = func() bool { return !p.dead.Load() && w.during(diskFull) }
	p.disk.slow = func(op int) time.Duration {
		if p.dead.Load() || !w.during(diskSlow) {
			return 0
		}
		if w.fault("", diskSlow, nil) == hangs { // for longer than a callback waits
			return between(w.chance("sync", number, op), webhook.AnswerWithin, 2400*time.Millisecond)
		}
		return between(w.chance("sync", number, op), time.Millisecond, time.Second)
	}
	var mu sync.Mutex
	failed := map[int]bool{} // by index of the action
	p.disk.fails = func(op int, what string) error {
		mu.Lock()
		defer mu.Unlock()
		now := time.Since(w.began)
		for i, a := range w.actions {
			switch {
			case a.kind != diskFails || p.dead.Load() || !strings.Contains(a.answer, what):
			case a.op == 0 && a.at <= now && now < a.at+a.lasts:
				p.failed.Store(true)
				return syscall.EIO
			case a.op > 0 && a.process == number && op >= a.op && !failed[i]:
				failed[i] = true
				p.failed.Store(true)
				return syscall.EIO
			}
		}
		return nil
	}
	p.disk.ends = p.end
	p.disk.changed = func(op int) {
		for _, a := range w.actions {
			if a.kind == crash && a.op > 0 && a.process == number && a.op == op {
				p.kill(a)
			}
		}
	}
	log := w.log(p)
	for i, dir := range []string{"data/inbox", "data/events"} {
		box, err := inbox.OpenFS(p.ctx, p.disk, dir, log)
		if err != nil && !p.dead.Load() {
			w.failf("process %d: %v", number, err)
		}
		if p.boxes[i] = box; box == nil {
			return p
		}
	}
	s := starter.New(starter.Options{Temporal: temporalOf{p}, TaskQueue: "closeout", Settling: settling, Log: log})
	p.closes = starter.NewReceiver(s, p.boxes[0], nil)
	p.events = &eventsink.Receiver{Delivery: eventsink.New(booksOf{p}, p.boxes[1], log, nil), MaxRoomLife: 24 * time.Hour, Log: log}
	s.Contradicted = p.events.Contradicted
	p.handler = webhook.Router(webhook.Options{Keyring: w.keyring, Receiver: p, Log: log})
	if p.dead.Load() {
		return p
	}
	w.checkSafe(p)
	p.relays.Go(func() { p.closes.Delivery.Relay(p.ctx) })
	p.relays.Go(func() { p.events.Delivery.Relay(p.ctx) })
	w.mu.Lock()
	w.process = p
	w.mu.Unlock()
	return p
}

// Receive passes a callback to its receiver, as package service does.
func (p *process) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	if e, ok := event.(*zego.RoomClose); ok {
		return p.closes.Receive(ctx, e)
	}
	return p.events.Receive(ctx, event)
}

// kill ends the process at this moment, from any goroutine.
func (p *process) kill(a action) {
	if !p.dead.CompareAndSwap(false, true) {
		return
	}
	w := p.w
	op := p.disk.count()
	mem := p.disk.after(a.survives, op, w.history)
	w.note(p, "crash", fmt.Sprint(op), "", string(a.survives))
	w.mu.Lock()
	w.mem = mem
	if w.process == p {
		w.process = nil
	}
	w.countOps(p, op)
	w.mu.Unlock()
	close(p.ended)
	p.cancel()
	p.crashed <- a
}

// end ends the process as if it called exit.
func (p *process) end() {
	p.w.mu.Lock()
	p.w.ends = true
	p.w.mu.Unlock()
	chance := p.w.chance("ends", p.number)
	p.kill(action{kind: crash, survives: pick(chance, survivals), lasts: between(chance, 0, 4*time.Second)})
}

// stop stops the process, as a signal does. It also ends the remains of a crashed
// process.
func (p *process) stop() {
	p.once.Do(func() {
		p.w.mu.Lock()
		if p.w.process == p {
			p.w.process = nil
		}
		p.w.mu.Unlock()
		p.serving.Wait()
		p.cancel()
		p.relays.Wait()
		if p.closes != nil {
			p.closes.Wait()
			p.events.Delivery.Wait()
		}
		for _, box := range p.boxes {
			if box == nil {
				continue
			}
			err := box.Close()
			if err != nil && !p.dead.Load() && !p.failed.Load() {
				p.w.failf("close the inbox: %v", err)
			}
			if err != nil && p.failed.Load() { // its store may never close
				p.w.mu.Lock()
				p.w.ends = true
				p.w.mu.Unlock()
			}
		}
		p.w.mu.Lock()
		p.w.countOps(p, p.disk.count())
		p.w.mu.Unlock()
	})
}

// countOps records how many operations a process has made.
func (w *world) countOps(p *process, ops int) {
	for len(w.ops) <= p.number {
		w.ops = append(w.ops, 0)
	}
	if w.ops[p.number] == 0 {
		w.ops[p.number] = ops
	}
}

// wait waits for d and returns true. It returns false if ctx ends first or the process is dead
// already. If the process dies meanwhile, it returns sent, because a dying process may have
// sent its request.
func (p *process) wait(ctx context.Context, d time.Duration, sent bool) bool {
	if p.dead.Load() {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-p.ended:
		return sent
	}
}

func (p *process) gone(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return errDead
}

var errDead = errors.New("simulated: the process is dead")

func (p *process) note(who, did, what, answer string) { p.w.note(p, who, did, what, answer) }

// refuses reports whether a callback is refused now.
func (w *world) refuses(key string) bool {
	return w.refused[key] && (w.mendedAt == 0 || time.Since(w.began) < w.mendedAt)
}

// diskFaults reports whether the disk is ever at fault.
func (w *world) diskFaults() bool {
	return slices.ContainsFunc(w.actions, func(a action) bool { return a.kind == diskFull || a.kind == diskSlow || a.kind == diskFails })
}

func (w *world) during(k kind) bool {
	return w.fault("", k, nil) != "" || w.within(k)
}

func (w *world) within(k kind) bool {
	return slices.ContainsFunc(w.actions, func(a action) bool { return a.kind == k && w.isNow(a) })
}

// isNow reports whether an action has begun and is not over.
func (w *world) isNow(a action) bool {
	now := time.Since(w.began)
	return a.at <= now && now < a.at+a.lasts
}

// log returns the logger of a process. If w is verbose, warnings and errors are among the
// lines of the outcome.
func (w *world) log(p *process) *slog.Logger {
	if !w.verbose {
		return slog.New(dies{slog.DiscardHandler, p})
	}
	return slog.New(dies{slog.NewTextHandler(logWriter{p}, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}), p})
}

// dies is a [slog.Handler] that kills a process when it logs its own end.
type dies struct {
	slog.Handler
	p *process
}

// exit is a variable of package inbox.
//
//go:linkname exit github.com/closeouthq/closeout/internal/inbox.exit
var exit func(int)

// When the inbox calls exit, its process is dead already. The goroutines of its store wait
// forever.
func init() { exit = func(int) { runtime.Goexit() } }

// Enabled implements [slog.Handler].
func (d dies) Enabled(ctx context.Context, l slog.Level) bool {
	return l == slog.LevelError || d.Handler.Enabled(ctx, l)
}

// Handle implements [slog.Handler].
func (d dies) Handle(ctx context.Context, r slog.Record) error {
	var err error
	if d.Handler.Enabled(ctx, r.Level) {
		err = d.Handler.Handle(ctx, r)
	}
	if strings.HasPrefix(r.Message, "inbox disk failed, process ends") {
		d.p.end()
	}
	return err
}

type logWriter struct{ p *process }

func (l logWriter) Write(b []byte) (int, error) {
	l.p.w.mu.Lock()
	defer l.p.w.mu.Unlock()
	if !l.p.dead.Load() {
		l.p.w.lines = append(l.p.w.lines, fmt.Sprintf("%12v     log: %s", time.Since(l.p.w.began), bytes.TrimSpace(b)))
	}
	return len(b), nil
}

// firstSession is the room_session_id of the first session. A float64 can't hold it exactly.
const firstSession = 858012925204410417

func sessionOf(roomSessionID uint64) int { return int(roomSessionID - firstSession) }

// event returns the event of an action, without a signature. Sessions share rooms.
func (w *world) event(a action) zego.Event {
	room, number := fmt.Sprint("room-", a.session%2), uint64(firstSession+a.session)
	begin := w.began.Add(-time.Hour).Add(time.Duration(a.session) * time.Minute).UTC()
	c := zego.Common{Event: a.event, AppID: app}
	if a.otherApp {
		c.AppID++
	}
	stay := zego.RoomLogin{Common: c, RoomID: room, RoomSessionID: number, UserAccount: fmt.Sprint("user-", a.user), SessionID: fmt.Sprint(a.session, 100+a.user),
		LoginTime: begin.Add(time.Duration(a.user) * time.Minute), UserRole: "1"}
	if a.contradicts {
		stay.LoginTime, begin = stay.LoginTime.Add(20*time.Second), begin.Add(40*time.Second)
	}
	switch a.event {
	case zego.EventRoomCreate:
		return &zego.RoomCreate{Common: c, RoomID: room, RoomSessionID: number, RoomCreateTime: begin}
	case zego.EventRoomLogin:
		return &stay
	case zego.EventRoomLogout:
		return &zego.RoomLogout{RoomLogin: stay, LogoutTime: begin.Add(time.Duration(10+a.user) * time.Minute)}
	}
	return &zego.RoomClose{Common: c, RoomID: room, RoomSessionID: number, CloseReason: "1", RoomCloseTime: begin.Add(30 * time.Minute)}
}

// keyOf returns the key of an action's callback: the Workflow ID, or the content of the
// event. It does not use the product's own keys of events.
func (w *world) keyOf(a action) string {
	e := w.event(a)
	if c, ok := e.(*zego.RoomClose); ok {
		return session.Of(c).WorkflowID()
	}
	u, _ := ledger.EventOf(e, time.Time{})
	return factsOf(u)
}

func factsOf(e ledger.Event) string {
	other := ""
	if e.AppID != app {
		other = "of another app "
	}
	return fmt.Sprint(e.Event, " of session ", sessionOf(e.RoomSessionID), " ", other, e.Stay, " ", []int64{e.Create.UnixMilli(), e.Login.UnixMilli(), e.Logout.UnixMilli(), e.Close.UnixMilli()})
}

// contradictionOf returns the key of the events that report contradicting room_close
// callbacks of a session, without their times.
func (w *world) contradictionOf(a action) string {
	c := w.event(a).(*zego.RoomClose)
	return withoutTimes(factsOf(ledger.Event{Event: c.Event, ID: session.ID{AppID: c.AppID, RoomSessionID: c.RoomSessionID}}))
}

func withoutTimes(key string) string {
	facts, _, _ := strings.Cut(key, " [")
	return facts
}

// deliver sends a callback as ZEGO does, until it is acknowledged.
func (w *world) deliver(a action, copy int) {
	time.Sleep(a.at + time.Duration(copy)) // in a fixed order
	for n, pause := range ladder {
		if n > 0 {
			pause += between(w.chance("retry", a.session, a.user, len(a.event), copy, n), 0, 50*time.Millisecond)
		}
		time.Sleep(pause)
		if w.attempt(a, copy, n) {
			return
		}
	}
	w.note(nil, "zego", "drops", w.keyOf(a), "")
}

// attempt sends a callback once, and reports whether ZEGO considers it acknowledged.
func (w *world) attempt(a action, copy, n int) bool {
	key := w.keyOf(a)
	w.mu.Lock()
	p := w.process
	if p != nil {
		p.serving.Add(1)
		p.posting[key]++
	}
	if _, again := w.began1st[key]; !again {
		w.began1st[key] = time.Since(w.began)
	}
	w.mu.Unlock()
	what := fmt.Sprintf("%s attempt %d.%d", key, copy, n+1)
	if p == nil {
		w.note(nil, "zego", "posts", what, "connection refused")
		return false
	}
	event := w.event(a)
	head := event.Head()
	nonce := fmt.Sprint(a.event, a.session, a.user, a.contradicts)
	head.Timestamp = w.began.Add(a.at).Unix()
	switch {
	case a.wrong == tooOld:
		head.Timestamp -= int64(window/time.Second) + 1
	case a.wrong == tooNew:
		head.Timestamp += int64(window/time.Second) + 2
	case a.wrong == unknownApp:
		head.AppID += 2
	case a.wrong != "":
	case a.kind == forgery: // uses the signature of a room_close
		head.Timestamp, nonce = w.began.Add(a.signedAt).Unix(), fmt.Sprint(a.event, a.nth, a.user, false)
		w.mu.Lock()
		w.offered[key] = true // it may be accepted without an answer
		w.mu.Unlock()
	case a.fresh:
		head.Timestamp, nonce = time.Now().Unix(), fmt.Sprint(nonce, ".", copy, ".", n)
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(nonce))
	head.Nonce = fmt.Sprint(sum.Sum64())
	with := secret
	if a.otherApp || a.wrong == wrongSignature {
		with = otherSecret
	}
	head.Signature = zego.Sign(with, head.Timestamp, head.Nonce)
	body, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	ctx, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, webhook.Path, bytes.NewReader(body))
	answer := httptest.NewRecorder()
	acknowledged, done := false, make(chan struct{})
	mine := w.signed(head.Signature, taken{genuine: a.kind == callback, process: p.number})
	go func() {
		defer p.serving.Done()
		defer close(done)
		began := time.Now()
		p.handler.ServeHTTP(answer, request)
		took := time.Since(began)
		for _, box := range p.boxes {
			_, _ = box.Stats(ctx) // as metrics do at any time
		}
		w.mu.Lock()
		p.posting[key]--
		w.mu.Unlock()
		if p.dead.Load() {
			return
		}
		if took > maxAnswer {
			w.failf("%s was answered after %v, want %v", what, took, maxAnswer)
		}
		acknowledged = answer.Code/100 == 2 && ctx.Err() == nil
		w.answered(p, a, key, head.Signature, mine, answer)
		p.note("zego", "posts", what, fmt.Sprint(answer.Code, " ", statusOf(answer)))
		if answer.Code/100 == 2 {
			p.acks++
			for _, a := range w.actions {
				if a.kind == crash && a.process == p.number && (a.acks == p.acks || a.acks < 0 && p.failed.Load()) {
					p.kill(a)
				}
			}
		}
	}()
	wait := patience
	if a.hangUps&(1<<n) != 0 {
		wait = between(w.chance("hang up", a.session, a.user, n), 0, 400*time.Millisecond)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return acknowledged
	case <-p.ended:
		w.note(nil, "zego", "posts", what, "connection lost")
	case <-timer.C:
		w.note(nil, "zego", "posts", what, "hangs up")
	}
	return false
}

func statusOf(answer *httptest.ResponseRecorder) string {
	var receipt webhook.Receipt
	_ = json.Unmarshal(answer.Body.Bytes(), &receipt)
	return string(receipt.Status)
}

// signed records a use of a signature and returns its index in w.forged[signature].
func (w *world) signed(signature string, t taken) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.began = time.Since(w.began)
	w.forged[signature] = append(w.forged[signature], t)
	return len(w.forged[signature]) - 1
}

// answered checks and records an answer.
func (w *world) answered(p *process, a action, key, signature string, mine int, answer *httptest.ResponseRecorder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.forged[signature]
	t := &all[mine]
	t.over, t.accepted, t.refused = time.Since(w.began), answer.Code/100 == 2, answer.Code/100 == 4
	// A refusal is correct if another body with the signature was accepted or is in
	// flight.
	other := false
	for _, o := range all {
		if o.genuine == t.genuine || o.process != t.process {
			continue
		}
		other = other || o.accepted || o.over == 0 || o.over > t.began
		if t.accepted && o.accepted {
			w.failf("%s has a signature that was taken with another body, and was answered %d", key, answer.Code)
		}
	}
	status := webhook.Status(statusOf(answer))
	switch {
	case a.wrong != "":
		if answer.Code != http.StatusUnauthorized {
			w.failf("%s with %s was answered %d, want 401", key, a.wrong, answer.Code)
		}
	case a.kind == forgery: // it may be accepted if it comes before ZEGO's callback
		w.offered[key] = slices.ContainsFunc(all, func(o taken) bool { return !o.genuine && !o.refused })
	case answer.Code/100 == 4 && !(answer.Code == http.StatusUnauthorized && other):
		w.failf("%s is genuine, and was answered %d: %s", key, answer.Code, answer.Body)
	case answer.Code/100 == 2 && status != webhook.Started && status != webhook.Duplicate && status != webhook.Queued && status != webhook.Stored:
		w.failf("%s was answered %q", key, status)
	case answer.Code == http.StatusServiceUnavailable && w.canTake(p, a, t.began):
		w.failf("%s was answered 503, although the disk or its sink works", key)
	}
	if !t.accepted {
		return
	}
	w.acked[key] = true
	if status == webhook.Started && w.starters[key] {
		w.failf("%s was answered %q twice", key, status)
	}
	w.starters[key] = w.starters[key] || status == webhook.Started
	if a.event == zego.EventRoomClose && a.kind == callback {
		mine := fmt.Sprint(key, " ", p.number)
		both := w.closes[mine]
		both[map[bool]int{true: 1}[a.contradicts]] = true
		if w.closes[mine] = both; both == [2]bool{true, true} || status == webhook.Queued && w.keepsOther(p, a) {
			w.disputed[w.contradictionOf(a)] = true
		}
	}
}

// retryDeadLetters makes all dead letters wait again, as an operator does.
func (w *world) retryDeadLetters() {
	w.mu.Lock()
	p := w.process
	if p != nil {
		p.serving.Add(1)
	}
	w.mu.Unlock()
	if p == nil {
		return
	}
	defer p.serving.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for n, box := range p.boxes {
		for e, err := range box.DeadLetters(ctx) {
			if err != nil {
				break
			}
			key, _ := keyIn(box, n, e)
			w.mu.Lock()
			p.tried[key] = true // it comes back to its place, which the relay may have passed
			w.mu.Unlock()
			err := box.Retry(ctx, e.Key)
			w.note(p, "operator", "retries", key, fmt.Sprint(err == nil))
			w.mu.Lock()
			w.retried[key] = w.retried[key] || err == nil && !p.dead.Load()
			w.mu.Unlock()
		}
	}
}
