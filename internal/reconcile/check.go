package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	// Answers is the number of consecutive answers that must show that a room is gone. One
	// alone may come while ZEGO's own data is incomplete.
	Answers = 3
	// maxAttempts bounds the attempts of a call. After maxFailures failed calls in a row, the
	// run asks about no more sessions of the app.
	maxAttempts, maxFailures = 3, 3
	// clockSkew is the maximum difference of the clocks of ZEGO's servers.
	clockSkew = 5 * time.Second
)

// Reconciler has the Activities of [Reconcile].
type Reconciler struct {
	// Ledger stores the sessions.
	Ledger *ledger.Ledger
	// API asks ZEGO. If it is nil or lacks a secret of the app, sessions are only reported.
	API *serverapi.Client
	// Start starts the session's Workflow. It returns nil if a run is already open or
	// completed. If the run has ended otherwise, the session stays overdue.
	Start func(context.Context, session.Session) error
	// Adjust starts the adjustment of a bill, unless it is already running.
	Adjust func(context.Context, ledger.BilledSession) error
	// AddLate starts the run that adds late recordings to a session's archive. It returns
	// false if one is open, because that one may miss the newest recording.
	AddLate func(context.Context, session.Session) (bool, error)
	// Apps lists the apps whose recording tasks are read from ZEGO every SweepEvery. Found is
	// called with each task that has files no callback reported.
	Apps       []uint32
	SweepEvery time.Duration
	Found      func(ctx context.Context, appID uint32, task serverapi.Task) error
	// Swept, if set, is called with the result of each sweep of "recordings", and of each
	// comparison of "usage" with the ledger.
	Swept func(of string, err error)
	// OverdueAfter is how long a session may go without a callback.
	OverdueAfter time.Duration
	// Gap is the minimum time between two answers about one session.
	Gap time.Duration
	// Pause is the pause before the first retry of a call; it doubles with each. Default:
	// one second.
	Pause time.Duration
	// Observe, if set, is called with the number of sessions "closed_out" or "failed".
	Observe func(outcome string, sessions int)
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

// Page is the result for one page of overdue sessions.
type Page struct {
	// Before, After and Failing belong to the [Progress] of the next page.
	Before  time.Time          `json:"before"`
	After   ledger.OpenSession `json:"after,omitzero"`
	Failing map[uint32]int     `json:"failing,omitempty"`
	// Last reports whether there is no next page.
	Last bool `json:"last"`
	// Apps are the counts of this page.
	Apps map[uint32]Counts `json:"apps,omitempty"`
}

// CheckOverdueSessions asks ZEGO about a page of overdue sessions and closes out those that
// are gone. It returns errors of the ledger; errors of an app are in the page.
func (r *Reconciler) CheckOverdueSessions(ctx context.Context, p Progress) (Page, error) {
	page := Page{Before: p.Before, Failing: map[uint32]int{}, Apps: map[uint32]Counts{}}
	maps.Copy(page.Failing, p.Failing)
	if page.Before.IsZero() {
		page.Before = r.now().Add(-r.OverdueAfter)
		if err := r.Ledger.ForgetChecks(ctx); err != nil {
			return page, err
		}
	}
	sessions, err := r.Ledger.Overdue(ctx, page.Before, p.After, pageSize)
	if err != nil {
		return page, err
	}
	page.Last = len(sessions) < pageSize
	if n := len(sessions); n > 0 {
		page.After = sessions[n-1]
	}
	checks, err := r.Ledger.Checks(ctx, sessions)
	if err != nil {
		return page, err
	}
	apps := map[uint32][]ledger.Check{}
	for _, c := range checks {
		apps[c.AppID] = append(apps[c.AppID], c)
	}
	// Ask about all apps concurrently, because each has its own limits and may hang.
	var asked []*appCheck
	group, together := errgroup.WithContext(ctx)
	for _, app := range slices.Sorted(maps.Keys(apps)) {
		a := &appCheck{Reconciler: r, app: app, Counts: Counts{Overdue: len(apps[app])}, inARow: p.Failing[app]}
		asked = append(asked, a)
		switch {
		case r.API == nil || !r.API.Knows(app):
			a.Reported = len(apps[app])
		case a.inARow >= maxFailures:
			a.Failed = len(apps[app])
		default:
			group.Go(func() error { return a.ask(together, apps[a.app]) })
		}
	}
	if err := group.Wait(); err != nil {
		return page, err
	}
	for _, a := range asked {
		if page.Failing[a.app] = a.inARow; a.inARow == 0 {
			delete(page.Failing, a.app)
		}
		if a.Failed > 0 {
			r.observe("failed", a.Failed)
		}
		page.Apps[a.app] = a.Counts
	}
	return page, nil
}

// appCheck asks about the sessions of one app.
type appCheck struct {
	*Reconciler
	Counts
	app    uint32
	inARow int // failed calls in a row, including earlier pages
}

// ask asks about sessions, ten rooms at a time.
func (a *appCheck) ask(ctx context.Context, checks []ledger.Check) error {
	rooms := map[string][]ledger.Check{} // a room may have several sessions
	var names []string
	for _, c := range checks {
		if c.Gone > 0 && a.now().Sub(c.AskedAt) < a.Gap {
			a.Doubtful++ // too early to ask
			continue
		}
		if rooms[c.RoomID] == nil {
			names = append(names, c.RoomID)
		}
		rooms[c.RoomID] = append(rooms[c.RoomID], c)
	}
	for batch := range slices.Chunk(names, serverapi.MaxRooms) {
		if err := a.askAbout(ctx, batch, rooms); err != nil {
			return err
		}
	}
	return nil
}

// askAbout asks about up to ten rooms, or about each separately if ZEGO refuses one.
func (a *appCheck) askAbout(ctx context.Context, names []string, rooms map[string][]ledger.Check) error {
	if a.inARow >= maxFailures {
		for _, name := range names {
			a.Failed += len(rooms[name])
		}
		return nil
	}
	var counts map[string]serverapi.RoomUsers
	var missing error // of rooms missing from the answer
	err := a.try(ctx, func() (err error) {
		if counts, err = a.API.DescribeUserNum(ctx, a.app, names); len(counts) > 0 {
			missing, err = err, nil
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && len(names) > 1 && isRefused(err):
		for _, name := range names {
			if err := a.askAbout(ctx, []string{name}, rooms); err != nil {
				return err
			}
		}
		return nil
	case err != nil:
		for _, name := range names {
			a.fail(len(rooms[name]), err)
		}
		return nil
	}
	var answered []ledger.Check
	for _, name := range names {
		users, ok := counts[name]
		if !ok {
			a.fail(len(rooms[name]), missing)
			continue
		}
		for _, c := range rooms[name] {
			gone, err := a.judge(ctx, c, users)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				a.fail(1, err)
				if c.Gone > 0 { // the room has users, perhaps of the session
					c.Gone, c.AskedAt = 0, a.now()
					answered = append(answered, c)
				}
				continue
			}
			a.Asked++
			c.AskedAt = a.now()
			if gone {
				c.Gone++
			} else {
				c.Gone = 0
				a.Alive++
			}
			answered = append(answered, c)
		}
	}
	if err := a.Ledger.NoteChecks(ctx, answered); err != nil {
		return err
	}
	for _, c := range answered {
		switch {
		case c.Gone == 0:
		case c.Gone < Answers:
			a.Doubtful++
		default:
			if err := a.closeOut(ctx, c); err != nil {
				a.fail(1, err)
			}
		}
	}
	return nil
}

// judge reports whether the session is gone, judging by the users of its room. In doubt it
// reports false, which only costs time.
func (a *appCheck) judge(ctx context.Context, c ledger.Check, users serverapi.RoomUsers) (gone bool, err error) {
	switch {
	case users.Participants() == 0:
		return true, nil
	case c.Later != 0:
		return true, nil // the room was created again
	case !c.Left:
		return false, nil // the callbacks' users may still be there
	}
	// All participants of the session have left, but the room has users. If the room was
	// created again, all of them have entered since. Otherwise one of them, without a
	// callback, was there when the last participant left.
	var list []serverapi.User
	if err := a.try(ctx, func() (err error) {
		list, _, err = a.API.DescribeUserList(ctx, a.app, c.RoomID, serverapi.MaxUsers, "")
		return err
	}); err != nil || len(list) == 0 {
		return false, err
	}
	var ids []string // the longest-present users
	for _, u := range list {
		ids = append(ids, u.UserID)
	}
	var statuses []serverapi.User
	err = a.try(ctx, func() (err error) {
		statuses, err = a.API.DescribeUsers(ctx, a.app, c.RoomID, ids)
		return err
	})
	if refused := new(serverapi.Error); errors.As(err, &refused) && refused.NoRoom() {
		return true, nil // the last user has just left
	}
	if err != nil {
		return false, err
	}
	seen := false
	for _, s := range statuses {
		if s.InRoom && !s.LoginTime.After(c.LastTime.Add(clockSkew)) {
			return false, nil
		}
		seen = seen || s.InRoom
	}
	return seen, nil
}

// closeOut starts the Workflow of a session that is gone. The session ends at the latest time
// in its callbacks.
func (a *appCheck) closeOut(ctx context.Context, c ledger.Check) error {
	if c.LastTime.IsZero() {
		return fmt.Errorf("session %d: no callback has a time", c.RoomSessionID)
	}
	session := session.Session{ID: c.ID, RoomID: c.RoomID, RoomCloseTime: c.LastTime, Reconciled: true}
	activity.RecordHeartbeat(ctx)
	if err := a.Start(ctx, session); err != nil {
		return fmt.Errorf("start the Workflow of session %d: %w", c.RoomSessionID, err)
	}
	if err := a.Ledger.Closed(ctx, c.ID); err != nil {
		return err // the next run finds the Workflow
	}
	a.Gone++
	a.observe("closed_out", 1)
	activity.GetLogger(ctx).Info("session without room_close closed out", "session", session.String(), "room_close_time", session.RoomCloseTime,
		"silent_since", c.SeenAt, "room_lives_on_as", c.Later)
	return nil
}

// try makes a call and retries it with a growing pause.
func (a *appCheck) try(ctx context.Context, call func() error) error {
	for attempt := 1; ; attempt++ {
		activity.RecordHeartbeat(ctx)
		err := call()
		if err == nil {
			a.inARow = 0
			return nil
		}
		refused := new(serverapi.Error)
		isAnswer := errors.As(err, &refused)
		switch {
		case isAnswer && refused.NoRoom(), isRefused(err):
			return err // not retryable
		case isAnswer && refused.Unauthorized():
			a.inARow = maxFailures
			return err
		case attempt == maxAttempts || ctx.Err() != nil:
			a.inARow++
			return err
		}
		select {
		case <-time.After(time.Duration(attempt) * cmp.Or(a.Pause, time.Second)):
		case <-ctx.Done():
		}
	}
}

// isRefused reports whether ZEGO rejected a parameter.
func isRefused(err error) bool {
	refused := new(serverapi.Error)
	return errors.As(err, &refused) && (refused.Code == 2 || refused.Code == 3)
}

func (a *appCheck) fail(sessions int, err error) {
	a.Failed += sessions
	a.Error = err.Error()
}

func (r *Reconciler) observe(outcome string, sessions int) {
	if r.Observe != nil {
		r.Observe(outcome, sessions)
	}
}

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
