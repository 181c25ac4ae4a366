package audit

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// compare checks every session, and looks up the manifests of closed ones.
func (a *audit) compare(ctx context.Context) error {
	group, look := errgroup.WithContext(ctx)
	group.SetLimit(a.Parallel)
	for k, r := range a.sessions {
		if look.Err() != nil {
			break
		}
		switch {
		case r.has(outside):
			a.count(k, r, finding{flags: outside})
		case a.suspicious(r):
			group.Go(func() error { return a.examine(look, k, r) })
		case r.has(completed):
			group.Go(func() error {
				written, err := a.archived(look, k)
				switch {
				case err != nil:
					return err
				case written.IsZero():
					return a.examine(look, k, r)
				}
				a.count(k, r, finding{flags: completed | billed | archived})
				return nil
			})
		default:
			f := finding{flags: r.flags}
			f.set(expired, r.has(billed) && !r.has(listed|waiting))
			a.count(k, r, f)
		}
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// suspicious reports whether the session looks wrong, apart from its manifest.
func (a *audit) suspicious(r record) bool {
	if !r.has(listed) && !r.has(waiting) {
		if r.has(billed) && !r.has(old) || !r.has(billed) && r.has(acknowledged|deadLetter|closed) {
			return true
		}
	}
	return r.has(severally|failed|terminated|timedOut|canceled|differs|stuck|unindexed) ||
		r.has(completed) && !r.has(billed) ||
		r.has(running) && !r.has(billed) && (a.lossy || r.has(blocked)) || // the ledger may have lost its bill
		a.unaccountedFor(r) && !a.unsettled(r)
}

// archived returns when the session's manifest was written, or zero without one.
func (a *audit) archived(ctx context.Context, k session.ID) (time.Time, error) {
	key := activities.ManifestKey(session.Session{ID: k})
	attributes, err := a.Archive.Attributes(ctx, key)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("look for %s in the archive: %w", key, err)
	}
	return attributes.ModTime, nil
}

// finding is the result for one session.
type finding struct {
	flags
	faults []Fault
}

// count adds a session to the report.
func (a *audit) count(k session.ID, r record, f finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := &a.report
	add := func(count *int64, holds bool) {
		if holds {
			*count++
		}
	}
	add(&n.Offered, r.has(offered))
	add(&n.Acknowledged, r.has(acknowledged))
	add(&n.Waiting, r.has(waiting))
	add(&n.DeadLetters, r.has(stillDead))
	add(&n.Outside, f.has(outside))
	if f.has(outside) {
		return
	}
	add(&n.Bills, f.has(billed))
	add(&n.Manifests, f.has(archived))
	add(&n.Skipped, f.has(skipped))
	add(&n.Expired, f.has(expired))
	add(&n.Unsettled, a.unsettled(r))
	add(&n.Runs.Running, f.has(running) && !f.has(blocked))
	add(&n.Runs.Blocked, f.has(blocked))
	add(&n.Runs.Completed, f.has(completed))
	add(&n.Runs.Failed, f.has(failed))
	add(&n.Runs.Terminated, f.has(terminated))
	add(&n.Runs.TimedOut, f.has(timedOut))
	add(&n.Runs.Canceled, f.has(canceled))
	for _, fault := range f.faults {
		n.add(k, fault)
	}
}
