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
	// Deliver hands a message over to a mail server. It may get the same one again.
	Deliver func(context.Context, message) error
}

// load reads the settings. The error names each that is at fault.
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

// TellDigest tells the show's digest that a session is closed out, and starts the
// digest if it is the first. It says for which rooms the digest still waits.
func (s *Steps) TellDigest(ctx context.Context, task activities.Task, happened []string) (string, error) {
	return s.tell(ctx, activity.GetClient(ctx), activity.GetInfo(ctx).TaskQueue, task, happened)
}

func (s *Steps) tell(ctx context.Context, c client.Client, taskQueue string, task activities.Task, happened []string) (state string, err error) {
	show, rooms := s.Shows.of(task.Session.RoomID)
	if show == "" {
		return "", activities.Blockedf("SHOWS: room %q is in no show there; add it, restart the worker and retry", task.Session.RoomID)
	}
	id := fmt.Sprintf("digest-%d-%s", task.Session.AppID, show)
	start := c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID:        id,
		TaskQueue: taskQueue,
		// One digest for a show, for ever; and one that is there is what we want.
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		// It isn't the session's own run, so it doesn't have its RoomSessionId.
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
			// An attempt that is repeated gets the answer of the first.
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
		return "", fmt.Errorf("tell %s: %w", id, err)
	}
	return id + ": " + state, nil
}

// MailDigest sends the e-mail. Its Message-ID is made of the idempotency key, by
// which mail servers and readers tell a repeat.
func (s *Steps) MailDigest(ctx context.Context, task activities.Task, closed []Closed) (string, error) {
	m := message{id: task.IdempotencyKey.String() + "@closeout", from: s.From, to: s.To, date: time.Now()}
	m.subject, m.body = inWords(closed)
	if err := s.Deliver(ctx, m); err != nil {
		return "", err
	}
	return m.subject + ", to " + s.To.Address, nil
}
