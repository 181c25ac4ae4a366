package audit_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/session"
)

// Audits find no fault while sessions move, whatever the order of their changes. At the end, every
// session is closed out.
func TestAuditsOfALiveSystem(t *testing.T) {
	const movers, each = 4, 40
	worlds(t, func(t *testing.T, w *world) {
		w.options.Grace = time.Hour // the journal's lines may be late
		var sessions [movers][]session.Session
		for i := range sessions {
			for range each {
				sessions[i] = append(sessions[i], w.session())
			}
		}
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var all sync.WaitGroup
		var moving atomic.Int32
		moving.Store(movers)
		for i := range movers {
			all.Go(func() {
				defer moving.Add(-1)
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				var ways [][]func()
				for _, s := range sessions[i] {
					ways = append(ways, w.way(r, s))
				}
				for len(ways) > 0 {
					n := r.IntN(min(len(ways), 10)) // at most ten sessions move at the same time
					ways[n][0]()
					if ways[n] = ways[n][1:]; len(ways[n]) == 0 {
						ways = append(ways[:n], ways[n+1:]...)
					}
				}
			})
		}
		audits, pending := 0, int64(0)
		for moving.Load() > 0 {
			report, err := audit.Run(t.Context(), w.options)
			if err != nil || !report.OK() {
				t.Fatalf("audit %d: %v, %+v", audits, err, report)
			}
			audits++
			pending += report.Pending()
		}
		all.Wait()
		if pending == 0 {
			t.Errorf("no session was pending in %d audits", audits)
		}
		w.options.Grace = 0
		if r := w.expect(); r.Acknowledged != movers*each || r.Runs.Completed != movers*each || r.Bills != movers*each || r.Manifests != movers*each || r.Pending() != 0 {
			t.Errorf("report %+v", r)
		}
	})
}

// way returns the changes of a session, in order. It is random whether the session passes through
// the inbox, and how late its journal line and its visibility record are.
func (w *world) way(r *rand.Rand, s session.Session) []func() {
	var e *execution
	change := func(f func()) func() {
		return func() {
			w.temporal.mu.Lock()
			defer w.temporal.mu.Unlock()
			f()
		}
	}
	start := func() { e = w.start(s, running, false) }
	steps, started := []func(){start}, 0
	if r.IntN(2) == 0 {
		steps, started = []func(){func() { w.inbox.add(s, false) }, start, func() { w.inbox.remove(s) }}, 1
	}
	steps = append(steps, func() { w.bill(s) }, func() { w.manifest(s) }, change(func() { e.status = completed }))
	// after inserts a change at a random place after another.
	after := func(other int, step func()) {
		steps = slices.Insert(steps, other+1+r.IntN(len(steps)-other), step)
	}
	after(started, change(func() { e.listed = true }))
	after(0, func() { w.journal.add(s, true) })
	return append(steps, change(func() { e.visible = completed }))
}
