package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// ReconcileID returns the Workflow ID of the runs that reconcile, one at a time:
// closeout-reconcile, of the default task queue.
func ReconcileID(c *config.Config) string { return c.TaskQueue + "-reconcile" }

// startReconcile starts a run, if none is open.
func startReconcile(ctx context.Context, c *config.Config, t client.Client) error {
	_, err := t.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: ReconcileID(c), TaskQueue: c.TaskQueue,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:            "Close out what is overdue, adjust bills, add late recordings",
	}, reconcile.Name, reconcile.Progress{})
	if err != nil {
		return fmt.Errorf("start %s: %w", ReconcileID(c), err)
	}
	return nil
}

// lasting marks an error of Temporal's that is the same however often it is asked:
// what is refused for the request or for who makes it, and TLS that can't be. gRPC keeps
// only the text of the latter; a handshake that is cut has no "tls:" in it.
func lasting(err error) error {
	code := status.Code(err) // of what the SDK has no type for
	var answer serviceerror.ServiceError
	if errors.As(err, &answer) {
		code = answer.Status().Code()
	}
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return permanent(err)
	}
	if err != nil && strings.Contains(err.Error(), "authentication handshake failed") && strings.Contains(err.Error(), "tls: ") {
		return permanent(err)
	}
	return err
}

// newReconciler makes what looks at overdue sessions. Apps without a server secret
// are fine: theirs are reported.
func newReconciler(c *config.Config, books *ledger.Ledger, api *serverapi.Client, s *starter.Starter) *reconcile.Reconciler {
	r := &reconcile.Reconciler{
		Ledger: books, API: api, OverdueAfter: c.OverdueAfter,
		Gap:   min(time.Minute, c.ReconcileEvery),
		Start: s.Close,
		Adjust: func(ctx context.Context, b ledger.BilledSession) error {
			a := steps.AdjustmentOf(b)
			_, err := s.Start(ctx, starter.Request{Options: workflows.AdjustOptions(a, c.TaskQueue), Workflow: workflows.AdjustBillName, Input: a, AppID: a.Session.AppID})
			return err
		},
		AddLate: func(ctx context.Context, archived ledger.ArchivedSession) (bool, error) {
			late := steps.SessionOfArchived(archived)
			return s.Start(ctx, starter.Request{Options: workflows.LateRecordingsOptions(late, c.TaskQueue), Workflow: workflows.LateRecordings, Input: late, AppID: late.AppID})
		},
	}
	if c.Recordings.Expected != "none" {
		r.Apps, r.SweepEvery = slices.Sorted(maps.Keys(c.ServerSecrets)), sweepEvery
	}
	return r
}

// sweepEvery is how often the recording tasks of all rooms are read from ZEGO. Its backup
// storage keeps a file for three days.
const sweepEvery = time.Hour

// newWatch returns what starts runs when something is due; nil if the settings turn that
// off. It has lost bills restored, and none made of what is left.
func newWatch(c *config.Config, temporal client.Client, billing *steps.Billing, r *reconcile.Reconciler, log *slog.Logger) *reconcile.Watch {
	data := c.Temporal.DataConverter
	if data == nil {
		data, _ = c.PayloadKeys.ForClient()
	}
	billing.Earlier = func(ctx context.Context, s session.Session, runID string) (*ledger.MadeBill, error) {
		return repair.Bill(ctx, temporal, data, s.WorkflowID(), runID)
	}
	witness := &repair.Witness{Temporal: temporal, TaskQueue: c.TaskQueue, Data: data, Ledger: billing.Ledger, File: c.LookFile(), Log: log}
	billing.Confirm = witness.Confirm
	if c.ReconcileEvery == 0 {
		return nil
	}
	compareEvery := reconcile.CompareEvery
	if !c.Participants { // the ledger has no open session
		compareEvery = 0
	}
	return &reconcile.Watch{Reconciler: r, CompareEvery: compareEvery, Interval: c.ReconcileEvery, Apps: slices.Collect(maps.Keys(c.ServerSecrets)),
		Confirm: witness.ConfirmLook, Run: func(ctx context.Context) error { return startReconcile(ctx, c, temporal) }}
}
