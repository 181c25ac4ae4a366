package simulation

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// entries returns the entries of a process's inboxes by the keys of keyOf. It returns an
// error while an inbox isn't open, for example because the disk was full.
func (w *world) entries(p *process) (map[string]inbox.Entry, error) {
	all := map[string]inbox.Entry{}
	for n, box := range p.boxes {
		if box == nil {
			return nil, errDead // the process died before it opened the inbox
		}
		for e, err := range box.All(context.Background()) {
			if err == nil {
				e.Key, err = keyIn(box, n, e)
			}
			if err != nil {
				return nil, err
			}
			if _, twice := all[e.Key]; twice {
				w.failf("the inbox has %s twice", e.Key)
			}
			all[e.Key] = e
		}
	}
	return all, nil
}

// keyIn returns the key of keyOf for an entry of an inbox.
func keyIn(box *inbox.Inbox, n int, e inbox.Entry) (key string, err error) {
	if n == 0 {
		return e.Key, nil
	}
	if e, err = box.Get(context.Background(), e.Key); err != nil { // lists cut bodies
		return "", err
	}
	var event ledger.Event
	err = json.Unmarshal(e.Body, &event)
	return factsOf(event), err
}

// untried returns the entries that the relay must try before the start of a Workflow ID
// from the inbox. It returns none if a callback of the ID is being received, because that
// may be the reason of the start, or if the disk has failed, because the relay may have read
// entries that the disk has lost.
func (p *process) untried(id string) (older []string) {
	entries, err := p.w.entries(p)
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.tried[id] = true
	this, queued := entries[id]
	if err != nil || !queued || !this.DeadAt.IsZero() || p.posting[id] > 0 || p.failed.Load() {
		return nil
	}
	for key, e := range entries {
		if strings.HasPrefix(key, session.WorkflowIDPrefix) && e.ID < this.ID && e.DeadAt.IsZero() {
			older = append(older, key)
		}
	}
	return older
}

// checkOrder checks that the process has tried to start the older entries, too.
func (p *process) checkOrder(id string, older []string) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, key := range older {
		if !p.tried[key] {
			p.w.failf("%s was started from the inbox before %s, which is older", id, key)
		}
	}
}

// checkOverdue checks that a callback that has waited in the inbox for minutes is started
// although Temporal lacks the search attributes, soon after Temporal has said so.
func (p *process) checkOverdue(id string) {
	w, now := p.w, time.Since(p.w.began)
	w.mu.Lock()
	defer w.mu.Unlock()
	if now-w.firstAt[id] < 4*idle || p.posting[id] > 0 || w.refused[id] {
		return
	}
	if _, again := w.overdueAt[id]; !again {
		w.overdueAt[id] = now
	}
	if waited := now - w.overdueAt[id]; waited > 2*idle {
		w.failf("%s waits for search attributes since %v", id, waited)
	}
}

// delivered reports whether the sink has a callback.
func (w *world) delivered(key string) bool {
	return len(w.temporal.runs[key]) > 0 || w.books.stored[key] > 0
}

// checkSafe checks that all acknowledged callbacks are in their sink or on the disk.
func (w *world) checkSafe(p *process) {
	entries, err := w.entries(p)
	if err != nil {
		if !p.dead.Load() && !w.within(diskFull) && !p.failed.Load() {
			w.failf("read the inbox of process %d: %v", p.number, err)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(w.acked)) {
		if _, queued := entries[key]; !queued && !w.delivered(key) {
			w.failf("%s was acknowledged, and is neither in its sink nor on the disk of process %d", key, p.number)
		}
	}
	reported := map[string]bool{}
	for key := range entries {
		reported[withoutTimes(key)] = true
	}
	for key := range w.books.stored {
		reported[withoutTimes(key)] = true
	}
	for _, key := range slices.Sorted(maps.Keys(w.disputed)) {
		if !reported[key] {
			w.failf("%s was acknowledged with two times, and no event for the ledger reports it", key)
		}
	}
	for _, e := range entries {
		if !e.DeadAt.IsZero() && e.Reason == "" {
			w.failf("%s is a dead letter without a reason", e.Key)
		}
	}
}

// keepsOther reports whether the inbox has another room_close of the session, with another
// time.
func (w *world) keepsOther(p *process, a action) bool {
	e, err := p.boxes[0].Get(context.Background(), w.keyOf(a))
	var kept session.Session
	if err != nil || json.Unmarshal(e.Body, &kept) != nil {
		return false
	}
	return kept.ReportedCloseTime.IsZero() && !kept.RoomCloseTime.Equal(w.event(a).(*zego.RoomClose).RoomCloseTime)
}

// canTake reports whether the disk or the sink must have taken a callback that came at a time
// since the beginning.
func (w *world) canTake(p *process, a action, came time.Duration) bool {
	closes := a.event == zego.EventRoomClose
	events := !closes || w.offered[w.contradictionOf(a)] // it may need the ledger
	disk, sink := !p.failed.Load(), w.limits == usual && len(w.actions) < 50 && !w.refused[w.keyOf(a)]
	for _, f := range w.actions {
		during := func(slack time.Duration) bool { return f.at < time.Since(w.began) && came < f.at+f.lasts+slack }
		switch f.kind {
		case diskFull, diskSlow:
			disk = disk && !during(10*time.Second)
		case temporalAway: // starts and transactions may hang until their timeouts
			sink = sink && !(closes && during(7*time.Second))
		case temporalCall:
			sink = sink && !(closes && f.session == a.session)
		case ledgerAway:
			sink = sink && !(events && during(15*time.Second))
		case ledgerCall:
			sink = sink && !events
		}
	}
	return disk || sink
}

// settle waits until no entry of the inboxes waits, and checks the result. It returns false
// if the process dies before that.
func (w *world) settle(p *process) bool {
	waiting := func() (keys []string) {
		entries, err := w.entries(p)
		if err != nil {
			keys = append(keys, err.Error())
		}
		for key, e := range entries {
			if e.DeadAt.IsZero() {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		return keys
	}
	for deadline := time.Now().Add(idle); len(waiting()) > 0 && time.Now().Before(deadline) && !p.dead.Load(); {
		time.Sleep(500 * time.Millisecond)
	}
	keys := waiting()
	if p.dead.Load() {
		return false
	}
	if len(keys) > 0 {
		w.failf("%s waits, although its sink accepts since %v", keys[0], idle)
	}
	w.checkSafe(p)
	entries, _ := w.entries(p) // checkSafe has checked the error
	counts := inbox.Stats{}
	for _, box := range p.boxes {
		stats, _ := box.Stats(context.Background())
		counts.Waiting, counts.DeadLetters = counts.Waiting+stats.Waiting, counts.DeadLetters+stats.DeadLetters
	}
	if len(keys) == 0 && (counts.Waiting > 0 || counts.DeadLetters != int64(len(entries))) {
		w.failf("the inboxes count %d waiting entries and %d dead letters, want 0 and %d", counts.Waiting, counts.DeadLetters, len(entries))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, runs := range w.temporal.runs {
		if len(runs) != 1 {
			w.failf("%s has %d runs", id, len(runs))
		}
		if !w.offered[id] {
			w.failf("%s has a run, and was never offered", id)
		}
		r := runs[0]
		want := w.keyOf(action{kind: callback, event: "room_close", session: sessionOf(r.input.RoomSessionID), otherApp: r.input.AppID != app})
		if r.input.WorkflowID() != id || want != id || r.options.StartDelay != settling {
			w.failf("%s was started with %+v after %v", id, r.input, r.options.StartDelay)
		}
	}
	for key := range w.books.stored {
		if !w.offered[key] && !w.offered[withoutTimes(key)] {
			w.failf("%s is in the ledger, and was never offered", key)
		}
	}
	alone := 0
	for _, a := range w.actions {
		if (a.kind == ledgerCall || a.kind == ledgerAway) && (a.answer == hangs || a.answer == late) {
			alone++
		}
	}
	for key := range w.acked {
		e, dead := entries[key]
		switch {
		case !dead && !w.delivered(key):
			w.failf("%s was acknowledged, and is in no sink", key)
		case dead && (!w.refused[key] || w.retried[key]) && !(alone > 1 && strings.Contains(e.Reason, "timed out alone")):
			w.failf("%s is a dead letter, although its sink takes it: %s", key, e.Reason)
		}
	}
	return true
}
