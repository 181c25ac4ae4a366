package workflows_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// settling returns the session closed as the webhook passes it to a run.
func settling(after time.Duration) session.Session {
	s := closed
	s.Settling = session.Duration(after)
	return s
}

func TestARunStartsAfterSettling(t *testing.T) {
	o := workflows.StartOptions(settling(90*time.Second), "queue")
	if o.StartDelay != 90*time.Second {
		t.Errorf("start delay %v", o.StartDelay)
	}
	late := workflows.LateRecordingsOptions(settling(90*time.Second), "queue")
	adjust := workflows.AdjustOptions(activities.Adjustment{Session: settling(90 * time.Second), Number: 1}, "queue")
	if late.StartDelay != 0 || adjust.StartDelay != 0 {
		t.Errorf("a session that has settled waits %v and %v", late.StartDelay, adjust.StartDelay)
	}
}

// In a Workflow that starts at once, only the bill waits.
func TestTheBillWaitsForLateCallbacks(t *testing.T) {
	env := newEnv(t)
	archivedAt, billedAt := time.Time{}, time.Time{}
	env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(func(context.Context, activities.Task) (activities.Archived, error) {
		archivedAt = env.Now()
		return archived, nil
	})
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(func(context.Context, activities.Task) (activities.Bill, error) {
		billedAt = env.Now()
		return billed, nil
	})
	env.After(time.Minute, func() {
		if d := env.Details(); !strings.Contains(d, "**billing** is waiting until "+closed.RoomCloseTime.Add(90*time.Second).Format(time.RFC3339)) || !strings.Contains(d, "**recordings** is done") {
			t.Errorf("details %s", d)
		}
	})
	if r := env.Run(workflows.RoomClose, settling(90*time.Second)); r.State != workflows.StateDone {
		t.Fatalf("result %+v", r)
	}
	if wait := billedAt.Sub(closed.RoomCloseTime); wait < 90*time.Second || wait > 91*time.Second {
		t.Errorf("the bill was made %v after the run began", wait)
	}
	if wait := archivedAt.Sub(closed.RoomCloseTime); wait > time.Second {
		t.Errorf("the recordings waited %v", wait)
	}
	env.AssertExpectations(t)
}

// Settling counts from the start of the run, even for a step after other steps.
func TestSettlingIncludesEarlierSteps(t *testing.T) {
	env := newEnv(t, &CRM{})
	env.OnActivity(crm.Notify, mock.Anything, mock.Anything).After(time.Hour).Return("told", nil)
	env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(func(context.Context, activities.Task) (activities.Bill, error) {
		if wait := env.Now().Sub(closed.RoomCloseTime); wait < time.Hour || wait > time.Hour+time.Minute {
			t.Errorf("the bill was made %v after the run began", wait)
		}
		return billed, nil
	}).Once()
	env.Run(func(ctx workflow.Context, s session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, s)
		told := workflows.Start(run, workflows.Step{Name: "crm"}, crm.Notify)
		billing := workflows.Billing
		billing.After = []workflows.Dependency{told}
		workflows.Start(run, billing, activities.Standard.FinalizeBill)
		return run.Finish()
	}, settling(90*time.Second))
	env.AssertExpectations(t)
}

func TestEachAdjustmentHasAKeyAndAWorkflowOfItsOwn(t *testing.T) {
	next := activities.Adjustment{Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: closed.RoomSessionID}, RoomID: "lobby", CloseReason: zego.CloseOffline, RoomCloseTime: closed.RoomCloseTime}, Number: 2}
	if next.Session != closed {
		t.Errorf("it is of %+v", next.Session)
	}
	options := workflows.AdjustOptions(next, "queue")
	if options.ID != "bill-adjustment-1-18446744073709551615-2" || options.TaskQueue != "queue" || !strings.Contains(options.StaticSummary, "Adjustment 2") {
		t.Errorf("options %+v", options)
	}
	env := newEnv(t)
	env.OnActivity(activities.Standard.AdjustBill, mock.Anything, activities.Task{Session: closed, IdempotencyKey: closed.IdempotencyKey("adjustment-2")}, 2).
		Return(activities.Adjusted{Adjustment: pricing.Adjustment{ID: uuid.New(), Number: 2}}, nil).Once()
	r := env.Run(func(ctx workflow.Context, _ session.Session) (workflows.Result, error) {
		return workflows.AdjustBill(func(session.Session) workflows.Workflow { return workflows.RoomClose })(ctx, next)
	}, closed)
	if r.State != workflows.StateDone || r.Steps[0].Step != "adjustment-2" || !strings.HasPrefix(r.Steps[0].Summary, "adjustment 2 of bill") {
		t.Errorf("result %+v", r)
	}
	env.AssertExpectations(t)
	if closed.IdempotencyKey("adjustment-1") == closed.IdempotencyKey("adjustment-2") {
		t.Error("two adjustments have one key")
	}
}
