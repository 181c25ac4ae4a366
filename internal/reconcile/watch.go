package reconcile

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/outage"
)

// Watch starts a run when something is due. Every worker has a Watch, and one of them checks
// the ledger in each interval.
type Watch struct {
	*Reconciler
	// Interval is the time between two checks.
	Interval time.Duration
	// Apps lists the apps with a server secret. Overdue sessions of other apps are only
	// reported, which needs no run.
	Apps []uint32
	// CompareEvery is the time between two comparisons with ZEGO's counts; 0 means never.
	CompareEvery time.Duration
	// Confirm, if set, is called before a check.
	Confirm func(context.Context) error
	// Run starts a run of [Reconcile] unless one is open.
	Run func(context.Context) error
}

// Loop calls Look once per interval until ctx ends. The interval has a jitter, so that
// workers do not query the ledger at the same time.
func (w *Watch) Loop(ctx context.Context, log *slog.Logger) {
	trouble, uncompared := outage.New(log, "look for what is due", "it is tried again"), outage.New(log, "compare with ZEGO's counts", "it is tried again")
	for ctx.Err() == nil {
		if err := w.Look(ctx); err == nil {
			trouble.End()
		} else if ctx.Err() == nil {
			trouble.Fail(err)
		}
		if done, err := w.Compare(ctx); err != nil && ctx.Err() == nil {
			uncompared.Fail(err)
		} else if done {
			uncompared.End()
		}
		select {
		case <-time.After(w.Interval + rand.N(w.Interval/10+1)): // #nosec G404 -- no secret
		case <-ctx.Done():
		}
	}
}

// Look checks the ledger and starts a run if something is due. It does nothing if another
// worker has checked within the interval.
func (w *Watch) Look(ctx context.Context) error {
	if w.Confirm != nil {
		if err := w.Confirm(ctx); err != nil {
			return err
		}
	}
	mine, err := w.Ledger.TakeLook(ctx, w.now(), w.Interval)
	if err != nil || !mine {
		return err
	}
	now := w.now()
	due, err := w.Ledger.Due(ctx, now, w.Apps, now.Add(-w.OverdueAfter), now.Add(-adjustAgain), now.Add(-lateWithin))
	if err != nil {
		return err
	}
	if due.Late && !due.Overdue && !due.Dirty {
		// A room's recordings may belong to a session that is still open.
		due.Late = false
		if err := w.lateRecordings(ctx, func([]late) bool { due.Late = true; return false }); err != nil {
			return err
		}
	}
	if due == (ledger.Due{}) && len(w.Reconciler.Apps) > 0 && w.SweepEvery > 0 {
		_, sweep, err := w.Ledger.Turn(ctx, "look for lost recordings", w.SweepEvery, 0)
		if err != nil {
			return err
		}
		// If the list fails, the run retries and logs it.
		for _, app := range w.Reconciler.Apps {
			if !sweep || due.Late {
				break
			}
			ids, err := w.unasked(ctx, app, func() {})
			if due.Late = err != nil || len(ids) > 0; !due.Late {
				w.swept("recordings", nil)
			}
		}
	}
	if due == (ledger.Due{}) {
		return nil
	}
	return w.Run(ctx)
}
