package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	// overdueAfter is CLOSEOUT_OVERDUE_AFTER.
	overdueAfter = time.Hour
	// maxRounds is the number of reconciliations after which all sessions are closed out,
	// although rooms have users for a while and requests fail.
	maxRounds = 40
)

// inProcess lets a client talk to a server without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// closeOut reconciles until each session without a room_close has its run. It checks that no
// session gets a run while its room has users. ZEGO's API and Temporal fail now and then.
func (k *worker) closeOut() error {
	w, ctx := k.w, context.Background()
	api := zegofake.New(app, "server secret")
	api.Fail(k.failures())
	asked, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{app: {"server secret"}})
	if err != nil {
		return err
	}
	c := k.newClosing(api)
	asked.HTTP.Transport = c
	k.reconciler.API, k.reconciler.OverdueAfter, k.reconciler.Gap = asked, overdueAfter, time.Minute
	starts := 0
	k.reconciler.Start = func(_ context.Context, s session.Session) error {
		starts++
		return k.startOverdue(s, c, starts)
	}

	occupied := map[string]int{} // number of rounds in which a room has users
	missed := map[string]int{}   // consecutive rounds in which ZEGO reports no users, by room
	rooms := []string{"room-0", "room-1"}
	for n, room := range rooms {
		occupied[room] = w.chance("occupied", n).IntN(10)
	}
	for round := 0; ; round++ {
		if round < 8 {
			time.Sleep(between(w.chance("pause", round), time.Second, 10*time.Minute))
			if err := c.recordBetween(ctx, round); err != nil {
				return err
			}
		}
		time.Sleep(overdueAfter + time.Minute)
		for n, room := range rooms {
			api.Room(app, room)
			if missed[room]++; round < occupied[room] && (missed[room] == reconcile.Answers || w.chance("missed", n, round).IntN(3) > 0) {
				api.Room(app, room, zegofake.User{ID: "user-9", Login: w.began.Add(-2 * time.Hour)})
				missed[room] = 0
			}
		}
		c.asked = map[string]bool{}
		// Reconciliations within Gap get one answer about a session that may be gone.
		for began, n := time.Now(), w.chance("repeat", round).IntN(3); n >= 0 && time.Since(began) < k.reconciler.Gap; n-- {
			before := maps.Clone(c.answers)
			err := k.reconcile()
			if err != nil && !strings.Contains(err.Error(), errLedger.Error()) {
				return err
			}
			for id := range before {
				if err != nil { // the ledger may lack an answer
					c.answers[id] = max(c.answers[id], before[id])
				}
			}
		}
		left := 0
		w.mu.Lock()
		for id, s := range c.overdue {
			started := len(w.temporal.runs[id]) > 0
			if !started {
				left++
			}
			if started && round < occupied[s.RoomID] && s.RoomSessionID == c.last[s.RoomID] {
				w.failf("session %d was closed out while its room had users", sessionOf(s.RoomSessionID))
			}
		}
		w.mu.Unlock()
		if left == 0 {
			break
		}
		if round == maxRounds {
			return fmt.Errorf("%d sessions without a room_close are not closed out after %d reconciliations", left, round)
		}
	}
	w.overdue += len(c.overdue)
	k.awaitRuns()
	return k.recordLate(ctx, c.overdue)
}

// reconcile checks all overdue sessions.
func (k *worker) reconcile() error {
	for p, last := (reconcile.Progress{}), false; !last; {
		value, err := execute(k.reconciler.CheckOverdueSessions, p)
		if err != nil {
			return fmt.Errorf("check overdue sessions: %w", err)
		}
		var page reconcile.Page
		if err := value.Get(&page); err != nil {
			return err
		}
		p.Before, p.After, p.Failing, last = page.Before, page.After, page.Failing, page.Last
	}
	return nil
}

// startOverdue starts a run as Temporal does: one for each Workflow ID. Sometimes it returns
// an error, with or without having started the run.
func (k *worker) startOverdue(s session.Session, c *closing, n int) error {
	w, id, chance := k.w, s.WorkflowID(), k.w.chance("start overdue", n)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused[id] {
		return errors.New("simulated: this one never")
	}
	c.check(s)
	if chance.IntN(5) == 0 {
		return errors.New("simulated: away")
	}
	if len(w.temporal.runs[id]) == 0 {
		e := &execution{options: workflows.StartOptions(s, taskQueue), input: s, began: time.Now()}
		w.temporal.runs[id] = append(w.temporal.runs[id], e)
		k.start(e)
	}
	if chance.IntN(5) == 0 {
		return errors.New("simulated: answer lost")
	}
	return nil
}

// recordLate records logouts that are later than the end of their session in its bill, so
// that the bill must be adjusted.
func (k *worker) recordLate(ctx context.Context, overdue map[string]session.Session) error {
	for _, id := range slices.Sorted(maps.Keys(overdue)) { // the order may depend on nothing but the seed
		runs := k.w.temporal.runs[id]
		if len(runs) != 1 {
			return fmt.Errorf("%s has %d runs", id, len(runs))
		}
		s := runs[0].input
		if k.w.chance("late logout", sessionOf(s.RoomSessionID)).IntN(3) > 0 {
			continue
		}
		e := ledger.Event{ID: s.ID, RoomID: s.RoomID, Event: zego.EventRoomLogout, Stay: "late", User: "user-late", Login: s.RoomCloseTime.Add(-time.Minute),
			Logout: s.RoomCloseTime.Add(time.Minute), SentAt: time.Now(), SeenAt: time.Now()}
		if err := k.Record(ctx, []ledger.Event{e}); err != nil {
			return err
		}
	}
	return nil
}
