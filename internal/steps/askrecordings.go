package steps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	// askTimeout bounds the API calls of one attempt, because other runs share the rate limit.
	askTimeout = 30 * time.Second
	// apiSlack keeps the oldest requested task away from the API's limit.
	apiSlack = time.Minute
)

// asks reports whether to ask ZEGO: while no recording is known, and after the grace period
// whenever something is missing.
func (r *Recordings) asks(f *recordings.Facts, p recordings.Plan) bool {
	if r.Finding.API == nil || !r.Finding.API.Knows(f.Session.AppID) || f.Now.Sub(f.Session.RoomCloseTime) > serverapi.TasksKept {
		return false
	}
	if p.Wait == nil && p.Blocked == "" || p.Wait != nil && p.Wait.Early {
		return !f.Late && len(p.Mine) == 0
	}
	return f.Waited.Elapsed >= r.Finding.Grace
}

// ask asks ZEGO about the tasks of the session and of its room, and reads the facts again.
// If the API fails, the facts stay, because callbacks may still arrive.
func (r *Recordings) ask(ctx context.Context, task activities.Task, facts **recordings.Facts, before *Manifest) error {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	named, err := r.askAPI(asking, *facts)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if stored := new(ledgerError); errors.As(err, &stored) {
		return err
	}
	if err != nil {
		activity.GetLogger(ctx).Warn("recording API not asked, callbacks alone count", "appid", task.Session.AppID, "room_id", task.Session.RoomID, "error", err)
	}
	again, err := r.facts(ctx, task, before)
	if err != nil {
		return err
	}
	again.Named, *facts = named, again
	return nil
}

// ledgerError is an error of the ledger. Errors of the API do not fail the step.
type ledgerError struct{ error }

func (e *ledgerError) Unwrap() error { return e.error }

// askAPI stores ZEGO's answers and reports whether they cover all tasks of the room.
func (r *Recordings) askAPI(ctx context.Context, f *recordings.Facts) (named bool, err error) {
	s, now := f.Session, f.Now
	var ids []string
	known := map[string]bool{}
	for _, t := range f.Tasks {
		known[t.TaskID] = true
		if of, _ := recordings.Match(s, f.Lives, t); of != recordings.Another && !t.Answered {
			ids = append(ids, t.TaskID)
		}
	}
	// The API selects tasks by their start, and looks back for a limited time.
	from, oldest := s.RoomCloseTime.Add(-maxRecording), now.Add(apiSlack-serverapi.TasksKept)
	for _, life := range f.Lives {
		if life.RoomSessionID == s.RoomSessionID && !life.Created.IsZero() {
			from = life.Created.Add(-apiSlack)
		}
	}
	named = !from.Before(oldest)
	if from.Before(oldest) {
		from = oldest
	}
	until := s.RoomCloseTime.Add(apiSlack)
	if until.After(now) {
		until = now
	}
	for _, ended := range []bool{true, false} {
		err := r.Finding.API.DescribeTasks(ctx, s.AppID, s.RoomID, ended, from, until, func(t serverapi.Task) error {
			if !known[t.TaskID] {
				known[t.TaskID] = true
				ids = append(ids, t.TaskID)
			}
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	err = r.Finding.API.DescribeRecordStatuses(ctx, s.AppID, ids, func() { activity.RecordHeartbeat(ctx) }, func(t serverapi.Task) error {
		t.RoomID = cmp.Or(t.RoomID, s.RoomID)
		if _, err := r.Finding.Ledger.RecordAnswer(ctx, s.AppID, t); err != nil {
			return &ledgerError{fmt.Errorf("recording found at ZEGO: %w", err)}
		}
		return nil
	})
	return named && err == nil, err
}

// maxRecording is the maximum length of a recording.
const maxRecording = 48 * time.Hour
