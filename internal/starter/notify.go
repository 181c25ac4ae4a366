package starter

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

const (
	// maxNotices bounds the recordings that wait for their notice, and notifyTimeout one
	// notice.
	maxNotices    = 1000
	notifyTimeout = 10 * time.Second
	// maxAge is the maximum age of the session of a recording.
	maxAge = 30 * 24 * time.Hour
)

// Notifier signals runs that wait for recordings, so that they continue at once. A lost
// notice only costs time, because runs also check by themselves.
type Notifier struct {
	ledger   *ledger.Ledger
	temporal client.Client
	log      *slog.Logger
	uploaded chan *zego.Recording
}

// NewNotifier returns a Notifier. Call [Notifier.Run] in a goroutine.
func NewNotifier(l *ledger.Ledger, temporal client.Client, log *slog.Logger) *Notifier {
	return &Notifier{l, temporal, log, make(chan *zego.Recording, maxNotices)}
}

// Stored queues a notice if event reports uploaded files. Call it after the event was stored.
func (n *Notifier) Stored(event zego.Event) {
	if r, ok := event.(*zego.Recording); ok && r.EventType == zego.RecordingUploaded {
		select {
		case n.uploaded <- r:
		default: // the runs check by themselves
		}
	}
}

// Run signals runs until ctx ends.
func (n *Notifier) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-n.uploaded:
			if err := n.Notify(ctx, r.AppID, r.TaskID, r.RoomID, time.Unix(r.Timestamp, 0)); err != nil && ctx.Err() == nil {
				n.log.Debug("runs not notified, they check by themselves", "appid", r.AppID, "room_id", r.RoomID, "task_id", r.TaskID, "error", err)
			}
		}
	}
}

// Notify signals the runs of all sessions that may own a recording task. at is a time at
// which the task was recording or uploading.
func (n *Notifier) Notify(ctx context.Context, appID uint32, taskID, roomID string, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	task, err := n.ledger.RecordingTask(ctx, appID, taskID)
	if err != nil {
		return err
	}
	lives, err := n.ledger.Lives(ctx, appID, roomID, at.Add(-maxAge))
	if err != nil {
		return err
	}
	var faults []error
	for _, number := range recordings.Candidates(appID, lives, task) {
		s := session.Session{ID: session.ID{AppID: appID, RoomSessionID: number}}
		id := s.WorkflowID()
		err := workflows.Signal(ctx, n.temporal, id, workflows.Recordings.Name, nil)
		if gone := new(serviceerror.NotFound); errors.As(err, &gone) {
			if task.ArchivedAt.IsZero() && len(task.Files) > 0 {
				n.log.Warn("late recording", "action", "added at next reconciliation, unless closeout recording list shows it",
					"appid", appID, "room_id", roomID, "room_session_id", number, "workflow_id", id, "task_id", taskID)
			}
			if err = workflows.Signal(ctx, n.temporal, workflows.LateRecordingsID(s), workflows.Recordings.Name, nil); errors.As(err, &gone) {
				continue
			}
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
