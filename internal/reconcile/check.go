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

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/recording"
	"github.com/closeouthq/closeout/zego"
)

const (
	// Answers is how many answers in a row have to tell that a room is gone. A single
	// one may be of a moment in which ZEGO knows less than usual.
	Answers = 3
	// sessionsInAPage bounds what is in memory.
	sessionsInAPage = 200
	// billsInAPage and recordingsInAPage bound what is in memory, and lateWithin is how long after the
	// last that was heard of a recording it is looked for whose it is.
	billsInAPage, recordingsInAPage, lateWithin = 200, 200, 30 * 24 * time.Hour
	// adjustAgain is when the adjustment of a bill is started again, should Temporal have
	// lost it.
	adjustAgain = 24 * time.Hour
	// lateAgain is when a late recording is looked at again whose session has an open run.
	lateAgain = time.Hour
	// attempts is how often a call is made that fails, and failures how many calls in
	// a row may fail before their app is left alone for the rest of the run.
	attempts, failures = 3, 3
	// clocks is how far the clocks of ZEGO's servers may differ: what is later by less
	// isn't taken for later.
	clocks = 5 * time.Second
)

// Reconciler has the activities of [Reconcile].
type Reconciler struct {
	// Ledger knows the sessions.
	Ledger *ledger.Ledger
	// API asks ZEGO. Without one, or a secret of the app, sessions are only reported.
	API *zego.Client
	// Start starts the session's workflow; it is no error if there is one already that
	// is under way or completed. One that has ended otherwise is: its session stays
	// overdue.
	Start func(context.Context, activities.Session) error
	// Adjust starts the adjustment of a bill; again, there may be one already.
	Adjust func(context.Context, ledger.BilledSession) error
	// AddLate starts what adds late recordings to a session's archive, and tells
	// whether it did; otherwise that is running, and may not know of what is new.
	AddLate func(context.Context, ledger.ArchivedSession) (bool, error)
	// OverdueAfter is for how long a session may be silent.
	OverdueAfter time.Duration
	// Gap is the time between two answers about one session, at least.
	Gap time.Duration
	// Pause is how long a call that failed waits to be made again, and twice as long
	// the next time; a second unless set.
	Pause time.Duration
	// Observe, if set, is told of each session that was "closed_out", and of those
	// that "failed".
	Observe func(outcome string, sessions int)
	// Now is the clock; [time.Now] unless set.
	Now func() time.Time
}

// Page is what came of a page of overdue sessions.
type Page struct {
	// Before, After and Failing are those of the next page's [Progress].
	Before  time.Time          `json:"before"`
	After   ledger.OpenSession `json:"after,omitzero"`
	Failing map[uint32]int     `json:"failing,omitempty"`
	// Last says that there is no next page.
	Last bool `json:"last"`
	// Apps are the counts of this page.
	Apps map[uint32]Counts `json:"apps,omitempty"`
}

// CheckOverdueSessions asks ZEGO about a page of overdue sessions, and closes out
// those that are gone. Its error is one of the ledger; what goes wrong with an app
// is in the page.
func (r *Reconciler) CheckOverdueSessions(ctx context.Context, p Progress) (Page, error) {
	page := Page{Before: p.Before, Failing: map[uint32]int{}, Apps: map[uint32]Counts{}}
	maps.Copy(page.Failing, p.Failing)
	if page.Before.IsZero() {
		page.Before = r.now().Add(-r.OverdueAfter)
		if err := r.Ledger.ForgetChecks(ctx); err != nil {
			return page, err
		}
	}
	sessions, err := r.Ledger.Overdue(ctx, page.Before, p.After, sessionsInAPage)
	if err != nil {
		return page, err
	}
	page.Last = len(sessions) < sessionsInAPage
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
	// At once, as each app has limits of its own, and some may not be answered for.
	var asked []*asking
	group, together := errgroup.WithContext(ctx)
	for _, app := range slices.Sorted(maps.Keys(apps)) {
		a := &asking{Reconciler: r, app: app, Counts: Counts{Overdue: len(apps[app])}, inARow: p.Failing[app]}
		asked = append(asked, a)
		switch {
		case r.API == nil || !r.API.Knows(app):
			a.Reported = len(apps[app])
		case a.inARow >= failures:
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

// asking asks about the sessions of one app.
type asking struct {
	*Reconciler
	Counts
	app    uint32
	inARow int // calls that failed, those of the pages before included
}

// ask asks about sessions, ten rooms at a time.
func (a *asking) ask(ctx context.Context, checks []ledger.Check) error {
	rooms := map[string][]ledger.Check{} // a room may have several
	var names []string
	for _, c := range checks {
		if c.Gone > 0 && a.now().Sub(c.AskedAt) < a.Gap {
			a.Doubtful++ // it isn't time to ask again
			continue
		}
		if rooms[c.RoomID] == nil {
			names = append(names, c.RoomID)
		}
		rooms[c.RoomID] = append(rooms[c.RoomID], c)
	}
	for batch := range slices.Chunk(names, zego.MostRooms) {
		if err := a.askAbout(ctx, batch, rooms); err != nil {
			return err
		}
	}
	return nil
}

// askAbout asks about up to ten rooms. If ZEGO can't make sense of one of them, the
// others don't suffer.
func (a *asking) askAbout(ctx context.Context, names []string, rooms map[string][]ledger.Check) error {
	if a.inARow >= failures {
		for _, name := range names {
			a.Failed += len(rooms[name])
		}
		return nil
	}
	var counts map[string]zego.RoomUsers
	var untold error // of the rooms that the answer lacks: it would again
	err := a.try(ctx, func() (err error) {
		if counts, err = a.API.DescribeUserNum(ctx, a.app, names); len(counts) > 0 {
			untold, err = err, nil
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
		users, told := counts[name]
		if !told {
			a.fail(len(rooms[name]), untold)
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

// judge says whether the session is gone, by how many users its room has. Where it
// can't be told for sure, it isn't: that costs nothing but time.
func (a *asking) judge(ctx context.Context, c ledger.Check, users zego.RoomUsers) (gone bool, err error) {
	switch {
	case users.Participants() == 0:
		return true, nil
	case c.Later != 0:
		return true, nil // the room has another life since
	case !c.Left:
		return false, nil // it may be those that callbacks have told of
	}
	// All that were in it have left, and somebody is in the room. If it is another
	// life of the room, each has entered since. If it isn't, somebody was in it when
	// the last one left of whom callbacks have told.
	var list []zego.RoomUser
	if err := a.try(ctx, func() (err error) {
		list, _, err = a.API.DescribeUserList(ctx, a.app, c.RoomID, zego.MostUsers, "")
		return err
	}); err != nil || len(list) == 0 {
		return false, err
	}
	var ids []string // those that have been there for the longest time
	for _, u := range list {
		ids = append(ids, u.UserID)
	}
	var statuses []zego.UserStatus
	err = a.try(ctx, func() (err error) {
		statuses, err = a.API.DescribeUsers(ctx, a.app, c.RoomID, ids)
		return err
	})
	if refused := new(zego.APIError); errors.As(err, &refused) && refused.NoRoom() {
		return true, nil // its last user has left it a moment ago
	}
	if err != nil {
		return false, err
	}
	seen := false
	for _, s := range statuses {
		if s.InRoom && !s.LoginTime.After(c.LastTime.Add(clocks)) {
			return false, nil
		}
		seen = seen || s.InRoom
	}
	return seen, nil
}

// closeOut starts the workflow of a session that is gone. Its end is the latest
// time that callbacks told of it: a user's stay is billed as far as it is known.
func (a *asking) closeOut(ctx context.Context, c ledger.Check) error {
	if c.LastTime.IsZero() {
		return fmt.Errorf("session %d: no callback told when it was", c.RoomSessionID)
	}
	session := activities.Session{AppID: c.AppID, RoomID: c.RoomID, RoomSessionID: c.RoomSessionID, RoomCloseTime: c.LastTime, Reconciled: true}
	activity.RecordHeartbeat(ctx)
	if err := a.Start(ctx, session); err != nil {
		return fmt.Errorf("start the workflow of session %d: %w", c.RoomSessionID, err)
	}
	if err := a.Ledger.Closed(ctx, c.AppID, c.RoomSessionID); err != nil {
		return err // it is started again, and found to be there
	}
	a.Gone++
	a.observe("closed_out", 1)
	activity.GetLogger(ctx).Info("a session without a room_close is closed out", "session", session.Key(), "room_close_time", session.RoomCloseTime,
		"silent_since", c.SeenAt, "room_lives_on_as", c.Later)
	return nil
}

// try makes a call, and if it fails, some more times with a growing pause.
func (a *asking) try(ctx context.Context, call func() error) error {
	for attempt := 1; ; attempt++ {
		activity.RecordHeartbeat(ctx)
		err := call()
		if err == nil {
			a.inARow = 0
			return nil
		}
		refused := new(zego.APIError)
		isAnswer := errors.As(err, &refused)
		switch {
		case isAnswer && refused.NoRoom(), isRefused(err):
			return err // the same, however often it is asked
		case isAnswer && refused.Unauthorized():
			a.inARow = failures
			return err
		case attempt == attempts || ctx.Err() != nil:
			a.inARow++
			return err
		}
		select {
		case <-time.After(time.Duration(attempt) * cmp.Or(a.Pause, time.Second)):
		case <-ctx.Done():
		}
	}
}

// isRefused says whether ZEGO found a parameter wrong: it would again.
func isRefused(err error) bool {
	refused := new(zego.APIError)
	return errors.As(err, &refused) && (refused.Code == 2 || refused.Code == 3)
}

func (a *asking) fail(sessions int, err error) {
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

// StartAdjustments starts the adjustment of each bill that lacks events which came
// after it, and returns how many it started.
func (r *Reconciler) StartAdjustments(ctx context.Context) (int, error) {
	if r.Adjust == nil {
		return 0, nil
	}
	bills := 0
	var faults []error
	for after, last := (ledger.BilledSession{}), false; !last; {
		page, err := r.Ledger.Dirty(ctx, r.now().Add(-adjustAgain), after, billsInAPage)
		if err != nil {
			return 0, err
		}
		if last = len(page) < billsInAPage; len(page) > 0 {
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

// StartLateRecordings starts a run for each session of which recordings came after
// its archive was made, and returns how many it started.
func (r *Reconciler) StartLateRecordings(ctx context.Context) (int, error) {
	if r.AddLate == nil {
		return 0, nil
	}
	var faults []error
	sessions := map[ledger.ArchivedSession]bool{} // and whether its run was started
	err := r.lateRecordings(ctx, func(task ledger.RecordingTask, session ledger.ArchivedSession) bool {
		activity.RecordHeartbeat(ctx)
		started, asked := sessions[session]
		var err error
		if !asked {
			if started, err = r.AddLate(ctx, session); err == nil {
				sessions[session] = started
			}
		}
		switch {
		case err != nil:
		case started:
			err = r.Ledger.HandOver(ctx, task.AppID, task.TaskID)
		default: // a run is open, and may not know of the task
			err = r.Ledger.LateAt(ctx, task.AppID, task.TaskID, r.now().Add(lateAgain))
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("task %s of app %d: %w", task.TaskID, task.AppID, err))
		}
		return ctx.Err() == nil
	})
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return 0, err
	}
	if n := len(faults); n > 0 {
		return 0, fmt.Errorf("%d failed: %w", n, faults[n-1])
	}
	started := 0
	for _, was := range sessions {
		if was {
			started++
		}
	}
	return started, nil
}

// lateRecordings calls do with each task that has to be added to the archive of a
// session, until do returns false. Others are not looked at again until something
// happens to them.
func (r *Reconciler) lateRecordings(ctx context.Context, do func(ledger.RecordingTask, ledger.ArchivedSession) bool) error {
	for after, last := (ledger.RecordingTask{}), false; !last; {
		began := r.now()
		tasks, err := r.Ledger.LateRecordings(ctx, began, began.Add(-lateWithin), after, recordingsInAPage)
		if err != nil {
			return err
		}
		if last = len(tasks) < recordingsInAPage; len(tasks) > 0 {
			after = tasks[len(tasks)-1]
		}
		for _, task := range tasks {
			session, late, err := r.archivedSession(ctx, task)
			if err != nil {
				return fmt.Errorf("task %s of app %d: %w", task.TaskID, task.AppID, err)
			}
			if !late {
				if err := r.Ledger.NotLate(ctx, task.AppID, task.TaskID, began); err != nil {
					return err
				}
			} else if !do(task, session) {
				return nil
			}
		}
	}
	return nil
}

// archivedSession finds the session of a task, if that was archived. Of several it
// returns one: that one's step reports that an operator has to decide.
func (r *Reconciler) archivedSession(ctx context.Context, task ledger.RecordingTask) (s ledger.ArchivedSession, archived bool, err error) {
	candidates := []uint64{task.RoomSessionID}
	if !task.Assigned {
		lives, err := r.Ledger.Lives(ctx, task.AppID, task.RoomID, task.Last.Add(-lateWithin))
		if err != nil {
			return s, false, err
		}
		candidates = recording.Concerned(task.AppID, lives, task)
	}
	for _, candidate := range candidates {
		if s, archived, err = r.Ledger.Archived(ctx, task.AppID, candidate); archived || err != nil {
			return s, archived, err
		}
	}
	return s, false, nil
}
