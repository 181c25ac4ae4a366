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
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

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
			{Name: "list", Usage: "list the runs with a blocked step", Flags: Flags("LOG_LEVEL", "LOG_FORMAT"), Action: listBlocked},
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
		return "", fmt.Errorf("ask for its details: %w", err)
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
	return text, err
}

func listBlocked(ctx context.Context, cmd *cli.Command) error {
	temporal, err := dial(cmd)
	if err != nil {
		return err
	}
	defer temporal.Close()
	table := tabwriter.NewWriter(cmd.Root().Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORKFLOW ID\tSTARTED\tROOM")
	query := fmt.Sprintf("%s = '%s' AND ExecutionStatus = 'Running'", workflows.CloseoutState.GetName(), workflows.StateBlocked)
	for page := []byte(nil); ; {
		answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
		if err != nil {
			return fmt.Errorf("list blocked runs: %w", err)
		}
		for _, run := range answer.GetExecutions() {
			var room string // stays empty for a run without search attributes
			_ = converter.GetDefaultDataConverter().FromPayload(run.GetSearchAttributes().GetIndexedFields()[workflows.RoomID.GetName()], &room)
			fmt.Fprintf(table, "%s\t%s\t%s\n", run.GetExecution().GetWorkflowId(), run.GetStartTime().AsTime().Format(time.RFC3339), room)
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return table.Flush()
		}
	}
}

func dial(cmd *cli.Command) (client.Client, error) {
	c, log, err := Load(cmd, false)
	if err != nil {
		return nil, err
	}
	return service.Dial(c, log, nil)
}
