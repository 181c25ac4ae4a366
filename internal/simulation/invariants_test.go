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
			if err != nil {
				return nil, err
			}
			if n == 1 { // the inbox of events
				var event ledger.Event
				if err := json.Unmarshal(e.Body, &event); err != nil {
					return nil, err
				}
				e.Key = factsOf(event)
			}
			if _, twice := all[e.Key]; twice {
				w.failf("the inbox has %s twice", e.Key)
			}
			all[e.Key] = e
		}
	}
	return all, nil
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
	for _, e := range entries {
		if !e.DeadAt.IsZero() && e.Reason == "" {
			w.failf("%s is a dead letter without a reason", e.Key)
		}
	}
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
		want := w.keyOf(action{kind: callback, event: "room_close", session: sessionOf(r.input.RoomSessionID)})
		if r.input.WorkflowID() != id || want != id || r.options.StartDelay != settling {
			w.failf("%s was started with %+v after %v", id, r.input, r.options.StartDelay)
		}
	}
	for key := range w.books.stored {
		if !w.offered[key] {
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
		case dead && !w.refused[key] && !(alone > 1 && strings.Contains(e.Reason, "timed out alone")):
			w.failf("%s is a dead letter, although its sink takes it: %s", key, e.Reason)
		}
	}
	return true
}
