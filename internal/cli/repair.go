package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/starter"
)

// Repair returns the command that fixes what the audit finds, in a program with that extension.
func Repair(extension service.Extension) *cli.Command {
	var names []string
	for _, r := range repair.Kinds() {
		names = append(names, string(r))
	}
	return &cli.Command{
		Name:  "repair",
		Usage: "fix what the audit finds: restore lost bills, start or reset runs",
		Description: "Runs an audit. Without --yes, it only counts the repairs. A bill is restored from its run, if Temporal still has\n" +
			"the run. A reset run finds the bill and the archive of the first. You can stop the command and run it again.\n" +
			"The audit lists the faults that need an operator.\n\n" +
			"    closeout repair --since 24h\n" +
			"    closeout repair --since 24h --yes\n" +
			"    closeout repair --since 24h --only 'restore the bill' --yes",
		Flags: append(auditFlags("TASK_QUEUE", "APP_WEIGHTS", "SETTLING"),
			&cli.StringSliceFlag{Name: "only", Usage: "make only these kinds of repairs: " + strings.Join(names, ", ")},
			&cli.BoolFlag{Name: "yes", Usage: "make the repairs, not only count them"}),
		Action: operate(func(ctx context.Context, op *operation) error {
			for _, name := range op.StringSlice("only") {
				if !slices.Contains(names, name) {
					return usagef("--only: found %q, want one of %q", name, names)
				}
			}
			return runRepair(ctx, op, extension)
		}),
	}
}

func runRepair(ctx context.Context, op *operation, extension service.Extension) error {
	o, err := openAudit(ctx, op)
	if err != nil {
		return err
	}
	if err := needRules(extension)(ctx, op); err != nil {
		return err
	}
	c := op.temporal
	witness := &repair.Witness{Temporal: c, TaskQueue: op.config.TaskQueue, Data: o.Data, Ledger: o.Ledger, Log: op.log}
	lost, err := witness.Lost(ctx)
	if err != nil {
		return fmt.Errorf("find out what the ledger has lost: %w", err)
	}
	if lost != nil {
		fmt.Fprintf(op.out, "the ledger was restored from a copy and has lost the callbacks that it received %v\n", lost)
		if op.Bool("yes") {
			if err := witness.Confirm(ctx); err != nil {
				return err
			}
		}
		o.Lossy = true
	}
	repairs, count, err := findRepairs(ctx, op, o)
	switch {
	case err != nil:
		return err
	case count == 0:
		fmt.Fprintln(op.out, "nothing to repair")
		return nil
	case !op.Bool("yes"):
		fmt.Fprintf(op.out, "%d repairs; nothing was changed, --yes makes them\n", count)
		return nil
	}
	repairer := &repair.Repairer{Temporal: c, Data: o.Data, Ledger: o.Ledger,
		Start: starter.New(starter.Options{Temporal: c, TaskQueue: op.config.TaskQueue, Route: extension.WorkflowOf,
			Immediate: extension.StartsAtOnce, Weights: op.config.AppWeights, Settling: op.config.Settling, Log: op.log}).Close,
		Namespace: op.config.Temporal.Namespace,
	}
	made, errs := int64(0), []error(nil)
	for _, kind := range repair.Kinds() { // a run that is reset finds the bill that was restored
		if len(repairs[kind]) == 0 {
			continue
		}
		name := func(r repair.Repair) string { return fmt.Sprintf("%s: %s", kind, r.WorkflowID) }
		n, err := forEach(ctx, op, "repairs", repairs[kind], name, repairer.Do)
		made, errs = made+n, append(errs, err)
	}
	fmt.Fprintf(op.out, "%d of %d repairs made\n", made, count)
	return errors.Join(errs...)
}

// findRepairs audits, prints how many repairs of each kind there are and what is left to the operator, and returns the
// repairs.
func findRepairs(ctx context.Context, op *operation, o audit.Options) (repairs map[repair.Kind][]repair.Repair, count int, err error) {
	only, others := op.StringSlice("only"), map[audit.Kind]int{}
	repairs = map[repair.Kind][]repair.Repair{}
	o.Found = func(f audit.Fault) {
		if f.Repair == "" || len(only) > 0 && !slices.Contains(only, string(f.Repair)) {
			others[f.Kind]++
			return
		}
		count++
		repairs[f.Repair] = append(repairs[f.Repair], f.Target())
	}
	report, err := audit.Run(ctx, o)
	if err != nil {
		return nil, 0, fmt.Errorf("audit: %w", err)
	}
	for _, kind := range repair.Kinds() {
		if all := repairs[kind]; len(all) > 0 {
			fmt.Fprintf(op.out, "%s: %d, the first of %s\n", kind, len(all), printable.Line(all[0].WorkflowID))
		}
	}
	for _, f := range report.Faults { // the first of each kind
		if n := others[f.Kind]; n > 0 {
			fmt.Fprintf(op.out, "for an operator: %s: %d, see closeout audit\n", f.Kind, n)
			delete(others, f.Kind)
		}
	}
	return repairs, count, nil
}
