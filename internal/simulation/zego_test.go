package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

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
	if a.event == zego.EventRecording {
		return recordingOf(c, a, room, begin)
	}
	if a.account != "" {
		stay.UserAccount = a.account
	}
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
	if r := e.Recording; r != nil {
		return fmt.Sprint(e.Event, " of task ", r.TaskID, " number ", r.Sequence)
	}
	other := ""
	if e.AppID != app {
		other = "of another app "
	}
	return fmt.Sprint(e.Event, " of session ", sessionOf(e.RoomSessionID), " ", other, e.Stay, " ", e.User, " ", []int64{e.Create.UnixMilli(), e.Login.UnixMilli(), e.Logout.UnixMilli(), e.Close.UnixMilli()})
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
	apart := time.Duration(1) // in a fixed order
	if r := w.chance("apart", a.session, a.user, len(a.event)); r.IntN(2) == 0 {
		apart = between(r, time.Millisecond, 150*time.Millisecond)
	}
	time.Sleep(a.at + time.Duration(copy)*apart)
	pauses := ladder
	if a.event == zego.EventRecording {
		pauses = recordingLadder
		w.worker.upload(a)
	}
	for n, pause := range pauses {
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
	if _, again := w.firstAt[key]; !again {
		w.firstAt[key] = time.Since(w.began)
	}
	w.mu.Unlock()
	what := fmt.Sprintf("%s attempt %d.%d", key, copy, n+1)
	if p == nil {
		w.note(nil, "zego", "posts", what, "connection refused")
		return false
	}
	event := w.event(a)
	head := event.Head()
	nonce := fmt.Sprint(a.event, a.session, a.user, a.contradicts, a.account, a.task, a.nth)
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
		head.Timestamp, nonce = w.began.Add(a.signedAt).Unix(), fmt.Sprint(a.event, a.nth, a.user, false, "", 0, 0)
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
		if a.contradicts {
			both[1] = true
		} else {
			both[0] = true
		}
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
