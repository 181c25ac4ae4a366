// Package intake takes responsibility for verified callbacks: it starts a
// workflow for each session, once.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Starter starts workflows. A Temporal client is one.
type Starter interface {
	ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
}

// Intake is a [webhook.Intake] that hands callbacks to Temporal.
type Intake struct {
	// Temporal starts the workflows.
	Temporal Starter
	// TaskQueue is where workers look for them.
	TaskQueue string
	// Log gets what operators should know.
	Log *slog.Logger
}

var _ webhook.Intake = (*Intake)(nil)

// RoomClose implements [webhook.Intake]. A callback counts as taken when
// Temporal has a workflow for the session, running or closed.
func (i *Intake) RoomClose(ctx context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
	session := activities.SessionOf(c)
	options := workflows.StartOptions(session, i.TaskQueue)
	err := i.start(ctx, options, session)
	if invalid := new(serviceerror.InvalidArgument); errors.As(err, &invalid) {
		// Most likely the namespace lacks a search attribute, which must not cost a
		// callback: a run that is hard to find is better than none.
		i.Log.Error("Temporal refused the start, trying without search attributes; run `closeout setup`",
			"workflow_id", options.ID, "error", err)
		options.TypedSearchAttributes = temporal.SearchAttributes{}
		err = i.start(ctx, options, session)
	}
	receipt := webhook.Receipt{Status: webhook.Started, WorkflowID: options.ID}
	if started := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &started) {
		receipt.Status = webhook.Duplicate
	} else if err != nil {
		return webhook.Receipt{}, fmt.Errorf("start workflow %s: %w", options.ID, err)
	}
	return receipt, nil
}

func (i *Intake) start(ctx context.Context, options client.StartWorkflowOptions, session activities.Session) error {
	_, err := i.Temporal.ExecuteWorkflow(ctx, options, workflows.Route(session), session)
	return err
}
