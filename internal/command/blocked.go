package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// Blocked is the command by which people decide about blocked steps.
func Blocked() *cli.Command {
	return &cli.Command{
		Name:  "blocked",
		Usage: "list the runs that wait for a person, and decide about them",
		Description: "A step that can't go on waits. Mend what is wrong and retry it, or do without it:\n\n" +
			"    closeout blocked list\n" +
			"    closeout blocked show room-close-1-858012925204410417\n" +
			"    closeout blocked retry --step billing --reason 'price list corrected' room-close-1-858012925204410417",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list the runs with a blocked step, and those that are stuck", Flags: Flags("LOG_LEVEL", "LOG_FORMAT"), Action: listBlocked},
			{Name: "show", Usage: "show how far a run is and what it waits for, in the words of the Web UI", ArgsUsage: "WORKFLOW-ID...",
				Flags: Flags("LOG_LEVEL", "LOG_FORMAT"), Action: showBlocked},
			decide(workflows.UpdateRetry, "try a blocked step again"),
			decide(workflows.UpdateSkip, "do without a blocked step"),
		},
	}
}

func decide(update, usage string) *cli.Command {
	return &cli.Command{
		Name: update, Usage: usage, ArgsUsage: "WORKFLOW-ID...",
		Flags: append(Flags("LOG_LEVEL", "LOG_FORMAT"),
			&cli.StringFlag{Name: "step", Usage: "the step (default: the blocked one, if there is one only)"},
			&cli.StringFlag{Name: "reason", Usage: "why; it is kept with the run", Required: true}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if cmd.NArg() == 0 {
				return errors.New("no workflow ID, want one as in: closeout blocked " + update + " --reason '...' room-close-1-858012925204410417")
			}
			temporal, err := dial(cmd)
			if err != nil {
				return err
			}
			defer temporal.Close()
			var faults []error
			for _, id := range cmd.Args().Slice() {
				text, err := sendDecision(ctx, temporal, id, update, workflows.Decision{Step: cmd.String("step"), Reason: cmd.String("reason")})
				if err != nil {
					faults = append(faults, fmt.Errorf("%s: %w", id, err))
					continue
				}
				fmt.Fprintf(cmd.Root().Writer, "%s: %s\n", id, text)
			}
			return errors.Join(faults...)
		},
	}
}

func showBlocked(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no workflow ID, want one as in: closeout blocked show room-close-1-858012925204410417")
	}
	temporal, err := dial(cmd)
	if err != nil {
		return err
	}
	defer temporal.Close()
	var faults []error
	for _, id := range cmd.Args().Slice() {
		details, err := detailsOf(ctx, temporal, id)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", id, err))
			continue
		}
		fmt.Fprintln(cmd.Root().Writer, details)
	}
	return errors.Join(faults...)
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

func listBlocked(ctx context.Context, cmd *cli.Command) error {
	temporal, err := dial(cmd)
	if err != nil {
		return err
	}
	defer temporal.Close()
	table := tabwriter.NewWriter(cmd.Root().Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORKFLOW ID\tSTATE\tSTARTED\tROOM")
	blocked := workflows.BlockedQuery()
	// Those are in need of a person, too: of another kind.
	query := fmt.Sprintf("(%s) OR (%s IS NOT NULL AND ExecutionStatus = 'Running')", blocked, workflows.ReportedProblems)
	for page := []byte(nil); ; {
		answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
		if unknown := new(serviceerror.InvalidArgument); errors.As(err, &unknown) && query != blocked {
			query = blocked // an older server
			continue
		}
		if err != nil {
			return fmt.Errorf("list blocked runs: %w", err)
		}
		for _, run := range answer.GetExecutions() {
			state := "blocked"
			if run.GetSearchAttributes().GetIndexedFields()[workflows.ReportedProblems] != nil {
				state = "stuck"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", run.GetExecution().GetWorkflowId(), state, run.GetStartTime().AsTime().Format(time.RFC3339), attribute(run, workflows.RoomID))
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return table.Flush()
		}
	}
}

// stuck says more of an answer that a run can't give, as its workflow task fails.
func stuck(err error) error {
	if err != nil && strings.Contains(err.Error(), "Workflow Task in failed state") {
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
