package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// examine checks one session by its ID and counts the result.
func (a *audit) examine(ctx context.Context, k session.ID, r record) error {
	f, err := a.look(ctx, k, r)
	if errors.Is(err, errNoRun) {
		// Temporal has just deleted the closed run.
		f, err = finding{flags: expired}, nil
	}
	if err == nil {
		a.count(k, r, f)
	}
	return err
}

// look checks one session by its ID. It reads the places in reverse order, so that it finds the
// run of each bill, however fast the session moves.
func (a *audit) look(ctx context.Context, k session.ID, r record) (f finding, err error) {
	bill, err := a.bill(ctx, k)
	if err != nil {
		return f, err
	}
	run, err := a.describe(ctx, k.WorkflowID(), "")
	switch {
	case errors.Is(err, errNoRun):
		return a.withoutRun(ctx, k, r, bill)
	case err != nil:
		return f, err
	case a.late(run.start), run.start.Before(a.Since):
		return finding{flags: outside}, nil
	}
	f.flags = run.flags
	if !run.has(running) {
		if bill == nil { // the bill may have been made between the two reads
			if bill, err = a.bill(ctx, k); err != nil {
				return f, err
			}
		}
		written, err := a.archived(ctx, k)
		if err != nil {
			return f, err
		}
		f.set(archived, !written.IsZero())
	}
	f.set(billed, bill != nil)

	if r.has(severally) {
		starts, err := a.starts(ctx, run.id)
		if err != nil {
			return f, err
		}
		if len(starts) > 1 {
			slices.Sort(starts)
			f.fault(SeveralRuns, fmt.Sprintf("It was started %d times, with the runs %s.", len(starts), strings.Join(starts, ", ")),
				"Find out who started it besides the webhook, and compare what the runs did outside of Closeout. The ledger has one bill all the same.")
		}
	}
	for _, end := range badEnds {
		if run.has(end.flags) {
			f.fault(end.kind, fmt.Sprintf("Its run %s. It has %s and %s.", end.how, either(f.has(billed), "a bill", "no bill"), either(f.has(archived), "a manifest", "no manifest")),
				"To go on, "+resetRun+" What was done is not done again.")
		}
	}
	if run.has(stuck) {
		f.fault(Stuck, fmt.Sprintf("Its run is stuck, as the workers fail at it again and again: %s.", strings.Join(run.problems, ", ")),
			"See why in the run's history. If its code has changed in a way that the run can't take, deploy code that it can, "+
				"as in docs/changing-workflows.md: it then goes on where it was.")
	}
	if run.has(unindexed) {
		f.fault(Unindexed, "Its run is open and lacks Closeout's Search Attributes, so it is unknown whether it waits for a person.",
			"Run `closeout setup`, which creates them and has open runs set them. Until then, `closeout blocked list` asks each open run.")
	}
	if run.has(completed) && !(f.has(billed) && f.has(archived)) {
		if err := a.incomplete(ctx, run, &f); err != nil {
			return f, err
		}
	}
	if run.has(running) && !f.has(billed) {
		if err := a.unbilled(ctx, k, run, &f); err != nil {
			return f, err
		}
	}
	if bill != nil {
		a.compareBill(r, run, *bill, &f)
	}
	return f, nil
}

// bill returns the session's bill, or nil.
func (a *audit) bill(ctx context.Context, k session.ID) (*ledger.MadeBill, error) {
	b, err := a.Ledger.MadeBill(ctx, k)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &b, err
}

// withoutRun checks a session without a run.
func (a *audit) withoutRun(ctx context.Context, k session.ID, r record, bill *ledger.MadeBill) (f finding, err error) {
	f.set(billed, bill != nil)
	taken := r.has(acknowledged | deadLetter | closed)
	var done time.Time // when a step of a run made something
	switch {
	case r.has(stillDead):
		f.fault(DeadLetter, fmt.Sprintf("It is a dead letter in the inbox, as Temporal refuses it: %q", a.reasons[k]),
			"Mend what Temporal complains of, and then: closeout inbox retry "+k.WorkflowID())
		return f, nil
	case r.has(waiting):
		return f, nil
	case bill != nil:
		done = bill.MadeAt
	case !taken:
		return f, nil
	default:
		if done, err = a.archived(ctx, k); err != nil {
			return f, err
		}
		f.set(archived, !done.IsZero())
	}
	if bill != nil {
		a.phantom(r, "no run", &f)
	}
	switch {
	case len(f.faults) > 0:
	case bill == nil && r.has(closed):
		f.fault(NotClosedOut, fmt.Sprintf("The ledger knows that it has closed, but has no bill of it, and Temporal has no run%s.", either(f.has(archived), ", though there is a manifest", "")),
			"Find out what became of its run: it was deleted, or kept for less long than this. Unless it was closed out without a bill on purpose, send it again: "+
				sendCommand(k.AppID, k.RoomSessionID))
	case done.IsZero():
		f.fault(Lost, "It was acknowledged, but Temporal has no run of it, and it isn't in the inbox.",
			"Send it again, with what is known of it elsewhere: "+sendCommand(k.AppID, k.RoomSessionID))
	case a.gone(done):
		f.set(expired, true)
	default:
		f.fault(NoRun, fmt.Sprintf("It has %s of %s, but Temporal has no run of it, and it isn't in the inbox.", either(f.has(billed), "a bill", "a manifest"), done.UTC().Format(time.RFC3339)),
			"Find out who made that, or deleted the run. If Temporal has lost it, send the session again: what was done is not done again.")
	}
	return f, nil
}

const resetRun = "reset the run to its first workflow task, in the Web UI by More Actions → Reset."

// roomClose is the Workflow that must have both steps. Other Workflows may have neither.
var roomClose = workflows.Name(workflows.RoomClose)

// incomplete checks a completed run without a bill or a manifest.
func (a *audit) incomplete(ctx context.Context, run run, f *finding) error {
	result, unreadable, err := a.result(ctx, run)
	if err != nil {
		return err
	}
	for _, lacks := range []struct {
		there             bool
		kind              Kind
		step, what, store string
	}{
		{f.has(billed), NoBill, workflows.Billing.Name, "bill", "ledger"},
		{f.has(archived), NoManifest, workflows.Recordings.Name, "manifest", "archive"},
	} {
		if lacks.there {
			continue
		}
		at := slices.IndexFunc(result.Steps, func(s workflows.StepResult) bool { return s.Step == lacks.step })
		if at < 0 && run.workflow != roomClose {
			continue
		}
		if lacks.kind == NoBill && (at < 0 || result.Steps[at].State == workflows.StateDone) {
			made, err := repair.Bill(ctx, a.Temporal, a.Data, run.id, run.runID)
			if err == nil && made != nil {
				f.lostBill(run)
				continue
			} // otherwise the run's own result decides
		}
		lacking := fmt.Sprintf("the %s has no %s", lacks.store, lacks.what)
		remedy := fmt.Sprintf("Find out who removed it, or whether the worker writes to another %s than this. To have it made again, %s", lacks.store, resetRun)
		switch {
		case unreadable != nil:
			f.fault(lacks.kind, fmt.Sprintf("Its run completed, but %s, and the run's result can't be read: %v", lacking, unreadable), remedy)
		case at < 0:
			f.fault(lacks.kind, fmt.Sprintf("Its run completed, but %s: the run had no step %q.", lacking, lacks.step),
				"Give the workflow that step, if it is to have it, and "+resetRun)
		case result.Steps[at].State == workflows.StateSkipped, result.Steps[at].State == workflows.StateGivenUp:
			f.set(skipped, true)
		default:
			f.fault(lacks.kind, fmt.Sprintf("Its run completed and says that the step %q is %s, but %s.", lacks.step, result.Steps[at].State, lacking), remedy)
		}
	}
	return nil
}

// unbilled checks an open run without a bill. Its history shows whether it made one that the
// ledger has lost.
func (a *audit) unbilled(ctx context.Context, k session.ID, run run, f *finding) error {
	made, err := repair.Bill(ctx, a.Temporal, a.Data, run.id, run.runID)
	if err != nil || made == nil {
		return err
	}
	bill, err := a.bill(ctx, k) // it may exist by now
	if err == nil && bill == nil {
		f.lostBill(run)
	}
	return err
}

// lostBill adds the fault of a lost bill.
func (f *finding) lostBill(run run) {
	f.faults = append(f.faults, Fault{Kind: NoBill, runID: run.runID,
		Problem: "Its run has made a bill, which Temporal still knows, but the ledger has no bill: it was restored from a copy, or somebody removed it, or the worker writes to another ledger than this.",
		Remedy:  "See that this is the workers' ledger, and then have it put back as it was: closeout repair"})
}

// compareBill compares the bill of a session with its run.
func (a *audit) compareBill(r record, run run, bill ledger.MadeBill, f *finding) {
	a.phantom(r, "a run", f)
	if billed := billDetails(bill.Bill); run.stated.sum() != 0 && billed != run.stated {
		f.fault(BillDiffers, fmt.Sprintf("The bill is of %v, and the run of %v.", billed, run.stated),
			"Find out which of the two is right. The ledger keeps the first bill of a session, even if a later run states something else.")
	}
}

// phantom checks a bill without an acknowledgement. run describes its run, or the lack of one.
func (a *audit) phantom(r record, run string, f *finding) {
	if !a.unaccountedFor(r) || a.unsettled(r) {
		return
	}
	if r.has(offered) {
		f.fault(Phantom, fmt.Sprintf("It is billed, and has %s, although it was never acknowledged however often it was offered.", run),
			"If the room did close, the answers were lost on their way and there is nothing to mend. Otherwise cancel the bill.")
		return
	}
	f.fault(Phantom, fmt.Sprintf("It is billed, and has %s, although it was never offered.", run),
		"Find out who started or billed it besides the webhook, and whether that room did close. Otherwise cancel the bill.")
}

// badEnds holds the final statuses of a run that are faults.
var badEnds = []struct {
	flags
	kind Kind
	how  string
}{{failed, RunFailed, "failed"}, {terminated, RunTerminated, "was terminated"}, {timedOut, RunTimedOut, "timed out"}, {canceled, RunCanceled, "was canceled"}}

// sendCommand returns the command that closes out a session without a run.
func sendCommand(app uint32, number any) string {
	return fmt.Sprintf("closeout send --only room_close --app %d --session %v --room ROOM --reason REASON --closed-at TIME", app, number)
}

func either(holds bool, yes, no string) string {
	if holds {
		return yes
	}
	return no
}

// String describes the details in a few words. The room's name may be any text.
func (d details) String() string {
	return fmt.Sprintf("room %q closed at %s: %s", d.room, d.time(), d.reason)
}
