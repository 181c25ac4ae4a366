package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// workerTimeout bounds how long a worker may take to answer a run's Query or Update.
const workerTimeout = 30 * time.Second

// parallelRuns bounds how many runs are asked or changed at a time: each may wait for a worker to replay it.
const parallelRuns = 16

// ofSession is the List Filter for the runs of a session.
func ofSession(roomSessionID string) string {
	return fmt.Sprintf("%s = '%s'", workflows.RoomSessionID.GetName(), roomSessionID)
}

// isRoomClose reports whether a Workflow ID is that of a session's own Workflow, and not of one about a correction.
func isRoomClose(id string) bool {
	_, err := session.ParseWorkflowID(id)
	return err == nil
}

// attribute returns the text of a Search Attribute, which is empty for a run without it.
func attribute(run *workflow.WorkflowExecutionInfo, key temporal.SearchAttributeKey) (text string) {
	_ = converter.GetDefaultDataConverter().FromPayload(run.GetSearchAttributes().GetIndexedFields()[key.GetName()], &text)
	return text
}

// currentDetails asks a worker for the current details of a run.
func currentDetails(ctx context.Context, c client.Client, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, workerTimeout)
	defer cancel()
	value, err := c.QueryWorkflow(ctx, id, "", "__temporal_workflow_metadata")
	if err != nil {
		return "", fmt.Errorf("ask for its details: %w", workerError(ctx, err))
	}
	var metadata sdk.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		return "", fmt.Errorf("read its details: %w", err)
	}
	return strings.TrimSpace(metadata.GetCurrentDetails()) + "\n", nil
}

// decide sends a decision about a blocked step to a run, and returns its answer.
func decide(ctx context.Context, c client.Client, id, update string, d workflows.Decision) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, workerTimeout)
	defer cancel()
	handle, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: update, Args: []any{d}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(ctx, &answer)
	}
	return answer, workerError(ctx, err)
}

// isStuck reports whether a run gave no answer because its Workflow Task fails.
func isStuck(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Workflow Task in failed state")
}

// workerError explains why a run gave no answer.
func workerError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case isStuck(err):
		return fmt.Errorf("%w; the workers' code cannot replay this run: see its history, and docs/changing-workflows.md", err)
	case ctx.Err() != nil:
		return fmt.Errorf("no answer, is a worker running? %w", err)
	}
	return err
}

// isInvalid reports whether Temporal refused a List Filter.
func isInvalid(err error) bool { return errors.As(err, new(*serviceerror.InvalidArgument)) }
