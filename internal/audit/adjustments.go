package audit

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// adjustmentPrefix begins the Workflow IDs of all adjustments. adjustmentID matches them.
const adjustmentPrefix = "bill-adjustment-"

var adjustmentID = regexp.MustCompile(`^` + adjustmentPrefix + `(\d+)-(\d+)-(\d+)$`)

// readAdjustments checks that the ledger has the adjustments that runs have made.
func (a *audit) readAdjustments(ctx context.Context) error {
	for run, err := range a.list(ctx, a.since(fmt.Sprintf("WorkflowId STARTS_WITH '%s' AND ExecutionStatus = 'Completed'", adjustmentPrefix))) {
		if err != nil {
			return fmt.Errorf("list adjustments: %w", err)
		}
		parts := adjustmentID.FindStringSubmatch(run.id)
		if parts == nil || !run.has(completed) || a.late(run.start) {
			continue
		}
		id, idErr := session.ParseID(parts[1] + "-" + parts[2])
		number, numberErr := strconv.Atoi(parts[3])
		if errors.Join(idErr, numberErr) != nil {
			continue
		}
		there, err := a.Ledger.Adjusted(ctx, id, number)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if there {
			continue
		}
		made, err := repair.Adjustment(ctx, a.Temporal, a.Data, run.id, run.runID)
		if err != nil {
			return err
		}
		if made == nil {
			continue // there was nothing to adjust
		}
		a.report.add(id, Fault{Kind: NoAdjustment, workflowID: workflows.AdjustmentID(activities.Adjustment{
			Session: session.Session{ID: id}, Number: number}), runID: run.runID,
			Problem: fmt.Sprintf("Its run has made adjustment %d of the bill, which Temporal still knows, but the ledger doesn't have it: it was restored from a copy, or somebody removed it.", number),
			Remedy:  "See that this is the workers' ledger, and then have it put back as it was: closeout repair"})
	}
	return nil
}
