package reconcile

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	// maxSweep bounds a sweep. The next one continues.
	maxSweep = 8 * time.Minute
	// sweepSlack keeps the oldest requested task away from the API's limit.
	sweepSlack = time.Minute
)

// sweep reads the ended recording tasks of all rooms from ZEGO, as far back as its API goes,
// and stores files that no callback has reported. It asks about each task once, after its
// end. It logs failures of the API; the next sweep retries.
func (r *Reconciler) sweep(ctx context.Context) error {
	if len(r.Apps) == 0 || r.SweepEvery == 0 {
		return nil
	}
	// Every run gets here, but only one per interval sweeps.
	_, mine, err := r.Ledger.Turn(ctx, "sweep recordings", r.SweepEvery/2, 0)
	if err != nil || !mine {
		return err
	}
	sweeping, cancel := context.WithTimeout(ctx, maxSweep)
	defer cancel()
	for _, app := range r.Apps {
		asked, found, err := r.sweepApp(sweeping, app)
		r.swept("recordings", err)
		log := activity.GetLogger(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			log.Warn("sweep of recordings incomplete", "action", "goes on at next sweep", "appid", app, "asked", asked, "found", found, "error", err)
		case found > 0:
			log.Warn("recordings without a callback found", "appid", app, "tasks", found)
		}
	}
	return nil
}

func (r *Reconciler) swept(of string, err error) {
	if r.Swept != nil {
		r.Swept(of, err)
	}
}

// unasked lists the app's ended tasks whose files are not yet known from ZEGO. It calls
// progress for each task that it reads.
func (r *Reconciler) unasked(ctx context.Context, app uint32, progress func()) (ids []string, err error) {
	now := r.now()
	err = r.API.DescribeTasks(ctx, app, "", true, now.Add(sweepSlack-serverapi.TasksKept), now, func(t serverapi.Task) error {
		progress()
		ids = append(ids, t.TaskID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	answered, err := r.Ledger.AnsweredRecordings(ctx, app, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		seen := answered[id]
		answered[id] = true // pages may overlap
		return seen
	}), nil
}

func (r *Reconciler) sweepApp(ctx context.Context, app uint32) (asked, found int, err error) {
	alive := func() { activity.RecordHeartbeat(ctx) }
	ids, err := r.unasked(ctx, app, alive)
	if err != nil {
		return 0, 0, err
	}
	var faults []error
	err = r.API.DescribeRecordStatuses(ctx, app, ids, alive, func(task serverapi.Task) error {
		asked++
		news, err := r.Ledger.RecordAnswer(ctx, app, task)
		if err != nil || !news || len(task.Files) == 0 {
			return err
		}
		found++
		if r.Found != nil {
			faults = append(faults, r.Found(ctx, app, task)) // if it fails, the session's own run asks, too
		}
		return nil
	})
	return asked, found, errors.Join(append(faults, err)...)
}
