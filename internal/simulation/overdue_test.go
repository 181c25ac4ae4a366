package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"time"

	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

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
	var calls, starts atomic.Int64
	api.Fail(func(url.Values) *zegofake.Failure {
		switch w.chance("zego", int(calls.Add(1))).IntN(6) {
		case 0:
			return &zegofake.Failure{Status: http.StatusServiceUnavailable, Body: "busy"}
		case 1:
			return &zegofake.Failure{Hang: true}
		}
		return nil
	})
	asked, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{app: {"server secret"}})
	if err != nil {
		return err
	}
	asked.HTTP.Transport = inProcess{api}
	k.reconciler.API, k.reconciler.OverdueAfter, k.reconciler.Gap = asked, overdueAfter, time.Minute
	k.reconciler.Start = func(_ context.Context, s session.Session) error {
		return k.startOverdue(s, int(starts.Add(1)))
	}

	overdue := map[string]bool{} // sessions without a run, by Workflow ID
	last := map[string]uint64{}  // newest session, by room
	occupied := map[string]int{} // number of rounds in which a room has users
	missed := map[string]int{}   // consecutive rounds in which ZEGO reports no users, by room
	rooms := []string{"room-0", "room-1"}
	for _, e := range k.events {
		last[e.RoomID] = max(last[e.RoomID], e.RoomSessionID)
		if id := e.ID.WorkflowID(); len(w.temporal.runs[id]) == 0 && !w.refused[id] {
			overdue[id] = true
		}
	}
	for n, room := range rooms {
		occupied[room] = w.chance("occupied", n).IntN(7)
	}
	for round := 0; ; round++ {
		time.Sleep(overdueAfter + time.Minute)
		for n, room := range rooms {
			api.Room(app, room)
			if missed[room]++; round < occupied[room] && (missed[room] == reconcile.Answers || w.chance("missed", n, round).IntN(3) > 0) {
				api.Room(app, room, zegofake.User{ID: "user-9", Login: w.began.Add(-2 * time.Hour)})
				missed[room] = 0
			}
		}
		if err := k.reconcile(ctx); err != nil {
			return err
		}
		left := 0
		w.mu.Lock()
		for id := range overdue {
			if len(w.temporal.runs[id]) == 0 {
				left++
			}
		}
		for _, room := range rooms {
			id := session.ID{AppID: app, RoomSessionID: last[room]}.WorkflowID()
			if overdue[id] && round < occupied[room] && len(w.temporal.runs[id]) > 0 {
				w.failf("session %d was closed out while its room had users", sessionOf(last[room]))
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
	w.overdue += len(overdue)
	k.awaitRuns()
	return k.recordLate(ctx, overdue)
}

// reconcile checks all overdue sessions.
func (k *worker) reconcile(ctx context.Context) error {
	suite := new(testsuite.WorkflowTestSuite)
	suite.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(k.reconciler.CheckOverdueSessions)
	for p, last := (reconcile.Progress{}), false; !last; {
		value, err := env.ExecuteActivity(k.reconciler.CheckOverdueSessions, p)
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
func (k *worker) startOverdue(s session.Session, n int) error {
	w, id, chance := k.w, s.WorkflowID(), k.w.chance("start overdue", n)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.refused[id]:
		return errors.New("simulated: this one never")
	case chance.IntN(5) == 0:
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
func (k *worker) recordLate(ctx context.Context, overdue map[string]bool) error {
	for id := range overdue {
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
