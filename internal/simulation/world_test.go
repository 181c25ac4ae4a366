package simulation

import (
	"fmt"
	"hash/fnv"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/semaphore"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/send"
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

// recordingLadder is [ladder] for callbacks about recordings.
var recordingLadder = []time.Duration{0, 5 * time.Second, 5 * time.Second}

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
	files, late                 int            // files that callbacks reported, and sessions with several manifests
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
	firstAt   map[string]time.Duration // first attempts, by key
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
		acked: map[string]bool{}, starters: map[string]bool{}, retried: map[string]bool{}, firstAt: map[string]time.Duration{}, overdueAt: map[string]time.Duration{},
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
