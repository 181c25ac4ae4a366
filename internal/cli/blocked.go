package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// Blocked returns the command for runs that wait for an operator.
func Blocked() *cli.Command {
	flags := func(more ...cli.Flag) []cli.Flag {
		return append(Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"), more...)
	}
	return &cli.Command{
		Name:  "blocked",
		Usage: "list blocked runs, and retry or skip their steps",
		Description: "A blocked step waits for an operator. Fix the cause and retry it, or skip it. Name a run by its\n" +
			"room_session_id or its Workflow ID.\n\n" +
			"    closeout blocked list\n" +
			"    closeout blocked show 858012925204410417\n" +
			"    closeout blocked retry --step billing --reason 'price list corrected' 858012925204410417\n" +
			"    closeout blocked retry --step billing --reason 'price list corrected' --all --where 'AppId = 1' --yes",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list runs with a blocked step, and runs that are stuck", Flags: flags(jsonFlag()), Action: operate(needTemporal, listBlocked)},
			{Name: "show", Usage: "show a run's steps as the Web UI does", ArgsUsage: sessionArgs, Flags: flags(jsonFlag()), Action: operate(needTemporal, showBlocked)},
			decision(workflows.UpdateRetry, "retry a blocked step", flags),
			decision(workflows.UpdateSkip, "skip a blocked step", flags),
		},
	}
}

// decision returns the command that decides about blocked steps by an Update.
func decision(update, usage string, flags func(...cli.Flag) []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: update, Usage: usage, ArgsUsage: sessionArgs,
		Description: "With --all, decides about all blocked runs, or about those that --where matches. Without --yes, it only counts\n" +
			"them. If another operator has decided about a run meanwhile, the run does not change, and that is an error.",
		Flags: flags(
			&cli.StringFlag{Name: "step", Usage: "the step (default: the only blocked one)"},
			&cli.StringFlag{Name: "reason", Usage: "why; the run records it", Required: true},
			&cli.BoolFlag{Name: "all", Usage: "all blocked runs"},
			&cli.StringFlag{Name: "where", Usage: "with --all, restrict to runs matching this Temporal List Filter, such as \"AppId = 1 AND StartTime > '2026-11-01T00:00:00Z'\""},
			&cli.BoolFlag{Name: "yes", Usage: "with --all, retry or skip them, not only count them"}),
		Action: operate(checkDecision, needTemporal, func(ctx context.Context, op *operation) error { return decideBlocked(ctx, op, update) }),
	}
}

func checkDecision(_ context.Context, op *operation) error {
	switch all := op.Bool("all"); {
	case op.NArg() > 0 && all:
		return usagef("%q together with --all, want one of the two", op.Args().First())
	case op.NArg() == 0 && !all:
		return withHint(usagef("no session"), "for example: %s --reason '...' %s; or use --all", op.FullName(), exampleSession)
	case op.String("where") != "" && !all:
		return usagef("--where without --all, want both or none")
	}
	return nil
}

// decideBlocked decides about the blocked steps of the runs that the arguments name, or of all.
func decideBlocked(ctx context.Context, op *operation, update string) error {
	d := workflows.Decision{Step: op.String("step"), Reason: op.String("reason")}
	if !op.Bool("all") {
		return eachRun(ctx, op, func(id string) error {
			answer, err := decide(ctx, op.temporal, id, update, d)
			if err == nil {
				fmt.Fprintf(op.out, "%s: %s\n", printable.Line(id), oneLine(answer))
			}
			return err
		})
	}
	// Listed whole before any decision, which would change the list.
	blocked, err := blockedRuns(ctx, op.temporal, op.String("where"), false)
	switch {
	case err != nil:
		return err
	case len(blocked) == 0:
		fmt.Fprintln(op.out, "no such run is blocked")
		return nil
	case !op.Bool("yes"):
		return fmt.Errorf("%d blocked runs, the first is %s; add --yes to %s all of them", len(blocked), blocked[0].WorkflowID, update)
	}
	done, err := forEach(ctx, op, "runs", blocked, func(r blockedRun) string { return r.WorkflowID }, func(ctx context.Context, r blockedRun) error {
		_, err := decide(ctx, op.temporal, r.WorkflowID, update, d)
		return err
	})
	fmt.Fprintf(op.out, "%s of %d runs\n", update, done)
	return err
}

// eachRun calls f with the Workflow ID of each run that the arguments name: of a session, its own open run and those
// about corrections.
func eachRun(ctx context.Context, op *operation, f func(id string) error) error {
	return op.each("session", exampleSession, func(arg string) error {
		if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
			return f(arg)
		}
		var faults []error
		n := 0
		for run, err := range service.Runs(ctx, op.temporal, ofSession(arg)+" AND ExecutionStatus = 'Running'") {
			if err != nil {
				return err
			}
			n++
			id := run.GetExecution().GetWorkflowId()
			if err := f(id); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", printable.Line(id), err))
			}
		}
		if n == 0 {
			return errors.New("the session has no open run")
		}
		return errors.Join(faults...)
	})
}

func showBlocked(ctx context.Context, op *operation) error {
	shown := runDetails{Runs: []runDetail{}}
	err := eachRun(ctx, op, func(id string) error {
		details, err := currentDetails(ctx, op.temporal, id)
		if err == nil {
			shown.Runs = append(shown.Runs, runDetail{id, details})
		}
		return err
	})
	return errors.Join(err, op.print(shown, shown.print))
}

// runDetails are the steps of runs, in Markdown.
type runDetails struct {
	Runs []runDetail `json:"runs"`
}

type runDetail struct {
	WorkflowID string `json:"workflow_id"`
	Details    string `json:"details"`
}

func (d runDetails) print(out io.Writer) error {
	for _, r := range d.Runs {
		fmt.Fprintln(out, strings.ReplaceAll(r.Details, "\t", " "))
	}
	return nil
}

// blockedList lists runs that wait for an operator.
type blockedList struct {
	Runs []blockedRun `json:"runs"`
}

// The states of such runs.
const stateBlocked, stateStuck = "blocked", "stuck"

type blockedRun struct {
	WorkflowID string    `json:"workflow_id"`
	State      string    `json:"state"`
	StartedAt  time.Time `json:"started_at"`
	RoomID     string    `json:"room_id"`
}

func blockedRunOf(run *workflow.WorkflowExecutionInfo, state string) blockedRun {
	return blockedRun{run.GetExecution().GetWorkflowId(), state, run.GetStartTime().AsTime(), attribute(run, workflows.RoomID)}
}

func listBlocked(ctx context.Context, op *operation) error {
	blocked, err := blockedRuns(ctx, op.temporal, "", true)
	if err != nil {
		return fmt.Errorf("list blocked runs: %w", err)
	}
	list := blockedList{append([]blockedRun{}, blocked...)}
	return op.print(list, list.print)
}

func (l blockedList) print(out io.Writer) error {
	t := newTable(out, "WORKFLOW ID", "STATE", "STARTED", "ROOM")
	for _, r := range l.Runs {
		t.row(r.WorkflowID, r.State, moment(r.StartedAt), r.RoomID)
	}
	return t.print()
}

// blockedRuns returns the blocked runs that a List Filter matches, if it is not empty, and also stuck runs if stuck is
// set.
func blockedRuns(ctx context.Context, c client.Client, where string, stuck bool) (found []blockedRun, err error) {
	queries := []string{workflows.BlockedQuery()}
	if where != "" {
		queries[0] += " AND (" + where + ")"
	}
	if stuck { // older servers have no such Search Attribute
		queries = append([]string{fmt.Sprintf("(%s) OR (%s IS NOT NULL AND ExecutionStatus = 'Running')", queries[0], workflows.ReportedProblems)}, queries...)
	}
	for _, query := range queries {
		found = nil
		var run *workflow.WorkflowExecutionInfo
		for run, err = range service.Runs(ctx, c, query) {
			if err != nil {
				break
			}
			state := stateBlocked
			if run.GetSearchAttributes().GetIndexedFields()[workflows.ReportedProblems] != nil {
				state = stateStuck
			}
			found = append(found, blockedRunOf(run, state))
		}
		if !isInvalid(err) {
			return found, err
		}
	}
	if where != "" {
		return nil, usagef("--where: %w", err)
	}
	return askOpenRuns(ctx, c, stuck)
}

// askOpenRuns returns the blocked runs of a Namespace without Closeout's Search Attributes, by asking each open run. It
// ends at the first run that cannot be asked, as without a worker none can.
func askOpenRuns(ctx context.Context, c client.Client, stuck bool) (found []blockedRun, err error) {
	var mu sync.Mutex
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(parallelRuns)
	var listed error
	for run, err := range service.Runs(asking, c, workflows.OpenQuery()) {
		if listed = err; err != nil || asking.Err() != nil {
			break
		}
		group.Go(func() error {
			id, state := run.GetExecution().GetWorkflowId(), stateBlocked
			details, err := currentDetails(asking, c, id)
			switch gone := new(serviceerror.NotFound); {
			case errors.As(err, &gone): // since it was listed
				return nil
			case isStuck(err) && stuck:
				state = stateStuck
			case isStuck(err):
				return nil
			case err != nil:
				return fmt.Errorf("%s: %w", id, err)
			case !workflows.IsBlocked(details):
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, blockedRunOf(run, state))
			return nil
		})
	}
	if err := cmp.Or(group.Wait(), listed, ctx.Err()); err != nil {
		return nil, fmt.Errorf("the Namespace lacks Closeout's Search Attributes, which `closeout setup` creates, and asking each open run "+
			"failed, so which runs are blocked is unknown: %w", err)
	}
	return found, nil
}
