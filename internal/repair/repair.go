// Package repair fixes faults that need no decision: it restores bills that a ledger has lost
// from Temporal's histories, and starts or resets runs.
package repair

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Kind is a kind of repair.
type Kind string

// The kinds.
const (
	// RestoreBill puts back the bill made by the run.
	RestoreBill Kind = "restore the bill"
	// RestoreAdjustment puts back the adjustment made by its run.
	RestoreAdjustment Kind = "restore the adjustment"
	// StartRun starts a run for a session in the ledger without one.
	StartRun Kind = "start the run"
	// ResetRun resets the run to its first Workflow Task. It does not repeat effects.
	ResetRun Kind = "reset the run"
)

// Kinds returns all kinds in the order of repairs, so that a run that is reset finds the restored
// bill.
func Kinds() []Kind { return []Kind{RestoreBill, RestoreAdjustment, StartRun, ResetRun} }

// A Repair is one repair of a session.
type Repair struct {
	Kind
	session.ID
	WorkflowID, RunID string
}

// Repairer makes repairs.
type Repairer struct {
	// Temporal, Data and Ledger: see audit.Options.
	Temporal  client.Client
	Data      converter.DataConverter
	Ledger    *ledger.Ledger
	Namespace string
	// Start starts the run of a session.
	Start func(context.Context, session.Session) error
}

// errNotKept means that the run's history was deleted.
var errNotKept = errors.New("the run's history isn't kept any more")

// Do makes a repair. It checks the current state first, so it is safe to repeat, also on a
// running system.
func (r *Repairer) Do(ctx context.Context, of Repair) error {
	switch of.Kind {
	case RestoreBill:
		made, err := Bill(ctx, r.Temporal, r.Data, of.WorkflowID, of.RunID)
		if err == nil && made == nil {
			err = errNotKept
		}
		if err == nil {
			_, err = r.Ledger.RestoreBill(ctx, *made)
		}
		return err
	case RestoreAdjustment:
		made, err := Adjustment(ctx, r.Temporal, r.Data, of.WorkflowID, of.RunID)
		if err == nil && made == nil {
			err = errNotKept
		}
		if err == nil {
			_, err = r.Ledger.RestoreAdjustment(ctx, *made)
		}
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("%w; restore its bill first", err)
		}
		return err
	case StartRun:
		session, err := r.session(ctx, of)
		if err != nil {
			return err
		}
		return r.Start(ctx, session)
	case ResetRun:
		return r.reset(ctx, of.WorkflowID)
	}
	return fmt.Errorf("%s: an operator has to decide", of.WorkflowID)
}

// session returns the session from its bill, or else from its events.
func (r *Repairer) session(ctx context.Context, of Repair) (s session.Session, err error) {
	bill, err := r.Ledger.Bill(ctx, of.ID)
	if !errors.Is(err, sql.ErrNoRows) {
		return bill.Session, err
	}
	known, err := r.Ledger.Session(ctx, of.ID)
	if err != nil {
		return s, err
	}
	s = session.Session{ID: of.ID, RoomID: known.RoomID, Reconciled: true}
	if s.RoomCloseTime, err = r.Ledger.LastTime(ctx, of.ID); err == nil && s.RoomCloseTime.IsZero() {
		err = errors.New("no callback has its time; send it with what is known of it elsewhere, by closeout send --only room_close")
	}
	return s, err
}

// reset resets a run to its first Workflow Task.
func (r *Repairer) reset(ctx context.Context, id string) error {
	run, err := r.Temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return err
	}
	runID := run.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	for events := r.Temporal.GetWorkflowHistory(ctx, id, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		e, err := events.Next()
		if err != nil {
			return fmt.Errorf("read its history: %w", err)
		}
		if e.GetEventType() != enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			continue
		}
		_, err = r.Temporal.WorkflowService().ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: r.Namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id, RunId: runID},
			Reason: "closeout repair", RequestId: uuid.NewString(), WorkflowTaskFinishEventId: e.GetEventId(),
		})
		return err
	}
	return errors.New("no worker has started it, so it cannot be reset; delete it, and send the session again")
}
