package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recordings"
	"github.com/closeouthq/closeout/session"
)

// pageSize bounds the rows in memory.
var pageSize = 200

const (
	// adjustAgain is when an adjustment is started again, in case Temporal lost it.
	adjustAgain = 24 * time.Hour
	// lateWithin is how long after its last callback a recording is still added to an archive.
	lateWithin = 30 * 24 * time.Hour
	// lateAgain is when a late recording is checked again if its session has an open run.
	lateAgain = time.Hour
)

// StartAdjustments starts an adjustment of each bill with later events, and returns their
// number.
func (r *Reconciler) StartAdjustments(ctx context.Context) (int, error) {
	if r.Adjust == nil {
		return 0, nil
	}
	bills := 0
	var faults []error
	for after, last := (ledger.BilledSession{}), false; !last; {
		page, err := r.Ledger.Dirty(ctx, r.now().Add(-adjustAgain), after, pageSize)
		if err != nil {
			return 0, err
		}
		if last = len(page) < pageSize; len(page) > 0 {
			after = page[len(page)-1]
		}
		bills += len(page)
		for _, s := range page {
			activity.RecordHeartbeat(ctx)
			err := r.Adjust(ctx, s)
			if err == nil {
				err = r.Ledger.AdjustmentStarted(ctx, s, r.now())
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("session %d of app %d: %w", s.RoomSessionID, s.AppID, err))
			}
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
		}
	}
	if n := len(faults); n > 0 {
		return 0, fmt.Errorf("%d of %d: %w", n, bills, faults[n-1])
	}
	return bills, nil
}

// StartLateRecordings starts a run for each session with recordings announced after its
// archive was made, and returns the number of runs.
func (r *Reconciler) StartLateRecordings(ctx context.Context) (int, error) {
	if r.AddLate == nil {
		return 0, nil
	}
	if err := r.sweep(ctx); err != nil {
		return 0, err
	}
	var faults []error
	runs := 0
	err := r.lateRecordings(ctx, func(page []late) bool {
		sessions := map[session.Session]bool{} // and whether its run was started, which is later than the page
		for _, task := range page {
			activity.RecordHeartbeat(ctx)
			started, asked := sessions[task.of]
			var err error
			if !asked {
				if started, err = r.AddLate(ctx, task.of); err == nil {
					sessions[task.of] = started
				}
				if started {
					runs++
				}
			}
			switch {
			case err != nil:
			case started:
				err = r.Ledger.HandOver(ctx, task.RecordingTask)
			default: // a run is open, and may not know of the task
				err = r.Ledger.LateAt(ctx, task.RecordingTask, r.now().Add(lateAgain))
			}
			if err != nil {
				faults = append(faults, fmt.Errorf("task %s of app %d: %w", task.TaskID, task.AppID, err))
			}
		}
		return ctx.Err() == nil
	})
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return 0, err
	}
	if n := len(faults); n > 0 {
		return 0, fmt.Errorf("%d failed: %w", n, faults[n-1])
	}
	return runs, nil
}

// late is a task to be added to the archive of a session.
type late struct {
	ledger.RecordingTask
	of session.Session
}

// lateRecordings calls do with pages of tasks to be added to an archive, until do returns
// false. It marks the other tasks as checked until their next callback.
func (r *Reconciler) lateRecordings(ctx context.Context, do func([]late) bool) error {
	for after, last := (ledger.RecordingTask{}), false; !last; {
		began := r.now()
		tasks, err := r.Ledger.LateRecordings(ctx, began, began.Add(-lateWithin), after, pageSize)
		if err != nil {
			return err
		}
		if last = len(tasks) < pageSize; len(tasks) > 0 {
			after = tasks[len(tasks)-1]
		}
		var page []late
		for _, task := range tasks {
			session, archived, err := r.archivedSession(ctx, task)
			if err != nil {
				return fmt.Errorf("task %s of app %d: %w", task.TaskID, task.AppID, err)
			}
			if archived {
				page = append(page, late{task, session})
			} else if err := r.Ledger.NotLate(ctx, task, began); err != nil {
				return err
			}
		}
		if len(page) > 0 && !do(page) {
			return nil
		}
	}
	return nil
}

// archivedSession returns the archived session that a task belongs to. If several qualify it
// returns one, and that session's step asks an operator to decide.
func (r *Reconciler) archivedSession(ctx context.Context, task ledger.RecordingTask) (s session.Session, archived bool, err error) {
	candidates := []uint64{task.RoomSessionID}
	if !task.Assigned {
		lives, err := r.Ledger.Lives(ctx, task.AppID, task.RoomID, task.Last.Add(-lateWithin))
		if err != nil {
			return s, false, err
		}
		candidates = recordings.Candidates(task.AppID, lives, task)
	}
	for _, candidate := range candidates {
		if s, archived, err = r.Ledger.Archived(ctx, session.ID{AppID: task.AppID, RoomSessionID: candidate}); archived || err != nil {
			return s, archived, err
		}
	}
	return s, false, nil
}
