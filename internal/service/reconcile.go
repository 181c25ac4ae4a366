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

	"github.com/closeouthq/closeout/activities"
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

// ReconcileID returns the Workflow ID of reconciliations, which allows one run at a time. For the
// default Task Queue it is closeout-reconcile.
func ReconcileID(c *config.Config) string { return c.TaskQueue + "-reconcile" }

// startReconcile starts a reconciliation unless one is open.
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

// lasting makes an error of Temporal permanent if a retry is useless: for an invalid or forbidden
// request, or for impossible TLS. Of the latter, gRPC keeps only the text; an interrupted
// handshake has no "tls:" in it.
func lasting(err error) error {
	code := status.Code(err) // for errors without a type in the SDK
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

// newReconciler returns the Activities of the reconciliation. Sessions of apps without a server
// secret are only reported.
func newReconciler(c *config.Config, books *ledger.Ledger, api *serverapi.Client, s *starter.Starter) *reconcile.Reconciler {
	r := &reconcile.Reconciler{
		Ledger: books, API: api, OverdueAfter: c.OverdueAfter,
		Gap:   min(time.Minute, c.ReconcileEvery),
		Start: s.Close,
		Adjust: func(ctx context.Context, b ledger.BilledSession) error {
			a := activities.Adjustment{Session: b.Session, Number: b.Number}
			_, err := s.Start(ctx, starter.Request{Options: workflows.AdjustOptions(a, c.TaskQueue), Workflow: workflows.AdjustBillName, Input: a, AppID: a.Session.AppID})
			return err
		},
		AddLate: func(ctx context.Context, late session.Session) (bool, error) {
			return s.Start(ctx, starter.Request{Options: workflows.LateRecordingsOptions(late, c.TaskQueue), Workflow: workflows.LateRecordings, Input: late, AppID: late.AppID})
		},
	}
	if c.Recordings.Expected != "none" {
		r.Apps, r.SweepEvery = slices.Sorted(maps.Keys(c.ServerSecrets)), sweepEvery
	}
	return r
}

// sweepEvery is how often recording tasks are read from ZEGO, whose backup storage keeps files for
// three days.
const sweepEvery = time.Hour

// newWatch returns the Watch that starts reconciliations, or nil if the settings turn it off. It
// also records losses of a restored ledger before work is due.
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
	if !c.Participants { // the ledger has no open sessions
		compareEvery = 0
	}
	return &reconcile.Watch{Reconciler: r, CompareEvery: compareEvery, Interval: c.ReconcileEvery, Apps: slices.Collect(maps.Keys(c.ServerSecrets)),
		Confirm: witness.ConfirmLook, Run: func(ctx context.Context) error { return startReconcile(ctx, c, temporal) }}
}
