package reconcile

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	// CompareEvery is the least time between two comparisons. Each takes one call per secret
	// of an app.
	CompareEvery = 10 * time.Minute
	// ComparedFor is how long a comparison is valid.
	ComparedFor = time.Hour
	// comparedSpan is how long ZEGO's count must exceed the ledger's. comparedLag is how late
	// a retried callback may arrive.
	comparedSpan = 6 * time.Minute
	comparedLag  = 2 * time.Minute
	minCompared  = 5 // minutes in it
	// comparedEdge is the uncertainty of a count's time. ZEGO does not document whether it
	// counts at a time, or during the minute before or after it.
	comparedEdge = time.Minute
	// maxCompare bounds a comparison. maxCompared bounds the apps compared concurrently.
	maxCompare  = time.Minute
	maxCompared = 8
)

// Compare compares ZEGO's counts of each app with the ledger, once per CompareEvery across
// all workers. It returns false if it is not the caller's turn.
func (w *Watch) Compare(ctx context.Context) (bool, error) {
	if w.CompareEvery == 0 || len(w.Apps) == 0 {
		return false, nil
	}
	_, mine, err := w.Ledger.Turn(ctx, "compare with ZEGO's counts", w.CompareEvery, 0)
	if err != nil || !mine {
		return false, err
	}
	asking, cancel := context.WithTimeout(ctx, maxCompare)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(maxCompared)
	faults := make([]error, len(w.Apps))
	for i, app := range w.Apps {
		group.Go(func() error {
			faults[i] = w.compareApp(asking, app)
			w.swept("usage", faults[i])
			return nil
		})
	}
	_ = group.Wait()
	return true, errors.Join(faults...)
}

// compareApp compares the ledger with ZEGO's counts of the latest minutes whose callbacks are
// no longer retried.
func (w *Watch) compareApp(ctx context.Context, app uint32) error {
	now := w.now()
	to := now.Add(-serverapi.RealtimeDelay - comparedLag)
	usage, err := w.API.GetRealtimeUsage(ctx, app, to.Add(-comparedSpan), to)
	if err != nil {
		return err
	}
	c := ledger.Comparison{AppID: app, At: now}
	var last time.Time
	for i, u := range usage {
		rooms, users, err := w.Ledger.CountOpen(ctx, app, u.At.Add(-comparedEdge), u.At.Add(comparedEdge))
		if err != nil {
			return err
		}
		rooms, users = max(u.Rooms-rooms, 0), max(u.Users-users, 0)
		if i == 0 || rooms < c.UnknownRooms {
			c.UnknownRooms = rooms
		}
		if i == 0 || users < c.UnknownUsers {
			c.UnknownUsers = users
		}
		if u.At.After(last) {
			last, c.Rooms, c.Users = u.At, u.Rooms, u.Users
		}
	}
	if len(usage) < minCompared { // ZEGO omits minutes without users
		c.UnknownRooms, c.UnknownUsers = 0, 0
	}
	return w.Ledger.NoteComparison(ctx, c)
}
