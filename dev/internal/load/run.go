package load

import (
	"container/heap"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/progress"
	identity "github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// session is a session that is not decided yet.
type session struct {
	choice
	zego.RoomClose // as it was last signed
	life           []*callback
	begun          bool // an attempt of any delivery has begun
	body           []byte
	offered        time.Duration

	attempts int // begun attempts of the original
	copies   int // begun copies
	open     int // deliveries that aren't over
	// by is the acknowledged attempt of the original, if any.
	by           int
	acknowledged bool
	status       string        // in the first acknowledgement
	after        time.Duration // when that came, since the session was offered
	cut          bool          // the run was stopped before all attempts
}

// delivery is an original, a copy or a badly signed callback whose next attempt is due
// later or in flight.
type delivery struct {
	session  *session
	kind     kind
	callback *callback // set in a participant's delivery
	due      time.Duration
	order    uint64 // orders deliveries that are due at the same time
	attempt  int    // attempts begun so far
}

type kind int

const (
	original kind = iota
	duplicate
	forged
	event
	eventAgain
)

// String identifies the delivery in a line.
func (d *delivery) String() string {
	switch d.kind {
	case duplicate:
		return fmt.Sprintf("room_session_id %d, duplicate", d.session.RoomSessionID)
	case forged:
		return fmt.Sprintf("room_session_id %d, badly signed", d.session.RoomSessionID)
	case event:
		return fmt.Sprintf("room_session_id %d, %s, attempt %d", d.session.RoomSessionID, d.callback.describe(), d.attempt)
	case eventAgain:
		return fmt.Sprintf("room_session_id %d, %s, duplicate", d.session.RoomSessionID, d.callback.describe())
	}
	return fmt.Sprintf("room_session_id %d, attempt %d", d.session.RoomSessionID, d.attempt)
}

// runner makes a run. One goroutine owns all of it except the attempts in flight, so that
// it needs no locks and draws random numbers in a fixed order. All times count from the
// start.
type runner struct {
	Options
	plan     *plan
	post     *poster
	began    time.Time
	queue    queue
	order    uint64
	underWay int
	results  chan result
	report   Report
	// lastAcknowledged is when the last session was acknowledged.
	lastAcknowledged time.Duration
	acknowledged     durations
	all              durations
	sessions         durations
	waited           durations
	events           durations // latencies of participants' callbacks
	state            state
	lines            chan string      // nil if not needed
	entries          chan audit.Entry // nil if not needed
}

// state is the progress of the run.
type state struct{ acknowledged, lost, retrying, decided atomic.Int64 }

// String describes the outcomes of the sessions so far.
func (s *state) String() string {
	return fmt.Sprintf("%d acknowledged, %d retrying, %d lost", s.acknowledged.Load(), s.retrying.Load(), s.lost.Load())
}

func newRunner(o Options) (*runner, error) {
	post, err := newPoster(&o)
	if err != nil {
		return nil, err
	}
	r := &runner{
		Options: o, post: post,
		results:      make(chan result, o.Parallel), // so that no attempt waits to send its result
		acknowledged: newDurations(), all: newDurations(), sessions: newDurations(), waited: newDurations(),
		report: Report{Seed: o.Seed, URL: shownURL(post.request.URL), Count: o.Count, Answers: map[string]int64{}, Failures: map[string]int64{}},
	}
	if o.Participants > 0 {
		r.report.Events = &Events{Answers: map[string]int64{}, Failures: map[string]int64{}}
		r.events = newDurations()
	}
	r.plan = newPlan(&r.Options)
	return r, nil
}

// background starts the writers of lines, journal and progress, so that a slow disk or
// terminal doesn't delay the run. The function that it returns waits until all is
// written.
func (r *runner) background(out io.Writer) (stop func()) {
	var writers sync.WaitGroup
	hide := func() {}
	if r.eachAttempt() {
		r.lines = make(chan string, 1000)
		writers.Go(func() {
			for line := range r.lines {
				fmt.Fprintln(out, line)
			}
		})
	} else if r.Progress != nil {
		fmt.Fprintf(r.Progress, "sending %d sessions to %s, seed %d\n", r.Count, r.report.URL, r.Seed)
		bar := progress.Bar{Total: progress.Of(int64(r.Count)), What: "sessions", Done: r.state.decided.Load, State: r.state.String}
		hide = bar.Start(r.Progress)
	}
	if r.Journal != nil {
		r.entries = make(chan audit.Entry, 1000)
		writers.Go(func() {
			for e := range r.entries {
				r.Journal(e)
			}
		})
	}
	return func() {
		hide()
		if r.lines != nil {
			close(r.lines)
		}
		if r.entries != nil {
			close(r.entries)
		}
		writers.Wait()
	}
}

func (r *runner) now() time.Duration { return time.Since(r.began) }

// run offers the sessions when they are due, and returns when all are decided.
func (r *runner) run(ctx context.Context) error {
	defer r.post.close()
	r.began = time.Now()
	r.report.StartedAt = r.began.UTC()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := r.now()
		for r.open() && !r.plan.done() && r.plan.due() <= now {
			r.offer(r.plan.due())
		}
		for r.underWay < r.Parallel {
			if len(r.queue) > 0 && r.queue[0].due <= now {
				r.start(ctx, heap.Pop(&r.queue).(*delivery))
			} else if !r.open() && !r.plan.done() {
				now = r.now()
				r.offer(now)
			} else {
				break
			}
		}
		if r.underWay == 0 && len(r.queue) == 0 && r.plan.done() {
			return nil
		}
		var wake <-chan time.Time
		if next := r.next(); r.underWay < r.Parallel && next != never {
			timer.Reset(next - r.now())
			wake = timer.C
		}
		select {
		case result := <-r.results:
			r.settle(ctx, result)
		case <-wake:
		case <-ctx.Done():
		}
	}
	r.abandon(ctx)
	return context.Cause(ctx)
}

// next returns when the next action that needs no answer is due.
func (r *runner) next() time.Duration {
	next := never
	if len(r.queue) > 0 {
		next = r.queue[0].due
	}
	if r.open() && !r.plan.done() {
		next = min(next, r.plan.due())
	}
	return next
}

// offer queues the deliveries of the next session.
func (r *runner) offer(at time.Duration) {
	choice := r.plan.next(at)
	s := &session{choice: choice, offered: choice.due, open: 1, RoomClose: zego.RoomClose{
		Common:        zego.Common{Event: zego.EventRoomClose, AppID: r.AppID},
		RoomID:        r.RoomID,
		RoomSessionID: r.RoomSessionID + uint64(choice.index),
		CloseReason:   r.CloseReason,
		RoomCloseTime: r.RoomCloseTime,
	}}
	if s.RoomSessionID < r.RoomSessionID {
		s.RoomSessionID++ // skip 0, which is not a session
	}
	if r.Rooms > 1 {
		s.RoomID += "-" + strconv.Itoa(choice.index%r.Rooms+1)
	}
	if r.Participants > 0 {
		if s.RoomCloseTime.IsZero() {
			s.RoomCloseTime = r.began.Add(choice.due)
		}
		s.RoomCloseTime = s.RoomCloseTime.Truncate(time.Millisecond).UTC()
		r.offerLife(s)
	}
	r.enqueue(&delivery{session: s, kind: original, due: choice.due})
	if choice.copied {
		s.open++
		r.enqueue(&delivery{session: s, kind: duplicate, due: choice.copy})
	}
	if choice.forged {
		forgery := &session{choice: choice, RoomClose: s.RoomClose}
		forgery.RoomSessionID ^= 1 << 63
		r.enqueue(&delivery{session: forgery, kind: forged, due: choice.forge})
	}
}

func (r *runner) enqueue(d *delivery) {
	d.order = r.order
	r.order++
	heap.Push(&r.queue, d)
}

// start begins a delivery's next attempt.
func (r *runner) start(ctx context.Context, d *delivery) {
	s := d.session
	d.attempt++
	switch d.kind {
	case forged:
		r.report.BadlySigned.Sent++
	default:
		if !s.begun {
			s.begun = true
			r.report.Sessions++
		}
		if c := d.callback; d.kind == event {
			c.attempts++
		} else if d.kind == eventAgain {
			c.copies++
		} else if d.kind == original {
			s.attempts++
		} else {
			s.copies++
			r.report.Duplicates.Sent++
		}
	}
	body := &s.body
	if c := d.callback; c != nil {
		body = &c.body
		if c.body == nil || s.resign {
			c.sign(r.Secret)
		}
	} else if s.body == nil || s.resign && d.kind != forged {
		s.sign(r.Secret, d.kind == forged)
	}
	r.underWay++
	go func(body []byte) {
		began := r.now()
		result := r.post.attempt(ctx, body)
		result.delivery, result.began, result.ended = d, began, r.now()
		r.results <- result
	}(*body)
}

// sign makes the body. The nonce doesn't depend on the seed. Otherwise a run that is
// repeated within a second would have the same signatures on other bodies.
func (s *session) sign(secret string, wrongly bool) {
	now := time.Now()
	if s.RoomCloseTime.IsZero() {
		s.RoomCloseTime = now
	}
	s.RoomCloseTime = s.RoomCloseTime.Truncate(time.Millisecond).UTC()
	s.Timestamp, s.Nonce = now.Unix(), strconv.FormatUint(rand.Uint64()>>1, 10)
	s.Signature = zego.Sign(secret, s.Timestamp, s.Nonce)
	if wrongly {
		switch s.how {
		case otherSecret:
			s.Signature = zego.Sign(secret+"?", s.Timestamp, s.Nonce)
		case otherTimestamp:
			s.Signature = zego.Sign(secret, s.Timestamp-1, s.Nonce)
		default:
			digit := byte('0')
			if s.Signature[0] == digit {
				digit = '1'
			}
			s.Signature = string(digit) + s.Signature[1:]
		}
	}
	// Every callback can be encoded.
	s.body, _ = s.RoomClose.MarshalJSON()
}

// settle processes the result of an attempt.
func (r *runner) settle(ctx context.Context, a result) {
	r.underWay--
	d := a.delivery
	if a.code == 0 && ctx.Err() != nil {
		r.over(d, true) // it failed because the run was stopped
		return
	}
	note := ""
	if d.kind == forged {
		r.settleForged(a)
	} else if d.callback != nil {
		note = r.settleEvent(a)
	} else {
		note = r.settleGenuine(a)
	}
	if r.lines != nil {
		r.lines <- d.String() + ": " + a.text + note
	}
}

func (r *runner) settleForged(a result) {
	switch {
	case a.ok():
		r.report.BadlySigned.Accepted++
	case a.code == http.StatusUnauthorized:
		r.report.BadlySigned.Refused++
	}
}

// settleGenuine processes the result of a genuine callback, and returns the rest of its
// line.
func (r *runner) settleGenuine(a result) (note string) {
	d, s := a.delivery, a.delivery.session
	r.report.Attempts++
	r.all.add(a.ended - d.due)
	r.waited.add(a.began - d.due)
	if a.ok() {
		count(r.report.Answers, a.kind)
		r.acknowledged.add(a.ended - d.due)
		if !s.acknowledged {
			s.acknowledged, s.status, s.after = true, a.kind, a.ended-s.offered
			r.sessions.add(s.after)
			r.lastAcknowledged = max(r.lastAcknowledged, a.ended)
		}
	} else {
		count(r.report.Failures, a.kind)
	}

	if d.kind == duplicate {
		if a.ok() {
			r.report.Duplicates.Acknowledged++
		} else {
			r.report.Duplicates.Lost++
		}
		r.over(d, false)
		return ""
	}
	if !a.ok() && d.attempt <= len(r.Ladder) {
		if d.attempt == 1 {
			r.state.retrying.Add(1)
		}
		pause := r.Ladder[d.attempt-1]
		d.due = a.ended + pause
		r.enqueue(d)
		return fmt.Sprintf("; again in %v", pause)
	}
	if d.attempt > 1 {
		r.state.retrying.Add(-1)
	}
	if a.ok() {
		s.by = d.attempt
	} else if !r.Once {
		note = "; ZEGO would now forget it"
	}
	r.over(d, false)
	return note
}

// over ends a delivery. If it was the session's last, it decides the session.
func (r *runner) over(d *delivery, cut bool) {
	s := d.session
	if d.kind == forged {
		return
	}
	if d.callback != nil {
		d.callback.cut = d.callback.cut || cut
	} else {
		s.cut = s.cut || cut
	}
	s.open--
	if s.open > 0 || !s.begun {
		return
	}
	life := r.decideLife(s)
	switch {
	case !s.acknowledged && s.cut:
		r.report.Undecided++
	case !s.acknowledged:
		r.report.Lost++
		r.state.lost.Add(1)
	default:
		r.report.Acknowledged++
		r.state.acknowledged.Add(1)
		switch {
		case s.by == 1:
			r.report.FirstAttempt++
		case s.by > 1:
			r.report.LaterAttempt++
		default:
			r.report.ByDuplicate++
		}
	}
	r.state.decided.Add(1)
	if r.entries != nil {
		r.entries <- audit.Entry{
			ID: identity.ID{AppID: s.AppID, RoomSessionID: s.RoomSessionID}, RoomID: s.RoomID, CloseReason: s.CloseReason, RoomCloseTime: s.RoomCloseTime,
			Acknowledged: s.acknowledged, Undecided: !s.acknowledged && s.cut, Status: s.status, Attempts: s.attempts, Duplicates: s.copies,
			Events: life, OfferedAt: r.began.Add(s.offered).UTC(), AcknowledgedAfter: float64(s.after.Microseconds()) / 1000,
		}
	}
}

// abandon ends all deliveries in flight or still to come.
func (r *runner) abandon(ctx context.Context) {
	for r.underWay > 0 {
		r.settle(ctx, <-r.results)
	}
	for _, d := range r.queue {
		r.over(d, true)
	}
	r.queue = nil
}

// finalReport completes the report at the end of the run.
func (r *runner) finalReport() *Report {
	report := &r.report
	report.Duration = r.now().Seconds()
	if at := r.plan.latest; at > 0 {
		report.OfferedRate = float64(r.plan.made-1) / at.Seconds()
	}
	if at := r.lastAcknowledged; at > 0 {
		report.AcknowledgedRate = float64(report.Acknowledged) / at.Seconds()
	}
	if report.Events != nil {
		report.Events.Latency = r.events.percentiles()
	}
	report.Latency = Latency{
		Acknowledged: r.acknowledged.percentiles(), All: r.all.percentiles(),
		Session: r.sessions.percentiles(), Waited: r.waited.percentiles(),
	}
	return report
}

// queue is a heap of deliveries that wait for their time or for a connection.
type queue []*delivery

// Len implements [heap.Interface].
func (q queue) Len() int { return len(q) }

// Less implements [heap.Interface].
func (q queue) Less(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].order < q[j].order
}

// Swap implements [heap.Interface].
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements [heap.Interface].
func (q *queue) Push(d any) { *q = append(*q, d.(*delivery)) }

// Pop implements [heap.Interface].
func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil // release the session
	*q = (*q)[:last]
	return d
}
