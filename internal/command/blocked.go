package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// Blocked is the command by which people decide about blocked steps.
func Blocked() *cli.Command {
	return &cli.Command{
		Name:  "blocked",
		Usage: "list the runs that wait for a person, and decide about them",
		Description: "A step that can't go on waits. Mend what is wrong and retry it, or do without it. A run is named by its\n" +
			"room_session_id or its workflow ID.\n\n" +
			"    closeout blocked list\n" +
			"    closeout blocked show 858012925204410417\n" +
			"    closeout blocked retry --step billing --reason 'price list corrected' 858012925204410417\n" +
			"    closeout blocked retry --step billing --reason 'price list corrected' --all --where 'AppId = 1' --yes",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list the runs with a blocked step, and those that are stuck", Flags: Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"), Action: listBlocked},
			{Name: "show", Usage: "show how far a run is and what it waits for, in the words of the Web UI", ArgsUsage: "ROOM-SESSION-ID|WORKFLOW-ID...",
				Flags: Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"), Action: showBlocked},
			decide(workflows.UpdateRetry, "try a blocked step again"),
			decide(workflows.UpdateSkip, "do without a blocked step"),
		},
	}
}

func decide(update, usage string) *cli.Command {
	return &cli.Command{
		Name: update, Usage: usage, ArgsUsage: "ROOM-SESSION-ID|WORKFLOW-ID...",
		Description: "With --all it is about all blocked runs, or those that --where finds; without --yes it only counts\n" +
			"them. A run of which another person has decided meanwhile is a fault that is told, and changes nothing.",
		Flags: append(Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"),
			&cli.StringFlag{Name: "step", Usage: "the step (default: the blocked one, if there is one only)"},
			&cli.StringFlag{Name: "reason", Usage: "why; it is kept with the run", Required: true},
			&cli.BoolFlag{Name: "all", Usage: "all blocked runs"},
			&cli.StringFlag{Name: "where", Usage: "of --all, those that this List Filter of Temporal's finds, such as \"AppId = 1 AND StartTime > '2026-11-01T00:00:00Z'\""},
			&cli.BoolFlag{Name: "yes", Usage: "with --all, do it"}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			switch {
			case cmd.NArg() == 0 && !cmd.Bool("all"):
				return errors.New("no session, want a room_session_id or a workflow ID as in: closeout blocked " + update + " --reason '...' 858012925204410417; or --all")
			case cmd.NArg() > 0 && cmd.Bool("all"):
				return fmt.Errorf("%q together with --all, want one of the two", cmd.Args().First())
			case cmd.String("where") != "" && !cmd.Bool("all"):
				return errors.New("--where without --all, want both or none")
			}
			temporal, err := dial(cmd)
			if err != nil {
				return err
			}
			defer temporal.Close()
			if !cmd.Bool("all") {
				return decideEach(ctx, cmd, temporal, update)
			}
			ids, err := blockedRuns(ctx, temporal, cmd.String("where"))
			switch {
			case err != nil:
				return err
			case len(ids) == 0:
				fmt.Fprintln(cmd.Root().Writer, "no such run is blocked")
				return nil
			case !cmd.Bool("yes"):
				return fmt.Errorf("%d blocked runs, the first is %s; add --yes to %s all of them", len(ids), ids[0], update)
			}
			return decideAll(ctx, cmd, temporal, update, ids)
		},
	}
}

// decideEach decides about the runs in the arguments, one after the other.
func decideEach(ctx context.Context, cmd *cli.Command, temporal client.Client, update string) error {
	return eachRun(ctx, cmd, temporal, func(id string) error {
		text, err := sendDecision(ctx, temporal, id, update, workflows.Decision{Step: cmd.String("step"), Reason: cmd.String("reason")})
		if err == nil {
			fmt.Fprintf(cmd.Root().Writer, "%s: %s\n", id, text)
		}
		return err
	})
}

// eachRun does something with each of the runs in the arguments.
func eachRun(ctx context.Context, cmd *cli.Command, temporal client.Client, do func(id string) error) error {
	var faults []error
	for _, arg := range cmd.Args().Slice() {
		ids, err := runsOf(ctx, temporal, arg)
		for _, id := range ids {
			if failed := do(id); failed != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", id, failed))
			}
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// runsOf gives the workflow ID that was given, or those of the session that was:
// its own run, and those about what came later.
func runsOf(ctx context.Context, temporal client.Client, arg string) ([]string, error) {
	if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
		return []string{arg}, nil
	}
	ids, err := workflowIDs(ctx, temporal, fmt.Sprintf("%s = '%s' AND ExecutionStatus = 'Running'", workflows.RoomSessionID.GetName(), arg))
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("no run of session %s is under way", arg)
	}
	return ids, err
}

// blockedRuns gives the workflow IDs of the blocked runs, of those that the filter
// finds unless it is empty. They are all there before any is decided about: it
// would change what is listed.
func blockedRuns(ctx context.Context, temporal client.Client, where string) ([]string, error) {
	query := workflows.BlockedQuery()
	if where != "" {
		query += " AND (" + where + ")"
	}
	ids, err := workflowIDs(ctx, temporal, query)
	if invalid := new(serviceerror.InvalidArgument); errors.As(err, &invalid) {
		if where != "" {
			return nil, fmt.Errorf("--where: %w", err)
		}
		err = askOpenRuns(ctx, temporal, func(run *workflow.WorkflowExecutionInfo, state string) {
			if state == stateBlocked {
				ids = append(ids, run.GetExecution().GetWorkflowId())
			}
		})
	}
	return ids, err
}

func workflowIDs(ctx context.Context, temporal client.Client, query string) (ids []string, err error) {
	for page := []byte(nil); ; {
		answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		for _, run := range answer.GetExecutions() {
			ids = append(ids, run.GetExecution().GetWorkflowId())
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return ids, nil
		}
	}
}

// Of many runs so many are decided about at a time, and of so many it is told what
// was wrong.
const decisionsAtOnce, faultsTold = 16, 20

// decideAll decides about many runs, and shows how far it is.
func decideAll(ctx context.Context, cmd *cli.Command, temporal client.Client, update string, ids []string) error {
	var decided, failed atomic.Int64
	bar := progress.Bar{Total: progress.Of(int64(len(ids))), What: "runs", Done: decided.Load, State: func() string { return fmt.Sprintf("%d failed", failed.Load()) }}
	stop := bar.Start(cmd.Root().ErrWriter)

	var mu sync.Mutex
	var faults []error
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(decisionsAtOnce)
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			_, err := sendDecision(ctx, temporal, id, update, workflows.Decision{Step: cmd.String("step"), Reason: cmd.String("reason")})
			decided.Add(1)
			if err == nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if failed.Add(1) <= faultsTold {
				faults = append(faults, fmt.Errorf("%s: %w", id, err))
			}
			return ctx.Err()
		})
	}
	stopped := group.Wait()
	stop()
	fmt.Fprintf(cmd.Root().Writer, "%s of %d runs\n", update, decided.Load()-failed.Load())
	if more := failed.Load() - int64(len(faults)); more > 0 {
		faults = append(faults, fmt.Errorf("and %d more", more))
	}
	if left := int64(len(ids)) - decided.Load(); left > 0 {
		faults = append(faults, fmt.Errorf("stopped with %d of %d runs to go: %w", left, len(ids), stopped))
	}
	return errors.Join(faults...)
}

func showBlocked(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no session, want a room_session_id or a workflow ID as in: closeout blocked show 858012925204410417")
	}
	temporal, err := dial(cmd)
	if err != nil {
		return err
	}
	defer temporal.Close()
	return eachRun(ctx, cmd, temporal, func(id string) error {
		details, err := detailsOf(ctx, temporal, id)
		if err == nil {
			fmt.Fprintln(cmd.Root().Writer, strings.ReplaceAll(details, "\t", " "))
		}
		return err
	})
}

// detailsOf asks a worker for the current details of a run.
func detailsOf(ctx context.Context, temporal client.Client, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	value, err := temporal.QueryWorkflow(ctx, id, "", "__temporal_workflow_metadata")
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("no answer, is a worker running? %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("ask for its details: %w", stuck(err))
	}
	var metadata sdk.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		return "", fmt.Errorf("read its details: %w", err)
	}
	return strings.TrimSpace(metadata.GetCurrentDetails()) + "\n", nil
}

// answerWithin is how long a worker may take to answer. Without one nobody would.
const answerWithin = 30 * time.Second

func sendDecision(ctx context.Context, temporal client.Client, id, update string, d workflows.Decision) (text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	handle, err := temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: update, Args: []any{d}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(ctx, &text)
	}
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("no answer, is a worker running? %w", err)
	}
	return text, stuck(err)
}

// The states of a run in need of a person.
const stateBlocked, stateStuck = "blocked", "stuck"

// runsAsked is how many runs are asked for their details at a time: each may wait for a
// worker to replay it.
const runsAsked = 16

// askOpenRuns calls found for each open run in need of a person, by asking each. It is
// for a Namespace without Closeout's Search Attributes. It ends at the first run that
// can't be asked, as without a worker none can.
func askOpenRuns(ctx context.Context, temporal client.Client, found func(run *workflow.WorkflowExecutionInfo, state string)) error {
	var mu sync.Mutex
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(runsAsked)
	list := func() error {
		for page := []byte(nil); asking.Err() == nil; {
			answer, err := temporal.ListWorkflow(asking, &workflowservice.ListWorkflowExecutionsRequest{Query: workflows.OpenQuery(), NextPageToken: page})
			if err != nil {
				return err
			}
			for _, run := range answer.GetExecutions() {
				group.Go(func() error {
					state := stateBlocked
					details, err := detailsOf(asking, temporal, run.GetExecution().GetWorkflowId())
					switch gone := new(serviceerror.NotFound); {
					case errors.As(err, &gone): // since it was listed
						return nil
					case isStuck(err):
						state = stateStuck
					case err != nil:
						return fmt.Errorf("%s: %w", run.GetExecution().GetWorkflowId(), err)
					case !workflows.IsBlocked(details):
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					found(run, state)
					return nil
				})
			}
			if page = answer.GetNextPageToken(); len(page) == 0 {
				return nil
			}
		}
		return nil
	}
	listed := list()
	if err := cmp.Or(group.Wait(), listed, ctx.Err()); err != nil {
		return fmt.Errorf("the Namespace lacks Closeout's Search Attributes, which `closeout setup` creates, and asking each open run failed, so which runs are blocked is unknown: %w", err)
	}
	return nil
}

func listBlocked(ctx context.Context, cmd *cli.Command) error {
	temporal, err := dial(cmd)
	if err != nil {
		return err
	}
	defer temporal.Close()
	table := tabwriter.NewWriter(cmd.Root().Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORKFLOW ID\tSTATE\tSTARTED\tROOM")
	row := func(run *workflow.WorkflowExecutionInfo, state string) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", printable.Line(run.GetExecution().GetWorkflowId()), state, run.GetStartTime().AsTime().Format(time.RFC3339), printable.Line(attribute(run, workflows.RoomID)))
	}
	blocked := workflows.BlockedQuery()
	// Those are in need of a person, too: of another kind.
	query := fmt.Sprintf("(%s) OR (%s IS NOT NULL AND ExecutionStatus = 'Running')", blocked, workflows.ReportedProblems)
	for page := []byte(nil); ; {
		answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
		if unknown := new(serviceerror.InvalidArgument); errors.As(err, &unknown) && query != blocked {
			query = blocked // an older server
			continue
		}
		if lacking := new(serviceerror.InvalidArgument); errors.As(err, &lacking) {
			if err := askOpenRuns(ctx, temporal, row); err != nil {
				return fmt.Errorf("list blocked runs: %w", err)
			}
			return table.Flush()
		}
		if err != nil {
			return fmt.Errorf("list blocked runs: %w", err)
		}
		for _, run := range answer.GetExecutions() {
			state := stateBlocked
			if run.GetSearchAttributes().GetIndexedFields()[workflows.ReportedProblems] != nil {
				state = stateStuck
			}
			row(run, state)
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return table.Flush()
		}
	}
}

// isStuck reports whether a run gave no answer because its Workflow Task fails.
func isStuck(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Workflow Task in failed state")
}

// stuck says more of an answer that a run can't give, as its workflow task fails.
func stuck(err error) error {
	if isStuck(err) {
		return fmt.Errorf("%w; the workers' code can't take this run: see its history, and docs/changing-workflows.md", err)
	}
	return err
}

// attribute is the text of a search attribute; empty for a run without it.
func attribute(run *workflow.WorkflowExecutionInfo, key temporal.SearchAttributeKey) (text string) {
	_ = converter.GetDefaultDataConverter().FromPayload(run.GetSearchAttributes().GetIndexedFields()[key.GetName()], &text)
	return text
}

func dial(cmd *cli.Command) (client.Client, error) {
	c, log, err := Load(cmd, false)
	if err != nil {
		return nil, err
	}
	return service.Dial(c, log, nil)
}
