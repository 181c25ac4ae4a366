package main

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// overdueSoon returns settings that make a session overdue at once, and start a run every
// second, against the test's fake of ZEGO.
func overdueSoon(t *testing.T, api *zegofake.API) *config.Config {
	c := settings(t, map[string]string{
		"apps": "1=secret;2=secret", "server-secrets": "1=server secret", "server-api-url": api.Serve(t),
		"overdue-after": "0s", "reconcile-interval": "1s",
	})
	return c
}

// stay stores a user's stay in the ledger by callbacks. A zero logout is lost.
func stay(t *testing.T, c *config.Config, s zego.RoomClose, user string, login, logout time.Time) {
	t.Helper()
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	common := ledger.Event{ID: session.Of(&s).ID, RoomID: s.RoomID, SeenAt: time.Now()}
	create, stay := common, common
	create.Event, create.Create = zego.EventRoomCreate, login
	stay.Event, stay.Stay, stay.User, stay.Login, stay.Logout = zego.EventRoomLogin, user, user, login, logout
	if !logout.IsZero() {
		stay.Event = zego.EventRoomLogout
	}
	if err := books.Record(t.Context(), []ledger.Event{create, stay}); err != nil {
		t.Fatal(err)
	}
}

// started reports whether a session has a run.
func started(t *testing.T, temporal client.Client, s zego.RoomClose) bool {
	t.Helper()
	_, err := temporal.DescribeWorkflowExecution(t.Context(), session.Of(&s).WorkflowID(), "")
	if missing := new(serviceerror.NotFound); err != nil && !errors.As(err, &missing) {
		t.Fatal(err)
	}
	return err == nil
}

// reconciled returns the result of the last closed run, even if it failed, and the number
// of closed runs.
func reconciled(t *testing.T, temporal client.Client, c *config.Config) (result reconcile.Result, ended int, failure error) {
	t.Helper()
	list, err := temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
		Query: "WorkflowId = '" + service.ReconcileID(c) + "' AND ExecutionStatus != 'Running'"})
	if err != nil {
		t.Fatal(err)
	}
	all := list.GetExecutions()
	if len(all) == 0 {
		return result, 0, nil
	}
	last := slices.MaxFunc(all, func(a, b *workflow.WorkflowExecutionInfo) int {
		return a.GetCloseTime().AsTime().Compare(b.GetCloseTime().AsTime())
	})
	failure = temporal.GetWorkflow(t.Context(), service.ReconcileID(c), last.GetExecution().GetRunId()).Get(t.Context(), &result)
	if failed := new(sdk.ApplicationError); errors.As(failure, &failed) && failed.HasDetails() {
		if err := failed.Details(&result); err != nil {
			t.Fatal(err)
		}
	}
	return result, len(all), failure
}

// An operator terminated the run of a session. Temporal refuses another run, so no bill
// would ever be made. The session stays overdue, and reconciliation fails and names the
// run, until the run is reset.
func TestASessionWhoseRunWasTerminatedStaysOverdue(t *testing.T) {
	t.Parallel()
	api := zegofake.New(1, "server secret")
	c := overdueSoon(t, api)
	// The run starts at once and bills later, so that it can be terminated in between.
	c.Settling = time.Hour
	parts := both
	parts.Extension.Immediate = workflows.All()
	setUp(t, c)
	address := start(t, c, parts)
	temporal := dial(t, c)
	closed := newClose()
	id := session.Of(&closed).WorkflowID()
	if a := post(t, address, closed); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	wait(t, "its first workflow task is done, to which it can be reset", func() bool {
		run, err := temporal.DescribeWorkflowExecution(t.Context(), id, "")
		return err == nil && run.GetWorkflowExecutionInfo().GetHistoryLength() > 4
	})
	if err := temporal.TerminateWorkflow(t.Context(), id, "", "by mistake"); err != nil {
		t.Fatal(err)
	}
	noon := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	stay(t, c, closed, "a", noon, noon.Add(time.Minute))
	wait(t, "the reconciliation fails and names the run", func() bool {
		_, _, failure := reconciled(t, temporal, c)
		return failure != nil && strings.Contains(failure.Error(), "run "+id+" has ended as Terminated")
	})
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if n, err := books.CountOverdue(t.Context(), time.Now()); err != nil || n.Left != 1 {
		t.Errorf("overdue %+v, %v", n, err)
	}
	if _, err := temporal.WorkflowService().ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: c.Temporal.Namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id}, Reason: "test", RequestId: "1", WorkflowTaskFinishEventId: 4,
	}); err != nil {
		t.Fatal(err)
	}
	wait(t, "it isn't overdue any more", func() bool {
		n, err := books.CountOverdue(t.Context(), time.Now())
		return err == nil && n.Left == 0
	})
}

// A room was created, users came and went, and no room_close ever arrived. The schedule
// closes out the session once, with a bill that is an estimate. A room_close that arrives
// later is a duplicate.
func TestLostRoomCloseIsReconciled(t *testing.T) {
	t.Parallel()
	api := zegofake.New(1, "server secret")
	c := overdueSoon(t, api)
	setUp(t, c)
	address := start(t, c, both)
	temporal := dial(t, c)

	noon := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	gone, first, second, unasked := newClose(), newClose(), newClose(), newClose()
	gone.RoomID, first.RoomID, second.RoomID, unasked.RoomID = "gone", "lobby", "lobby", "gone"
	unasked.AppID = 2
	stay(t, c, gone, "a", noon, noon.Add(time.Minute))
	stay(t, c, gone, "b", noon, noon.Add(2*time.Minute))
	// The room's name lives on as another session, with the same user.
	stay(t, c, first, "a", noon, time.Time{})
	stay(t, c, second, "a", noon.Add(5*time.Minute), time.Time{})
	api.Room(1, "lobby", zegofake.User{ID: "a", Login: noon.Add(5 * time.Minute)})
	// This app has no server secret.
	stay(t, c, unasked, "a", noon, noon.Add(time.Minute))

	r := result(t, temporal, gone)
	want := session.Session{ID: session.ID{AppID: 1, RoomSessionID: gone.RoomSessionID}, RoomID: "gone", RoomCloseTime: noon.Add(2 * time.Minute), Reconciled: true}
	if r.State != workflows.StateDone || input(t, temporal, gone) != want {
		t.Errorf("result %+v", r)
	}
	if b := bill(t, c, gone); !b.RoomCloseTime.Equal(want.RoomCloseTime) || !b.Reconciled || b.Usage.Seconds != 180 || b.Usage.Estimated == 0 {
		t.Errorf("bill %+v", b)
	}
	if s := input(t, temporal, first); !s.RoomCloseTime.Equal(noon) || !s.Reconciled {
		t.Errorf("the room's first session: %+v", s)
	}
	wait(t, "a run finds nothing gone any more", func() bool {
		result, _, failure := reconciled(t, temporal, c)
		if failure != nil {
			t.Fatalf("a run failed: %v", failure)
		}
		return result.Apps[1].Overdue == result.Apps[1].Alive && result.Apps[2].Reported == 1
	})
	if started(t, temporal, second) || started(t, temporal, unasked) {
		t.Error("the room's second session, or that without a server secret, is closed out")
	}
	query := "WorkflowId = '" + want.WorkflowID() + "'"
	if a := post(t, address, gone); a.code != 200 || a.Status != webhook.Duplicate {
		t.Errorf("the room_close that came late: %+v", a)
	}
	wait(t, "the run is listed", func() bool { return runs(t, temporal, query) == 1 })

	// Callbacks after the bill lead to an adjustment, which the same schedule starts.
	stay(t, c, gone, "c", noon, noon.Add(90*time.Second))
	adjustment := workflows.AdjustmentID(activities.Adjustment{Session: want, Number: 1})
	wait(t, "the bill is adjusted", func() bool {
		info, err := temporal.DescribeWorkflowExecution(t.Context(), adjustment, "")
		return err == nil && info.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED
	})
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	wait(t, "nothing is left to adjust", func() bool {
		dirty, err := books.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(dirty) == 0
	})
}

// While ZEGO can't be asked, nothing is closed out, and the runs fail visibly. When it
// can be asked again, they succeed.
func TestNothingIsClosedOutWithoutZEGOsAnswer(t *testing.T) {
	t.Parallel()
	api := zegofake.New(1, "server secret")
	api.Fail(func(url.Values) *zegofake.Failure {
		return &zegofake.Failure{Code: 100000005, Message: "invalid signature"}
	})
	c := overdueSoon(t, api)
	setUp(t, c)
	start(t, c, service.Parts{Worker: true})
	temporal := dial(t, c)
	gone := newClose()
	stay(t, c, gone, "a", time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))

	wait(t, "runs fail", func() bool {
		result, n, failure := reconciled(t, temporal, c)
		return n > 3 && failure != nil && strings.Contains(failure.Error(), "invalid signature") && result.Apps[1].Failed == 1
	})
	if started(t, temporal, gone) {
		t.Fatal("it is closed out")
	}
	api.Fail(nil)
	if r := result(t, temporal, gone); !input(t, temporal, gone).Reconciled {
		t.Errorf("result %+v", r)
	}
	wait(t, "runs succeed", func() bool {
		_, _, failure := reconciled(t, temporal, c)
		return failure == nil
	})
}

// With any number of workers, one run is open at a time, and none starts when nothing is
// due.
func TestAnIdleCloseoutStartsNoRun(t *testing.T) {
	t.Parallel()
	c := overdueSoon(t, zegofake.New(1, "server secret"))
	setUp(t, c)
	for range 3 {
		start(t, c, service.Parts{Worker: true})
	}
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	wait(t, "workers have looked", func() bool {
		last, err := books.LastLook(t.Context())
		return err == nil && last.Number > 3
	})
	temporal := dial(t, c)
	if n := runs(t, temporal, "TaskQueue = '"+c.TaskQueue+"'"); n != 0 {
		t.Errorf("%d runs", n)
	}
	noon := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	gone := newClose()
	stay(t, c, gone, "a", noon, noon.Add(time.Minute))
	if r := result(t, temporal, gone); !input(t, temporal, gone).Reconciled {
		t.Errorf("result %+v", r)
	}
}
