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
	// Answers is how many answers in a row have to say that a room is gone. A single one
	// may be of a moment in which ZEGO knows less than usual.
	Answers = 3
	// maxAttempts is how often a failing call is made, and maxFailures how many calls in a
	// row may fail before their app is left alone for the rest of the run.
	maxAttempts, maxFailures = 3, 3
	// clockSkew is how far the clocks of ZEGO's servers may differ.
	clockSkew = 5 * time.Second
)

// Reconciler has the Activities of [Reconcile].
type Reconciler struct {
	// Ledger has the sessions.
	Ledger *ledger.Ledger
	// API asks ZEGO. Without it, or a secret of the app, sessions are only reported.
	API *serverapi.Client
	// Start starts the session's Workflow. It is no error if there is one already that is
	// open or completed. If it has ended otherwise, the session stays overdue.
	Start func(context.Context, session.Session) error
	// Adjust starts the adjustment of a bill. There may be one already.
	Adjust func(context.Context, ledger.BilledSession) error
	// AddLate starts the run that adds late recordings to a session's archive. It returns
	// false if one is open, which may not know of what is new.
	AddLate func(context.Context, ledger.ArchivedSession) (bool, error)
	// Apps are those whose recording tasks are read from ZEGO every SweepEvery, and Found is
	// called with each task in which something was found that no callback reported.
	Apps       []uint32
	SweepEvery time.Duration
	Found      func(ctx context.Context, appID uint32, task serverapi.Task) error
	// Swept, if set, is called with the result of each app's sweep of "recordings" or of
	// "usage", which is compared with the ledger.
	Swept func(of string, err error)
	// OverdueAfter is how long a session may be silent.
	OverdueAfter time.Duration
	// Gap is the minimum time between two answers about one session.
	Gap time.Duration
	// Pause is how long a failed call waits to be made again, and twice as long the next
	// time; a second unless set.
	Pause time.Duration
	// Observe, if set, is called with the number of sessions that were "closed_out" or
	// "failed".
	Observe func(outcome string, sessions int)
	// Now is the clock; [time.Now] unless set.
	Now func() time.Time
}

// Page is the result of a page of overdue sessions.
type Page struct {
	// Before, After and Failing are those of the next page's [Progress].
	Before  time.Time          `json:"before"`
	After   ledger.OpenSession `json:"after,omitzero"`
	Failing map[uint32]int     `json:"failing,omitempty"`
	// Last reports that there is no next page.
	Last bool `json:"last"`
	// Apps are the counts of this page.
	Apps map[uint32]Counts `json:"apps,omitempty"`
}

// CheckOverdueSessions asks ZEGO about a page of overdue sessions, and closes out those
// that are gone. Its error is the ledger's; an app's errors are in the page.
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
	// All apps at once: each has limits of its own, and some may not be answered for.
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
	inARow int // failed calls, with those of the pages before
}

// ask asks about sessions, ten rooms at a time.
func (a *appCheck) ask(ctx context.Context, checks []ledger.Check) error {
	rooms := map[string][]ledger.Check{} // a room may have several
	var names []string
	for _, c := range checks {
		if c.Gone > 0 && a.now().Sub(c.AskedAt) < a.Gap {
			a.Doubtful++ // too early to ask again
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

// askAbout asks about up to ten rooms, and about each by itself if ZEGO refuses one.
func (a *appCheck) askAbout(ctx context.Context, names []string, rooms map[string][]ledger.Check) error {
	if a.inARow >= maxFailures {
		for _, name := range names {
			a.Failed += len(rooms[name])
		}
		return nil
	}
	var counts map[string]serverapi.RoomUsers
	var missing error // of the rooms that the answer lacks
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

// judge reports whether the session is gone, by the users of its room. In doubt it isn't:
// that only costs time.
func (a *appCheck) judge(ctx context.Context, c ledger.Check, users serverapi.RoomUsers) (gone bool, err error) {
	switch {
	case users.Participants() == 0:
		return true, nil
	case c.Later != 0:
		return true, nil // the room has had another life since
	case !c.Left:
		return false, nil // the users may be those of the callbacks
	}
	// All participants of the session have left, and somebody is in the room. In another
	// life of the room everybody has entered since. In this one, somebody without a
	// callback was there when the last participant left.
	var list []serverapi.User
	if err := a.try(ctx, func() (err error) {
		list, _, err = a.API.DescribeUserList(ctx, a.app, c.RoomID, serverapi.MaxUsers, "")
		return err
	}); err != nil || len(list) == 0 {
		return false, err
	}
	var ids []string // the longest present
	for _, u := range list {
		ids = append(ids, u.UserID)
	}
	var statuses []serverapi.User
	err = a.try(ctx, func() (err error) {
		statuses, err = a.API.DescribeUsers(ctx, a.app, c.RoomID, ids)
		return err
	})
	if refused := new(serverapi.Error); errors.As(err, &refused) && refused.NoRoom() {
		return true, nil // its last user has just left
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

// closeOut starts the Workflow of a session that is gone. Its end is the latest time that
// callbacks report.
func (a *appCheck) closeOut(ctx context.Context, c ledger.Check) error {
	if c.LastTime.IsZero() {
		return fmt.Errorf("session %d: no callback has a time", c.RoomSessionID)
	}
	session := session.Session{ID: session.ID{AppID: c.AppID, RoomSessionID: c.RoomSessionID}, RoomID: c.RoomID, RoomCloseTime: c.LastTime, Reconciled: true}
	activity.RecordHeartbeat(ctx)
	if err := a.Start(ctx, session); err != nil {
		return fmt.Errorf("start the Workflow of session %d: %w", c.RoomSessionID, err)
	}
	if err := a.Ledger.Closed(ctx, c.AppID, c.RoomSessionID); err != nil {
		return err // the next run finds the Workflow
	}
	a.Gone++
	a.observe("closed_out", 1)
	activity.GetLogger(ctx).Info("session without room_close closed out", "session", session.String(), "room_close_time", session.RoomCloseTime,
		"silent_since", c.SeenAt, "room_lives_on_as", c.Later)
	return nil
}

// try makes a call, and if it fails, again after a growing pause.
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
			return err // it would be the same again
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

// isRefused reports whether ZEGO found a parameter wrong.
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
