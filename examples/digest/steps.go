package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// Steps are the steps of this example.
type Steps struct {
	// Shows are the shows that have a digest.
	Shows Shows
	// From and To are the digest's addresses.
	From, To *mail.Address
	// Deliver sends a message to a mail server. It may be called again with a message.
	Deliver func(context.Context, message) error
}

// load reads the settings. The error names each wrong one.
func (s *Steps) load(getenv func(string) string) (err error) {
	s.Deliver = (&printer{out: os.Stdout}).deliver
	from, to := "closeout@example.com", "team@example.com"
	var faults []error
	if smtp := getenv("SMTP_ADDRESS"); smtp != "" {
		s.Deliver, from, to = server(smtp).deliver, "", ""
		if _, _, err := net.SplitHostPort(smtp); err != nil {
			faults = append(faults, fmt.Errorf("SMTP_ADDRESS: found %q, want host:port, as in mail.example.com:25", smtp))
		}
	}
	address := func(name, standIn string) *mail.Address {
		a, err := mail.ParseAddress(cmp.Or(getenv(name), standIn))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: found %q, want an e-mail address", name, getenv(name)))
		}
		return a
	}
	s.From, s.To = address("MAIL_FROM", from), address("MAIL_TO", to)
	s.Shows, err = parseShows(cmp.Or(getenv("SHOWS"), "launch=main,backstage"))
	return errors.Join(append(faults, err)...)
}

// TellDigest reports a closed-out session to the show's digest, and starts the digest if
// the session is the first. It returns which rooms the digest still waits for.
func (s *Steps) TellDigest(ctx context.Context, task activities.Task, happened []string) (string, error) {
	return s.report(ctx, activity.GetClient(ctx), activity.GetInfo(ctx).TaskQueue, task, happened)
}

func (s *Steps) report(ctx context.Context, c client.Client, taskQueue string, task activities.Task, happened []string) (state string, err error) {
	show, rooms := s.Shows.of(task.Session.RoomID)
	if show == "" {
		return "", activities.Blockedf("SHOWS: room %q is in no show there; add it, restart the worker and retry", task.Session.RoomID)
	}
	id := fmt.Sprintf("digest-%d-%s", task.Session.AppID, show)
	start := c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID:        id,
		TaskQueue: taskQueue,
		// A show has one digest, whether that is open or closed. Use an open one.
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		// No RoomSessionId, because this is not the session's own run.
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.RoomID.ValueSet(show)),
		Memo:          map[string]any{"show": show, "rooms": rooms},
		StaticSummary: "Digest of " + show,
	}, Digest, task.Session)
	handle, err := c.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			WorkflowID: id,
			UpdateName: updateRoom,
			// A repeated attempt gets the answer of the first.
			UpdateID:     task.IdempotencyKey.String(),
			Args:         []any{Closed{task.Session, happened, rooms}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = handle.Get(ctx, &state)
	}
	if sent := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &sent) || activities.IsGivenUp(err) {
		return "", errTooLate
	}
	if err != nil {
		return "", fmt.Errorf("report to %s: %w", id, err)
	}
	return id + ": " + state, nil
}

// MailDigest sends the e-mail. Its Message-ID is derived from the idempotency key, so that
// mail servers and readers recognize a repeat.
func (s *Steps) MailDigest(ctx context.Context, task activities.Task, closed []Closed) (string, error) {
	m := message{id: task.IdempotencyKey.String() + "@closeout", from: s.From, to: s.To, date: time.Now()}
	m.subject, m.body = inWords(closed)
	if err := s.Deliver(ctx, m); err != nil {
		return "", err
	}
	return m.subject + ", to " + s.To.Address, nil
}
