package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/restore"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Repair is what mends a fault without a person.
type Repair string

// The repairs, in the order in which they are to be made: a run that is reset finds the
// bill that was restored.
const (
	// RestoreBill puts back the bill that the run has made.
	RestoreBill Repair = "restore the bill"
	// RestoreAdjustment puts back the adjustment that its run has made.
	RestoreAdjustment Repair = "restore the adjustment"
	// StartRun starts a run for a session that the ledger knows and Temporal doesn't.
	StartRun Repair = "start the run"
	// ResetRun resets the run to its first workflow task: what was done isn't done again.
	ResetRun Repair = "reset the run"
)

// Repairs are all of them, in their order.
func Repairs() []Repair { return []Repair{RestoreBill, RestoreAdjustment, StartRun, ResetRun} }

// repair chooses it by the kind of the fault.
func (f Fault) repair() Repair {
	switch f.Kind {
	case NoBill:
		if f.runID != "" {
			return RestoreBill
		}
	case NoAdjustment:
		return RestoreAdjustment
	case NoRun, NotClosedOut:
		return StartRun
	case NoManifest, RunFailed, RunTerminated, RunTimedOut, RunCanceled:
		return ResetRun
	}
	return ""
}

// Mender makes repairs.
type Mender struct {
	// Temporal, Data and Ledger are those of the audit.
	Temporal Temporal
	Data     converter.DataConverter
	Ledger   *ledger.Ledger
	// Start starts the run of a session, and Reset resets one to its first workflow task.
	Start func(context.Context, activities.Session) error
	Reset func(ctx context.Context, workflowID string) error
}

// Mend makes the repair of a fault. It looks again at what it is about, so that it may
// be made twice, and while the system is running.
func (m *Mender) Mend(ctx context.Context, f Fault) error {
	session := activities.Session{AppID: f.AppID, RoomSessionID: f.RoomSessionID}
	switch f.Repair {
	case RestoreBill:
		made, err := restore.Bill(ctx, m.Temporal, m.Data, f.WorkflowID, f.runID)
		if err == nil && made == nil {
			err = errors.New("the run's history isn't kept any more")
		}
		if err == nil {
			_, err = m.Ledger.RestoreBill(ctx, *made)
		}
		return err
	case RestoreAdjustment:
		made, err := restore.Adjustment(ctx, m.Temporal, m.Data, f.WorkflowID, f.runID)
		if err == nil && made == nil {
			err = errors.New("the run's history isn't kept any more")
		}
		if err == nil {
			_, err = m.Ledger.RestoreAdjustment(ctx, *made)
		}
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("%w; restore its bill first", err)
		}
		return err
	case StartRun:
		bill, err := m.Ledger.MadeBill(ctx, f.AppID, f.RoomSessionID)
		switch {
		case err == nil:
			session.RoomID, session.CloseReason, session.RoomCloseTime, session.Reconciled = bill.RoomID, zego.CloseReason(bill.CloseReason), bill.RoomCloseTime, bill.Reconciled
		case errors.Is(err, sql.ErrNoRows):
			known, err := m.Ledger.Session(ctx, f.AppID, f.RoomSessionID)
			if err != nil {
				return err
			}
			if session.RoomCloseTime, err = m.Ledger.LastTime(ctx, f.AppID, f.RoomSessionID); err != nil {
				return err
			}
			if session.RoomCloseTime.IsZero() {
				return errors.New("no callback told when it was; send it with what is known of it elsewhere, by closeout send")
			}
			session.RoomID, session.Reconciled = known.RoomID, true
		default:
			return err
		}
		return m.Start(ctx, session)
	case ResetRun:
		return m.Reset(ctx, f.WorkflowID)
	}
	return fmt.Errorf("%s of %s is for a person: %s", f.Kind, f.WorkflowID, f.Remedy)
}

// adjustmentPrefix is what the IDs of all adjustments' runs begin with, and
// adjustmentID what they are made of.
const adjustmentPrefix = "bill-adjustment-"

var adjustmentID = regexp.MustCompile(`^` + adjustmentPrefix + `(\d+)-(\d+)-(\d+)$`)

// readAdjustments looks for the adjustments that runs have made.
func (a *audit) readAdjustments(ctx context.Context) error {
	query := fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND ExecutionStatus = 'Completed'", adjustmentPrefix)
	if !a.Since.IsZero() {
		query += fmt.Sprintf(" AND StartTime >= '%s'", a.Since.UTC().Format(time.RFC3339Nano))
	}
	for run, err := range a.list(ctx, query) {
		if err != nil {
			return fmt.Errorf("list adjustments: %w", err)
		}
		parts := adjustmentID.FindStringSubmatch(run.id)
		if parts == nil || run.status != enums.WORKFLOW_EXECUTION_STATUS_COMPLETED || a.late(run.start) {
			continue
		}
		app, appErr := strconv.ParseUint(parts[1], 10, 32)
		session, sessionErr := strconv.ParseUint(parts[2], 10, 64)
		number, numberErr := strconv.Atoi(parts[3])
		if errors.Join(appErr, sessionErr, numberErr) != nil {
			continue
		}
		there, err := a.Ledger.Adjusted(ctx, uint32(app), session, number)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if there {
			continue
		}
		made, err := restore.Adjustment(ctx, a.Temporal, a.Data, run.id, run.runID)
		if err != nil {
			return err
		}
		if made == nil {
			continue // there was nothing to adjust
		}
		a.report.add(keyOf(uint32(app), session), Fault{Kind: NoAdjustment, workflowID: workflows.AdjustmentID(activities.Adjustment{
			Session: activities.Session{AppID: uint32(app), RoomSessionID: session}, Number: number}), runID: run.runID,
			Problem: fmt.Sprintf("Its run has made adjustment %d of the bill, which Temporal still knows, but the ledger doesn't have it: it was restored from a copy, or somebody removed it.", number),
			Remedy:  "See that this is the workers' ledger, and then have it put back as it was: closeout repair"})
	}
	return nil
}
