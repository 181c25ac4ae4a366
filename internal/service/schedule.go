package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/restore"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// ScheduleID is that of the Temporal Schedule that has overdue sessions looked at:
// closeout-reconcile, of the default task queue. Another task queue in the namespace
// is that of another Closeout.
func ScheduleID(c *config.Config) string { return c.TaskQueue + "-reconcile" }

// setUpSchedule makes the schedule, or changes what differs from the settings, or
// deletes it. Whether a person has paused it is left as it is. Any number of
// processes may do it at once.
func setUpSchedule(ctx context.Context, c *config.Config, t client.Client) error {
	handle := t.ScheduleClient().GetHandle(ctx, ScheduleID(c))
	if c.ReconcileEvery == 0 {
		err := handle.Delete(ctx)
		if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
			return nil
		}
		return lasting(err)
	}
	wanted := client.ScheduleOptions{
		ID:   ScheduleID(c),
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: c.ReconcileEvery}}},
		Action: &client.ScheduleWorkflowAction{
			ID: ScheduleID(c), Workflow: reconcile.Name, Args: []any{reconcile.Progress{}}, TaskQueue: c.TaskQueue,
			StaticSummary: "Close out what is overdue, adjust bills, add late recordings",
		},
		// One run at a time. One that was missed is made up for by the next.
		Overlap:       enums.SCHEDULE_OVERLAP_POLICY_SKIP,
		CatchupWindow: max(c.ReconcileEvery, 10*time.Second), // Temporal's minimum
	}
	_, err := t.ScheduleClient().Create(ctx, wanted)
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return lasting(err)
	}
	return lasting(handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		there := in.Description.Schedule
		if same(there, wanted) {
			return nil, temporal.ErrSkipScheduleUpdate
		}
		there.Spec, there.Action = &wanted.Spec, wanted.Action
		there.Policy = &client.SchedulePolicies{Overlap: wanted.Overlap, CatchupWindow: wanted.CatchupWindow}
		return &client.ScheduleUpdate{Schedule: &there}, nil
	}}))
}

// same says whether the schedule does what is wanted.
func same(there client.Schedule, wanted client.ScheduleOptions) bool {
	action, ok := there.Action.(*client.ScheduleWorkflowAction)
	return ok && there.Spec != nil && there.Policy != nil &&
		len(there.Spec.Intervals) == 1 && there.Spec.Intervals[0] == wanted.Spec.Intervals[0] &&
		len(there.Spec.Calendars)+len(there.Spec.CronExpressions) == 0 &&
		there.Policy.Overlap == wanted.Overlap && there.Policy.CatchupWindow == wanted.CatchupWindow &&
		action.Workflow == reconcile.Name && action.TaskQueue == wanted.Action.(*client.ScheduleWorkflowAction).TaskQueue
}

// lasting marks an error of Temporal's that is the same however often it is asked:
// what is refused for the request or for who makes it.
func lasting(err error) error {
	code := status.Code(err) // of what the SDK has no type for
	var answer serviceerror.ServiceError
	if errors.As(err, &answer) {
		code = answer.Status().Code()
	}
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return backoff.Permanent(err)
	}
	return err
}

// keepSchedule sets the schedule up beside a worker, which works without it.
func keepSchedule(ctx context.Context, c *config.Config, t client.Client, log *slog.Logger) {
	if err := insist(ctx, log, "set up the schedule "+ScheduleID(c), func() error { return setUpSchedule(ctx, c, t) }); err != nil && ctx.Err() == nil {
		log.Error("overdue sessions are not looked at unless `closeout setup` makes the schedule", "schedule", ScheduleID(c), "error", err)
	}
}

// newReconciler makes what looks at overdue sessions. Apps without a server secret
// are fine: theirs are reported.
func newReconciler(c *config.Config, books *ledger.Ledger, start intake.Options) (*reconcile.Reconciler, error) {
	api, err := zego.NewClient(c.ServerAPI, c.ServerSecrets)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_SERVER_API_URL, CLOSEOUT_SERVER_SECRETS: %w", err)
	}
	return &reconcile.Reconciler{
		Ledger: books, API: api, OverdueAfter: c.OverdueAfter,
		Gap: min(time.Minute, c.ReconcileEvery),
		Start: func(ctx context.Context, s activities.Session) error {
			_, err := intake.Start(ctx, start, s)
			return err
		},
		Adjust: func(ctx context.Context, s ledger.BilledSession) error {
			return intake.Adjust(ctx, start, activities.AdjustmentOf(s))
		},
		AddLate: func(ctx context.Context, s ledger.ArchivedSession) (bool, error) {
			return intake.AddLate(ctx, start, activities.SessionOfArchived(s))
		},
	}, nil
}

// keepPast has bills restored that the ledger has lost, and none made of what is left.
// Without reconciliations nobody notes how far the ledger is.
func keepPast(c *config.Config, temporal client.Client, billing *activities.Billing, r *reconcile.Reconciler, log *slog.Logger) {
	data := c.Temporal.DataConverter
	if data == nil {
		data, _ = c.PayloadKeys.ForClient()
	}
	billing.Earlier = func(ctx context.Context, s activities.Session, runID string) (*ledger.MadeBill, error) {
		return restore.Bill(ctx, temporal, data, workflows.WorkflowID(s), runID)
	}
	if c.ReconcileEvery == 0 {
		return
	}
	witness := &restore.Witness{Temporal: temporal, TaskQueue: c.TaskQueue, Ledger: billing.Ledger, Log: log}
	billing.Confirm, r.Mark = witness.Confirm, witness.Mark
}
