package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// maxWait is how long a digest waits for the other rooms of the show after the first.
const maxWait = 6 * time.Hour

// updateRoom is the Update by which the run of a room reports to a digest. Its argument
// is a [Closed].
const updateRoom = "room"

// Closed is the report of a closed-out session.
type Closed struct {
	// Session is the closed-out session.
	Session session.Session `json:"session"`
	// Happened describes the results of its steps.
	Happened []string `json:"happened"`
	// Rooms are all rooms of the show. The Workflow must not read SHOWS, because the
	// setting may have changed when Temporal replays it.
	Rooms []string `json:"rooms"`
}

// Digest waits until every room of a show has closed, for maxWait at most, and then
// sends one e-mail about them. The run of the first session starts it, and the run of
// each session reports to it by an Update.
func Digest(ctx workflow.Context, first session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, first)

	d := &digest{until: workflow.Now(ctx).Add(maxWait)}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, updateRoom, d.add, workflow.UpdateHandlerOptions{
		Validator:   d.check,
		Description: "A room of the show has closed.",
	}); err != nil {
		return workflows.Result{}, fmt.Errorf("handle the Update %s: %w", updateRoom, err)
	}
	if _, err := workflow.AwaitWithTimeout(ctx, maxWait, d.complete); err != nil {
		return workflows.Result{}, err // canceled
	}
	d.written = true
	workflows.StartWith(run, workflows.Step{Name: "mail", Summary: "Send the digest", Timeout: time.Hour}, steps.MailDigest, d.closed)

	return run.Finish()
}

// digest is the state of a run of [Digest].
type digest struct {
	until   time.Time
	closed  []Closed
	written bool
}

// errTooLate reports that a session is too late for the digest.
var errTooLate = activities.GiveUpf("the digest was written before this session was closed out")

// check refuses a session after the e-mail was written without it.
func (d *digest) check(Closed) error {
	if d.written {
		return errTooLate
	}
	return nil
}

// add adds a session once, and returns which rooms the digest still waits for.
func (d *digest) add(ctx workflow.Context, room Closed) (string, error) {
	if !slices.ContainsFunc(d.closed, func(c Closed) bool { return c.Session.ID == room.Session.ID }) {
		d.closed = append(d.closed, room)
	}
	state := "all rooms have closed"
	if open := missing(d.closed); len(open) > 0 {
		state = fmt.Sprintf("waiting for %s until %s", strings.Join(open, ", "), d.until.UTC().Format(time.RFC3339))
	}
	workflow.SetCurrentDetails(ctx, state)
	return state, nil
}

func (d *digest) complete() bool { return len(d.closed) > 0 && len(missing(d.closed)) == 0 }

// missing returns the rooms of the show that have not closed.
func missing(closed []Closed) (rooms []string) {
	for _, room := range closed[0].Rooms {
		if !slices.ContainsFunc(closed, func(c Closed) bool { return c.Session.RoomID == room }) {
			rooms = append(rooms, room)
		}
	}
	return rooms
}
