package simulation

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// A history is everything that happens to Closeout in a run. Its remaining random
// choices, such as the duration of each answer, depend on the seed and not on other
// actions, so that an action can be dropped without changing the others.
type history struct {
	seed    uint64
	actions []action
}

// An action is one event of a history.
type action struct {
	kind kind
	// at is the time of the action since the beginning of the run.
	at time.Duration
	// lasts is the duration of a fault, or of the time between two processes.
	lasts time.Duration

	// The session, event and user of a callback. Not every event has a user.
	session, user int
	event         string
	// otherApp means that the callback belongs to another app's session of the same number.
	otherApp bool
	// contradicts means that it states other times than the callback of the same event.
	contradicts bool
	// account is the user_account, if it differs from that in the other callbacks of the stay.
	account string
	// task, file and status are those in a callback about a recording, which is the nth of its
	// task. A callback without a status says that an upload begins.
	task, file int
	status     zego.FileStatus
	// copies is how many times the callback is sent at almost the same time. fresh means that retries are
	// signed again. hangUps are the attempts that ZEGO ends before the answer.
	copies  int
	fresh   bool
	hangUps uint8
	// refused means that the sink refuses the callback for good.
	refused bool

	// signedAt is the time at which the room_close of session nth was signed. A forgery
	// copies its signature, unless wrong says what is wrong with its own.
	signedAt time.Duration
	wrong    string

	// answer is the answer of a peer: one of temporalAnswers or ledgerAnswers. For diskFails,
	// it names the operations that fail. nth is the number of the call that gets the answer,
	// counted for the session or for the ledger; 0 means all calls while the fault lasts.
	answer string
	nth    int

	// process and op identify the file-system operation after which a crash happens, or at
	// which the disk fails. acks is the number of the process's acknowledgment after which a
	// crash happens; -1 means the first one after the disk has failed. If both are 0, that
	// happens at the time at. survives is the part of unsynced data that survives.
	process, op, acks int
	survives          survival
}

type kind string

const (
	callback     kind = "callback"
	forgery      kind = "forgery"
	temporalCall kind = "temporal call"
	temporalAway kind = "temporal away"
	ledgerCall   kind = "ledger call"
	ledgerAway   kind = "ledger away"
	diskFull     kind = "disk full"
	diskSlow     kind = "disk slow"
	diskFails    kind = "disk fails"
	crash        kind = "crash"
	restart      kind = "restart"
	retry        kind = "retry"
)

// What is wrong with forgeries.
const (
	unknownApp     = "unknown app"
	wrongSignature = "wrong signature"
	tooOld         = "timestamp too old"
	tooNew         = "timestamp too new"
)

// survival is the part of unsynced data that survives a crash.
type survival string

const (
	nothing    survival = "nothing"
	everything survival = "everything"
	randomPart survival = "random part"
	tornBlock  survival = "torn block"
)

var survivals = []survival{nothing, everything, randomPart, tornBlock}

func (a action) String() string {
	s := fmt.Sprintf("%10v  %s", a.at, a.kind)
	switch a.kind {
	case callback, forgery:
		s += fmt.Sprintf(" %s of session %d", a.event, a.session)
		if a.user > 0 {
			s += fmt.Sprintf(" user %d", a.user)
		}
		if a.otherApp {
			s += " of another app"
		}
		if a.contradicts {
			s += ", with other times"
		}
		if a.event == zego.EventRecording {
			s += fmt.Sprintf(" task %d number %d: file %d has status %d", a.task, a.nth, a.file, a.status)
		}
		if a.account != "" {
			s += ", with the user_account " + a.account
		}
		if a.copies > 1 {
			s += fmt.Sprintf(", %d at once", a.copies)
		}
		if a.fresh {
			s += ", retries signed anew"
		}
		for n := range ladder {
			if a.hangUps&(1<<n) != 0 {
				s += fmt.Sprintf(", hangs up at attempt %d", n+1)
			}
		}
		if a.refused {
			s += ", refused by its sink"
		}
		switch {
		case a.wrong != "":
			s += ", with " + a.wrong
		case a.kind == forgery:
			s += fmt.Sprintf(", with the signature of session %d's", a.nth)
		}
	case temporalCall:
		s += fmt.Sprintf(" %d of session %d: %s", a.nth, a.session, a.answer)
		if a.nth == 0 {
			s = fmt.Sprintf("%10v  all temporal calls of session %d for %v: %s", a.at, a.session, a.lasts, a.answer)
		}
	case ledgerCall:
		s += fmt.Sprintf(" %d: %s", a.nth, a.answer)
	case temporalAway, ledgerAway:
		s += fmt.Sprintf(" for %v: %s", a.lasts, a.answer)
	case diskFails:
		s += fmt.Sprintf(" for %v: each %s", a.lasts, a.answer)
		if a.op > 0 {
			s = fmt.Sprintf("%10s  %s fails at file operation %d of process %d or the first one after it", "", a.answer, a.op, a.process)
		}
	case diskFull, diskSlow:
		s += fmt.Sprintf(" for %v %s", a.lasts, a.answer)
	case crash:
		if a.acks != 0 {
			s = fmt.Sprintf("%10s  crash of process %d after acknowledgment %d", "", a.process, a.acks)
		}
		if a.op > 0 {
			s = fmt.Sprintf("%10s  crash of process %d after file operation %d", "", a.process, a.op)
		}
		s += fmt.Sprintf(", %s survives, away for %v", a.survives, a.lasts)
	case retry:
		s += " of all dead letters"
	case restart:
		s += fmt.Sprintf(", away for %v", a.lasts)
	}
	return s
}

// String returns the actions, one a line.
func (h history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n", h.seed)
	for _, a := range h.actions {
		b.WriteString(a.String() + "\n")
	}
	return b.String()
}

// chance returns a random number that depends on the seed and its purpose.
func (h history) chance(what string, n ...int) *rand.Rand {
	sum := fnv.New64a()
	_ = binary.Write(sum, binary.LittleEndian, h.seed)
	_, _ = sum.Write([]byte(what))
	for _, i := range n {
		_ = binary.Write(sum, binary.LittleEndian, int64(i))
	}
	return rand.New(rand.NewPCG(sum.Sum64(), h.seed))
}

// between returns a time from a to b in nanoseconds, so that equal times are rare.
func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)))
}

// newHistory returns the history of a seed.
func newHistory(seed uint64) history {
	h := history{seed: seed}
	r := h.chance("history")
	one := func(in int) bool { return r.IntN(in) == 0 }
	add := func(a action) { h.actions = append(h.actions, a) }

	// Most histories last a few seconds, so that faults and callbacks coincide.
	span, longer := between(r, 2*time.Second, 15*time.Second), time.Duration(1)
	if one(20) { // some last for minutes
		span, longer = 20*span, 30
	}
	at := func() time.Duration { return between(r, 0, span) }
	sessions := 1 + r.IntN(4)
	if one(50) {
		sessions, span = 40+r.IntN(60), 2*time.Second // a burst
	}
	for s := range sessions {
		closed := at()
		send := func(a action) {
			a.kind, a.session, a.fresh, a.copies = callback, s, one(2), 1
			if one(5) {
				a.copies = 2 + r.IntN(2)
			}
			if one(4) {
				a.hangUps = uint8(r.IntN(1 << len(ladder)))
			}
			a.refused = one(25)
			add(a)
			if one(8) { // again, up to 20 seconds later
				a.at, a.hangUps, a.copies = a.at+between(r, 0, 20*time.Second), 0, 1
				add(a)
			}
		}
		send(action{event: zego.EventRoomClose, at: closed})
		if one(10) {
			add(action{kind: callback, event: zego.EventRoomClose, session: s, otherApp: true, copies: 1, at: at()})
		}
		if one(8) { // an attacker has seen the callback, or its retry
			f := action{kind: forgery, event: zego.EventRoomClose, session: 1000 + s, nth: s, signedAt: closed, at: max(0, closed+between(r, -time.Second, 5*time.Second))}
			if one(2) { // the forgery comes first, while nothing can be accepted
				f.at = max(0, closed-time.Second)
				add(action{kind: diskFull, at: f.at, lasts: 2 * time.Second})
				add(action{kind: temporalAway, at: f.at, lasts: 2 * time.Second, answer: away})
			}
			add(f)
			if one(4) { // the signature is still fresh minutes later
				f.at = closed + between(r, time.Minute, window)
				add(f)
			}
			f.session, f.wrong = 2000+s, pick(r, []string{unknownApp, wrongSignature, tooOld, tooNew})
			add(f)
		}
		if one(30) { // starts of this session fail for minutes
			add(action{kind: temporalCall, session: s, at: at(), lasts: between(r, 10*time.Second, 5*time.Minute), answer: pick(r, temporalAnswers)})
		}
		if sessions > 10 {
			continue
		}
		if one(3) {
			send(action{event: zego.EventRoomCreate, at: at()})
		}
		for u := range r.IntN(3) {
			if one(2) {
				send(action{event: zego.EventRoomLogin, user: u + 1, at: at()})
			}
			send(action{event: zego.EventRoomLogout, user: u + 1, at: at()}) // perhaps after the close
		}
		for n := 1; n <= 3; n++ {
			if one(5) {
				add(action{kind: temporalCall, session: s, nth: n, answer: pick(r, temporalAnswers)})
			}
		}
	}
	for one(2) {
		add(action{kind: temporalAway, at: at(), lasts: longer * between(r, 100*time.Millisecond, 20*time.Second), answer: pick(r, temporalAnswers)})
	}
	for n := 1; n <= 4; n++ {
		if one(5) {
			add(action{kind: ledgerCall, nth: n, answer: pick(r, ledgerAnswers)})
		}
	}
	if one(3) {
		add(action{kind: ledgerAway, at: at(), lasts: longer * between(r, 100*time.Millisecond, 20*time.Second), answer: pick(r, ledgerAnswers)})
	}
	if one(8) {
		add(action{kind: diskFull, at: at(), lasts: longer * between(r, 100*time.Millisecond, 5*time.Second)})
	}
	if one(4) {
		add(action{kind: diskSlow, at: at(), lasts: between(r, 100*time.Millisecond, 5*time.Second), answer: pick(r, []string{slow, hangs})})
	}
	for n := range 3 {
		if one(2) {
			break
		}
		down := action{kind: crash, lasts: between(r, 0, 4*time.Second), survives: pick(r, survivals)}
		switch r.IntN(4) {
		case 0:
			down.at = at()
		case 3:
			down.process, down.acks = n, 1+r.IntN(8)
		case 1:
			down.process, down.op = n, 1+r.IntN(300)
		default:
			down.kind, down.at = restart, at()
		}
		add(down)
	}
	h.addDiskFaults(span)
	h.addFailingRepeat()
	if h.toTheBill() {
		h.addLate(sessions)
	}
	if h.recorded() {
		h.addRecordings(sessions)
	}
	h.addContradictions()
	if one(3) {
		// Long after its sink has stopped to refuse callbacks, an operator retries them.
		add(action{kind: retry, at: h.end() + between(r, mended, 2*mended)})
	}
	h.sort()
	return h
}

// end returns when the last action is over.
func (h history) end() (last time.Duration) {
	for _, a := range h.actions {
		last = max(last, a.at+a.lasts)
	}
	return last
}

// addContradictions adds callbacks that contradict others, before or after them.
func (h *history) addContradictions() {
	r := h.chance("contradictions")
	for _, a := range slices.Clone(h.actions) {
		if a.kind == callback && (a.user > 0 || a.event == zego.EventRoomClose) && r.IntN(8) == 0 {
			a.at, a.contradicts, a.refused = max(0, a.at+between(r, -10*time.Second, 10*time.Second)), true, false
			h.actions = append(h.actions, a)
		}
	}
	r = h.chance("other users")
	for _, a := range slices.Clone(h.actions) {
		if a.kind != callback || a.user == 0 || r.IntN(8) != 0 {
			continue
		}
		a.refused = false
		a.account, a.at = "user-9", max(0, a.at+between(r, -10*time.Second, 10*time.Second))
		h.actions = append(h.actions, a)
		if a.account = "user-0"; h.toTheBill() {
			a.at = settling + between(r, 0, 4*time.Minute) // moves the stay, mostly after the bill
		}
		h.actions = append(h.actions, a)
	}
}

// addDiskFaults adds failures of one write or sync, or of all for a time.
func (h *history) addDiskFaults(span time.Duration) {
	r := h.chance("disk fails")
	for process := range 2 {
		a := action{kind: diskFails, answer: pick(r, []string{"write", "sync", "write or sync"})}
		switch r.IntN(10) {
		case 0:
			a.process, a.op = process, 1+r.IntN(300)
		case 1:
			a.at, a.lasts = between(r, 0, span), between(r, time.Millisecond, 5*time.Second)
			if r.IntN(3) == 0 { // others write before the failure is known
				h.actions = append(h.actions, action{kind: diskSlow, at: a.at, lasts: a.lasts, answer: slow})
			}
			if r.IntN(2) == 0 {
				h.actions = append(h.actions, action{kind: crash, process: process, acks: -1, survives: pick(r, survivals), lasts: between(r, 0, 4*time.Second)})
			}
		default:
			continue
		}
		h.actions = append(h.actions, a)
	}
}

// addFailingRepeat lets the disk fail while it stores a callback that comes several times.
func (h *history) addFailingRepeat() {
	r := h.chance("failing repeat")
	i := r.IntN(len(h.actions))
	if r.IntN(30) > 0 || h.actions[i].kind != callback {
		return
	}
	a := &h.actions[i]
	a.copies = 2 + r.IntN(3)
	before := max(0, a.at-time.Second)
	h.actions = append(h.actions,
		action{kind: temporalAway, at: before, lasts: 4 * time.Second, answer: away},
		action{kind: ledgerAway, at: before, lasts: 4 * time.Second, answer: away},
		action{kind: diskSlow, at: before, lasts: 4 * time.Second, answer: slow},
		action{kind: diskFails, at: a.at + between(r, 0, time.Second), lasts: 2 * time.Second, answer: pick(r, []string{"write", "sync", "write or sync"})},
		action{kind: crash, process: r.IntN(2), acks: -1, survives: pick(r, survivals), lasts: between(r, 0, 4*time.Second)})
}

// addLate adds callbacks that arrive during or after billing, and faults of the ledger at
// that time.
func (h *history) addLate(sessions int) {
	r := h.chance("late")
	at := func() time.Duration {
		return between(r, settling-10*time.Second, settling+pick(r, []time.Duration{time.Minute, 4 * time.Minute, 40 * time.Minute}))
	}
	for s := range min(sessions, 10) {
		if r.IntN(4) == 0 { // its room_close is lost
			h.actions = slices.DeleteFunc(h.actions, func(a action) bool {
				return a.event == zego.EventRoomClose && (a.session == s || a.kind == forgery && a.nth == s)
			})
			h.actions = append(h.actions, action{kind: callback, event: zego.EventRoomLogout, session: s, user: 1, copies: 1, at: at()})
		}
		for u := range r.IntN(4) {
			event := pick(r, []string{zego.EventRoomLogin, zego.EventRoomLogout, zego.EventRoomLogout, zego.EventRoomCreate})
			if event == zego.EventRoomCreate {
				u = -1
			}
			h.actions = append(h.actions, action{kind: callback, event: event, session: s, user: u + 1, copies: 1 + r.IntN(2), at: at()})
		}
	}
	for range r.IntN(3) {
		h.actions = append(h.actions, action{kind: ledgerAway, at: at(), lasts: between(r, 100*time.Millisecond, 20*time.Second), answer: pick(r, ledgerAnswers)})
	}
}

// recorded reports whether ZEGO's callbacks name the recordings.
func (h history) recorded() bool { return h.toTheBill() && h.chance("recorded").IntN(2) == 0 }

// addRecordings adds callbacks about recordings, before and after the sessions are archived.
func (h *history) addRecordings(sessions int) {
	r := h.chance("recording callbacks")
	for s := range min(sessions, 4) {
		for task := range r.IntN(4) {
			begin := between(r, 0, settling+pick(r, []time.Duration{time.Second, 10 * time.Minute, 2 * time.Hour}))
			for n := range 1 + r.IntN(4) {
				a := action{kind: callback, event: zego.EventRecording, session: s, task: task, nth: n, file: r.IntN(2), status: zego.FileUploaded, copies: 1 + r.IntN(2)}
				a.at = begin + between(r, 0, pick(r, []time.Duration{time.Second, time.Minute, time.Hour}))
				switch r.IntN(8) {
				case 0:
					a.status = 0
				case 1:
					a.status = zego.FileFailed
				}
				h.actions = append(h.actions, a)
			}
		}
	}
}

func (h history) sort() {
	slices.SortStableFunc(h.actions, func(a, b action) int { return cmp.Compare(a.at, b.at) })
}

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// without returns the history without actions[from:to].
func (h history) without(from, to int) history {
	return history{h.seed, slices.Delete(slices.Clone(h.actions), from, to)}
}
