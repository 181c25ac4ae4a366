// Package wake tells runs that wait for recordings that there is something new, so
// that they look at once. What it loses costs time and nothing else: a run looks by
// itself, too.
package wake

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recording"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

const (
	// most is how many recordings may wait to be told of.
	most = 1000
	// timeout bounds the telling of one.
	timeout = 10 * time.Second
	// since is how old the lives of a room may be that are looked at.
	since = 30 * 24 * time.Hour
)

// Next stores callbacks.
type Next interface {
	Collect(ctx context.Context, event zego.Event) (webhook.Receipt, error)
}

// Collector hands callbacks on and wakes runs.
type Collector struct {
	Next
	// Ledger knows which sessions a recording may be of.
	Ledger *ledger.Ledger
	// Temporal has their runs.
	Temporal client.Client
	// Log gets what operators should know.
	Log *slog.Logger

	uploaded chan *zego.Recording
}

// New makes a collector that hands everything on to another one. [Collector.Run]
// has to run beside it.
func New(next Next, l *ledger.Ledger, temporal client.Client, log *slog.Logger) *Collector {
	return &Collector{next, l, temporal, log, make(chan *zego.Recording, most)}
}

// Collect implements [Next].
func (c *Collector) Collect(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	receipt, err := c.Next.Collect(ctx, event)
	if r, ok := event.(*zego.Recording); ok && err == nil && r.EventType == zego.RecordingUploaded {
		select {
		case c.uploaded <- r:
		default: // the runs look by themselves
		}
	}
	return receipt, err
}

// Run wakes runs until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-c.uploaded:
			if err := c.wake(ctx, r); err != nil && ctx.Err() == nil {
				c.Log.Debug("runs not woken, they look by themselves", "appid", r.AppID, "room_id", r.RoomID, "task_id", r.TaskID, "error", err)
			}
		}
	}
}

func (c *Collector) wake(ctx context.Context, r *zego.Recording) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	task, err := c.Ledger.RecordingTask(ctx, r.AppID, r.TaskID)
	if err != nil {
		return err
	}
	lives, err := c.Ledger.Lives(ctx, r.AppID, r.RoomID, time.Unix(r.Timestamp, 0).Add(-since))
	if err != nil {
		return err
	}
	var faults []error
	for _, session := range recording.Concerned(r.AppID, lives, task) {
		s := activities.Session{AppID: r.AppID, RoomSessionID: session}
		id := workflows.WorkflowID(s)
		err := workflows.Signal(ctx, c.Temporal, id, workflows.Recordings.Name, nil)
		if gone := new(serviceerror.NotFound); errors.As(err, &gone) {
			if task.ArchivedAt.IsZero() && len(task.Files) > 0 {
				c.Log.Warn("a recording came after its session was closed out; it is added to the archive at the next reconciliation, unless it stays in closeout recording list",
					"appid", r.AppID, "room_id", r.RoomID, "room_session_id", session, "workflow_id", id, "task_id", r.TaskID)
			}
			if err = workflows.Signal(ctx, c.Temporal, workflows.LateRecordingsID(s), workflows.Recordings.Name, nil); errors.As(err, &gone) {
				continue
			}
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
