package main

import (
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// A logout that arrives while the run waits is in the bill. A logout that arrives after
// the bill is in an adjustment, which another Workflow makes.
func TestLateLogoutsAreBilledOnARealTemporal(t *testing.T) {
	c := settings(t, map[string]string{"settling": "3s", "prices": "*=EUR 2"})
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	closed := newClose()
	logout := func(user string, long time.Duration) {
		t.Helper()
		if err := books.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 1, RoomSessionID: closed.RoomSessionID}, RoomID: closed.RoomID, Event: zego.EventRoomLogout,
			Stay: user, User: user, Role: "1", Login: closed.RoomCloseTime.Add(-long), Logout: closed.RoomCloseTime, SeenAt: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	post(t, address, closed)
	logout("in time", time.Minute)
	r := result(t, temporalClient, closed)
	if s := r.Steps[0].Summary; !strings.Contains(s, "1 participant, 60 s, 1 min, EUR 0.02; estimated, because of no_room_create") {
		t.Errorf("billed %s", s)
	}

	logout("late", time.Minute)
	dirty, err := books.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10)
	if err != nil || len(dirty) != 1 {
		t.Fatal(dirty, err)
	}
	next := activities.Adjustment{Session: dirty[0].Session, Number: dirty[0].Number}
	adjust, err := temporalClient.ExecuteWorkflow(t.Context(), workflows.AdjustOptions(next, c.TaskQueue), workflows.AdjustBillName, next)
	if err != nil {
		t.Fatal(err)
	}
	var adjusted workflows.Result
	if err := adjust.Get(t.Context(), &adjusted); err != nil {
		t.Fatal(err)
	}
	if s := adjusted.Steps[0].Summary; adjusted.State != workflows.StateDone || !strings.Contains(s, "by +60 s, +1 min, EUR 0.02, now 2 participants, 120 s, 2 min, EUR 0.04") {
		t.Errorf("adjusted %s, %+v", s, adjusted)
	}
	made, err := books.Adjustments(t.Context(), session.ID{AppID: 1, RoomSessionID: closed.RoomSessionID})
	if err != nil || len(made) != 1 || made[0].ID != session.Of(&closed).IdempotencyKey("adjustment-1") {
		t.Errorf("adjustments %+v, %v", made, err)
	}
	if dirty, err := books.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10); err != nil || len(dirty) != 0 {
		t.Errorf("still dirty: %+v, %v", dirty, err)
	}
}
