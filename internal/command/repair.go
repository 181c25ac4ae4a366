package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/urfave/cli/v3"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/internal/service"
)

// Repair is the command that mends what the audit finds, of a program with that
// extension.
func Repair(extension service.Extension) *cli.Command {
	var names []string
	for _, r := range repair.Kinds() {
		names = append(names, string(r))
	}
	return &cli.Command{
		Name:  "repair",
		Usage: "mend what the audit finds: restore bills that the ledger has lost, start or reset runs",
		Description: "Runs an audit, and without --yes only counts what it would do: all of it, however much that is. A bill\n" +
			"is put back as its run made it, as Temporal still knows it. A run that is reset finds what was done. It may\n" +
			"be stopped, and run again. What needs a person is named by the audit.\n\n" +
			"    closeout repair --since 24h\n" +
			"    closeout repair --since 24h --yes\n" +
			"    closeout repair --since 24h --only 'restore the bill' --yes",
		Flags: append(auditFlags("TASK_QUEUE", "APP_WEIGHTS", "SETTLING"),
			&cli.StringSliceFlag{Name: "only", Usage: "make these repairs alone: " + strings.Join(names, ", ")},
			&cli.BoolFlag{Name: "yes", Usage: "do it"}),
		Action: func(ctx context.Context, cmd *cli.Command) error { return runRepair(ctx, cmd, extension) },
	}
}

func runRepair(ctx context.Context, cmd *cli.Command, extension service.Extension) error {
	only := map[repair.Kind]bool{}
	for _, name := range cmd.StringSlice("only") {
		only[repair.Kind(name)] = true
	}
	for _, r := range repair.Kinds() {
		delete(only, r)
	}
	for name := range only {
		return fmt.Errorf("--only: found %q, want one of %q", name, repair.Kinds())
	}
	for _, name := range cmd.StringSlice("only") {
		only[repair.Kind(name)] = true
	}
	return withAudit(ctx, cmd, func(a *audited) error {
		out := cmd.Root().Writer
		witness := &repair.Witness{Temporal: a.client, TaskQueue: a.config.TaskQueue, Data: a.options.Data, Ledger: a.options.Ledger, Log: a.log}
		lost, err := witness.Lost(ctx)
		if err != nil {
			return fmt.Errorf("find out what the ledger has lost: %w", err)
		}
		if lost != nil {
			fmt.Fprintf(out, "the ledger was restored from a copy and has lost what it was told %v\n", lost)
			if cmd.Bool("yes") {
				if err := witness.Confirm(ctx); err != nil {
					return err
				}
			}
			a.options.Lossy = true
		}
		found := map[repair.Kind][]audit.Fault{}
		kinds := map[audit.Kind]int64{}
		a.options.Found = func(f audit.Fault) {
			if f.Repair == "" || len(only) > 0 && !only[f.Repair] {
				kinds[f.Kind]++
				return
			}
			f.Problem, f.Remedy = "", "" // of many, they take room
			found[f.Repair] = append(found[f.Repair], f)
		}
		report, err := audit.Run(ctx, a.options)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		n := 0
		for _, r := range repair.Kinds() {
			if faults := found[r]; len(faults) > 0 {
				fmt.Fprintf(out, "%s: %d, the first of %s\n", r, len(faults), printable.Line(faults[0].WorkflowID))
				n += len(faults)
			}
		}
		for _, f := range report.Faults { // of a kind, the first
			if left := kinds[f.Kind]; left > 0 {
				fmt.Fprintf(out, "for a person: %s: %d, see closeout audit\n", f.Kind, left)
				delete(kinds, f.Kind)
			}
		}
		switch {
		case n == 0:
			fmt.Fprintln(out, "nothing to repair")
			return nil
		case !cmd.Bool("yes"):
			fmt.Fprintf(out, "%d repairs; nothing was changed, --yes makes them\n", n)
			return nil
		}
		mender := &repair.Repairer{Temporal: a.client, Data: a.options.Data, Ledger: a.options.Ledger,
			Start: func(ctx context.Context, s activities.Session) error {
				_, err := intake.Start(ctx, intake.Options{Temporal: a.client, Describe: a.client, TaskQueue: a.config.TaskQueue, Route: extension.WorkflowOf,
					Immediate: extension.StartsAtOnce, Weights: a.config.AppWeights, Settling: a.config.Settling, Log: a.log}, s)
				return err
			},
			Reset: func(ctx context.Context, id string) error {
				return reset(ctx, a.client, a.config.Temporal.Namespace, id)
			},
		}
		return mendAll(ctx, cmd, mender, found, n)
	})
}

// mendAll makes repairs of one sort after those of another, and shows how far it is.
func mendAll(ctx context.Context, cmd *cli.Command, mender *repair.Repairer, found map[repair.Kind][]audit.Fault, n int) error {
	var done, failed atomic.Int64
	bar := progress.Bar{Total: progress.Of(int64(n)), What: "repairs", Done: done.Load, State: func() string { return fmt.Sprintf("%d failed", failed.Load()) }}
	stop := bar.Start(cmd.Root().ErrWriter)
	var mu sync.Mutex
	var faults []error
	for _, r := range repair.Kinds() {
		group, mend := errgroup.WithContext(ctx)
		group.SetLimit(decisionsAtOnce)
		for _, f := range found[r] {
			if mend.Err() != nil {
				break
			}
			group.Go(func() error {
				err := mender.Do(mend, f.Target())
				done.Add(1)
				if err == nil {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				if failed.Add(1) <= faultsTold {
					faults = append(faults, fmt.Errorf("%s: %s: %w", r, f.WorkflowID, err))
				}
				return mend.Err()
			})
		}
		if err := group.Wait(); err != nil {
			break
		}
	}
	stop()
	fmt.Fprintf(cmd.Root().Writer, "%d of %d repairs made\n", done.Load()-failed.Load(), n)
	if more := failed.Load() - int64(len(faults)); more > 0 {
		faults = append(faults, fmt.Errorf("and %d more", more))
	}
	if left := int64(n) - done.Load(); left > 0 {
		faults = append(faults, fmt.Errorf("stopped with %d of %d repairs to go: %w", left, n, ctx.Err()))
	}
	return errors.Join(faults...)
}

// reset resets a run to its first workflow task.
func reset(ctx context.Context, temporal client.Client, namespace, id string) error {
	run, err := temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return err
	}
	runID := run.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	for events := temporal.GetWorkflowHistory(ctx, id, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		e, err := events.Next()
		if err != nil {
			return fmt.Errorf("read its history: %w", err)
		}
		if e.GetEventType() != enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED {
			continue
		}
		_, err = temporal.WorkflowService().ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id, RunId: runID},
			Reason: "closeout repair", RequestId: uuid.NewString(), WorkflowTaskFinishEventId: e.GetEventId(),
		})
		return err
	}
	return errors.New("no worker has begun it, so that it can't be reset; delete it, and send the session again")
}
