package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

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
