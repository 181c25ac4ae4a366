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

// patience is how long a digest waits for the show's other rooms after the first.
const patience = 6 * time.Hour

// updateRoom is the update by which a room's run reports to a digest that it has closed
// out. Its argument is a [Closed].
const updateRoom = "room"

// Closed is a room's session as its run reports it to the digest.
type Closed struct {
	// Session is the one that was closed out.
	Session session.Session `json:"session"`
	// Happened is what its steps said.
	Happened []string `json:"happened"`
	// Rooms are all rooms of the show; SHOWS is not for a workflow to read, as it
	// could be another one when Temporal replays it.
	Rooms []string `json:"rooms"`
}

// Digest waits until every room of a show has closed, but not longer than
// patience, and then sends one e-mail about them. It is of the show's first
// session, and takes all of them by updates.
func Digest(ctx workflow.Context, first session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, first)

	d := &digest{until: workflow.Now(ctx).Add(patience)}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, updateRoom, d.take, workflow.UpdateHandlerOptions{
		Validator:   d.check,
		Description: "A room of the show has closed.",
	}); err != nil {
		return workflows.Result{}, fmt.Errorf("take the rooms: %w", err)
	}
	if _, err := workflow.AwaitWithTimeout(ctx, patience, d.complete); err != nil {
		return workflows.Result{}, err // cancelled
	}
	d.written = true
	workflows.StartWith(run, workflows.Step{Name: "mail", Summary: "Send the digest", Timeout: time.Hour}, do.MailDigest, d.closed)

	return run.Finish()
}

// digest is what a run of [Digest] knows.
type digest struct {
	until   time.Time
	closed  []Closed
	written bool
}

// errTooLate is the error of a session that isn't in the digest.
var errTooLate = activities.GiveUpf("the digest was written before this session was closed out")

// check refuses a session that would otherwise believe itself in an e-mail which
// is on its way without it.
func (d *digest) check(Closed) error {
	if d.written {
		return errTooLate
	}
	return nil
}

// take takes a session, once, and says what the digest still waits for.
func (d *digest) take(ctx workflow.Context, room Closed) (string, error) {
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

// missing are the rooms of the show that have not closed.
func missing(closed []Closed) (rooms []string) {
	for _, room := range closed[0].Rooms {
		if !slices.ContainsFunc(closed, func(c Closed) bool { return c.Session.RoomID == room }) {
			rooms = append(rooms, room)
		}
	}
	return rooms
}
