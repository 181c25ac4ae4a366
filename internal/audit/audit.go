// Package audit proves, on a live system, that nothing was lost and nothing was
// done twice: it compares what was acknowledged with the inbox, Temporal's runs,
// the ledger and the archive.
//
// A session moves while it is looked at: from the journal of what was
// acknowledged to the inbox, to a run, to a bill and a manifest. The places are
// therefore read in that order, so that whoever has left one before it was read
// is found in a later one. What still looks wrong then is only a candidate. It
// is examined by itself, where it can't be out of date: Temporal's list of runs
// lags behind, but what Temporal says of a single workflow ID doesn't, and
// neither does the ledger or the archive. Only that makes it a [Fault].
package audit

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"gocloud.dev/blob"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Options say what is compared.
type Options struct {
	// Temporal has the runs.
	Temporal Temporal
	// Data reads the memos of runs; the SDK's default unless set.
	Data converter.DataConverter
	// Ledger has the bills.
	Ledger *ledger.Ledger
	// Archive is the bucket with the manifests.
	Archive *blob.Bucket
	// Inbox has the sessions that were acknowledged and have no run yet. All of
	// the webhooks' inboxes have to be in it. Nil if there is none.
	Inbox Inbox
	// Journal lists the sessions that the webhook was offered. It is read from
	// its beginning, and once more if there are bills that it doesn't account
	// for. Without it only runs, bills, manifests and inbox are compared, and a
	// session that has left no trace in any of them isn't missed.
	Journal iter.Seq2[Offered, error]
	// EventInbox has the callbacks of participants that were acknowledged and aren't in
	// the ledger yet, of all webhooks. Lives lists what the journal knows of what
	// happened in sessions, to be compared with their bills. Either may be nil.
	EventInbox Inboxes
	Lives      iter.Seq2[Entry, error]
	// Complete says that nothing was offered but what the journal lists.
	Complete bool
	// Since and Until leave out the sessions whose runs started before or not
	// before. A zero time leaves out none.
	Since, Until time.Time
	// Retention is for how long Temporal keeps closed runs: a bill that is older
	// may be without one. 0 stands for ever. It is that of the whole time looked
	// at; where it was raised meanwhile, let Since leave out what is older.
	Retention time.Duration
	// Grace is for how long a bill may be there before the journal has its
	// session: whoever offers it writes down how that ended, which after lost
	// answers is later than the run. See [Report.Unsettled].
	Grace time.Duration
	// Found, if set, hears of every fault, also of those that are too many for the
	// report, one after the other.
	Found func(Fault)
	// Lossy has runs under way looked at whose bill the ledger may have lost, as they are
	// where it says so itself.
	Lossy bool
	// Parallel is how many sessions are looked at at once; 32 unless set.
	Parallel int
	// Now is the clock; [time.Now] unless set.
	Now func() time.Time
}

// Temporal is what is asked of Temporal. A [client.Client] is one.
type Temporal interface {
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	GetWorkflow(ctx context.Context, workflowID, runID string) client.WorkflowRun
	GetWorkflowHistory(ctx context.Context, workflowID, runID string, isLongPoll bool, filter enums.HistoryEventFilterType) client.HistoryEventIterator
}

// Inbox is a queue of callbacks that were acknowledged and not yet started.
type Inbox interface {
	// Waiting lists them. One that leaves the queue meanwhile may be listed or
	// not; it has its run before it leaves.
	Waiting(ctx context.Context) iter.Seq2[Waiting, error]
}

// Waiting is a session in the inbox.
type Waiting struct {
	// AppID and RoomSessionID name the session.
	AppID         uint32
	RoomSessionID uint64
	// DeadLetter reports that Temporal has refused it for good.
	DeadLetter bool
	// Reason is why.
	Reason string
}

// Offered is a line of a journal: what came of offering a session to the webhook.
// There may be several of a session.
type Offered struct {
	// AppID and RoomSessionID name the session.
	AppID         uint32
	RoomSessionID uint64
	// Acknowledged says that the webhook answered 2XX. If it is false, whoever
	// offered the session has given it up.
	Acknowledged bool
	// Undecided says that it was neither: nobody knows whether an answer was on its
	// way. Such a session may have a run and a bill, and need not.
	Undecided bool
}

const (
	defaultParallel = 32
	// runsPage is the most that Temporal lists in one answer.
	runsPage = 1000
	// skew is how far the clocks of Temporal, the workers and this machine may be
	// apart, and for how long an audit may take, where it is to be told whether
	// the run of an old bill is still kept.
	skew = time.Hour
)

// audit is one that is under way.
type audit struct {
	Options
	began    time.Time
	sessions sessions
	// reasons are why callbacks are dead letters, of as many sessions as are reported.
	reasons map[session.ID]string
	// unaccounted says that there are bills which the journal doesn't account
	// for, and aside that there are sessions with a dead letter.
	unaccounted, aside bool
	// lossy says that the ledger was restored from a copy.
	lossy bool

	mu     sync.Mutex
	report Report
}

// Run compares everything once. Its error means that something couldn't be read;
// what is wrong with what was read is in the report. It holds 30 to 45 bytes of
// memory for each session.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Data == nil {
		o.Data = converter.GetDefaultDataConverter()
	}
	o.Parallel = cmp.Or(o.Parallel, defaultParallel)
	a := &audit{Options: o, began: o.Now(), sessions: sessions{}, reasons: map[session.ID]string{}}
	a.report = Report{found: o.Found, Began: a.began, Journal: o.Journal != nil, Inbox: o.Inbox != nil, Kinds: map[Kind]int64{}, Faults: []Fault{}}

	// The order matters: see the package's comment.
	for _, read := range []func(context.Context) error{a.readJournal, a.readInbox, a.readRuns, a.readBills, a.readAgain, a.compare, a.readAdjustments, a.readContradictions, a.readEvents} {
		if err := read(ctx); err != nil {
			return Report{}, err
		}
	}
	a.report.Ended = o.Now()
	a.report.sort()
	return a.report, nil
}

// Wait is [Run], repeated until nothing is pending or the time is over. It returns
// the last report.
func Wait(ctx context.Context, o Options, patience time.Duration) (Report, error) {
	deadline := time.Now().Add(patience)
	for {
		began := time.Now()
		report, err := Run(ctx, o)
		if err != nil || report.Pending() == 0 || !time.Now().Before(deadline) {
			return report, err
		}
		// Half of the time is left to what the audit competes with.
		pause := min(max(time.Since(began), 200*time.Millisecond), time.Until(deadline))
		select {
		case <-ctx.Done():
			return Report{}, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (a *audit) readJournal(context.Context) error {
	if a.Journal == nil {
		return nil
	}
	for o, err := range a.Journal {
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		a.sessions.mark(session.ID{AppID: o.AppID, RoomSessionID: o.RoomSessionID}, o.flags())
	}
	return nil
}

func (o Offered) flags() flags {
	switch {
	case o.Acknowledged:
		return offered | acknowledged
	case o.Undecided:
		return offered | undecided
	}
	return offered
}

func (a *audit) readInbox(ctx context.Context) error {
	if a.Inbox == nil {
		return nil
	}
	for w, err := range a.Inbox.Waiting(ctx) {
		if err != nil {
			return fmt.Errorf("read the inbox: %w", err)
		}
		f := waiting
		if w.DeadLetter {
			f, a.aside = deadLetter, true
		}
		a.sessions.mark(session.ID{AppID: w.AppID, RoomSessionID: w.RoomSessionID}, f)
	}
	return nil
}

// idPrefix is what the IDs of all runs begin with.
var idPrefix = strings.TrimSuffix(session.Session{}.WorkflowID(), "0-0")

// readRuns reads Temporal's list. It lags behind, and shows a run twice that
// closes between two pages.
func (a *audit) readRuns(ctx context.Context) error {
	query := fmt.Sprintf("WorkflowId STARTS_WITH '%s'", idPrefix)
	if !a.Since.IsZero() {
		// There is no such limit for Until: of the later runs has to be known that
		// their bills are theirs.
		query += fmt.Sprintf(" AND StartTime >= '%s'", a.Since.UTC().Format(time.RFC3339Nano))
	}
	for run, err := range a.list(ctx, query) {
		if err != nil {
			return fmt.Errorf("list runs: %w", err)
		}
		k, err := session.ParseWorkflowID(run.id)
		if err != nil {
			a.report.Foreign++
			continue
		}
		r := a.sessions[k]
		if r.has(listed) || run.status == enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			r.flags |= severally
		}
		r.flags |= listed
		switch {
		case a.late(run.start):
			r.flags |= outside
		case run.status == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:
			r.flags |= completed
		case under(run.status):
			r.flags |= running
			if run.blocked {
				r.flags |= blocked
			}
			if len(run.problems) > 0 {
				r.flags |= stuck
			}
			if run.unindexed {
				r.flags |= unindexed
			}
		default:
			r.flags |= ended
		}
		r.told = run.told.sum()
		a.sessions[k] = r
	}
	return nil
}

// late says that a run started too late to be of interest.
func (a *audit) late(start time.Time) bool {
	return !a.Until.IsZero() && !start.Before(a.Until)
}

// under says that a run with the status is under way.
func under(status enums.WorkflowExecutionStatus) bool {
	return status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING || status == enums.WORKFLOW_EXECUTION_STATUS_PAUSED
}

// readBills reads the ledger. A bill is older than the end of its run and younger
// than its beginning, so those before Since are of no interest.
func (a *audit) readBills(ctx context.Context) error {
	for b, err := range a.Ledger.Bills(ctx, a.Since) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		k := session.ID{AppID: b.AppID, RoomSessionID: b.RoomSessionID}
		r := a.sessions[k]
		r.flags |= billed
		if a.gone(b.MadeAt) {
			r.flags |= old
		}
		if b.MadeAt.After(a.began.Add(-a.Grace)) {
			r.flags |= young
		}
		if r.told != 0 && r.told != billDetails(b.Bill).sum() {
			r.flags |= differs
		}
		a.sessions[k] = r
		if a.unaccountedFor(r) {
			a.unaccounted = true
		}
	}
	losses, err := a.Ledger.Losses(ctx)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	a.lossy, a.report.Losses = a.Lossy || len(losses) > 0, losses
	if a.report.Refused, err = a.Ledger.UnreadableSince(ctx, a.Since, MaxFaults); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	// Whatever Since is: Temporal may have forgotten their runs, and nobody else
	// remembers them.
	for s, err := range a.Ledger.ClosedUnbilled(ctx) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		a.sessions.mark(session.ID{AppID: s.AppID, RoomSessionID: s.RoomSessionID}, closed)
	}
	return nil
}

// readContradictions names the sessions that were closed twice: one of the two is
// another session, which has no run. Nobody but the ledger remembers them.
func (a *audit) readContradictions(ctx context.Context) error {
	for c, err := range a.Ledger.Contradictions(ctx, a.Since) {
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if a.late(c.SeenAt) {
			continue
		}
		a.report.add(session.ID{AppID: c.AppID, RoomSessionID: c.RoomSessionID}, Fault{Kind: Contradicted,
			Problem: fmt.Sprintf("It was closed twice: another room_close says that room %q closed at %s. That one has no run.", c.RoomID, c.RoomCloseTime.Format(time.RFC3339Nano)),
			Remedy: "See that nothing between ZEGO and the webhook rounds room_session_id, and find out whose the other room_close is. If it is another session's, close that out by its own number: " +
				fmt.Sprintf("closeout send --only room_close --app %d --session SESSION --room ROOM --reason REASON --closed-at TIME", c.AppID)})
	}
	return nil
}

// gone says that the run which made something at that time need not be there any
// more: Temporal keeps it for the retention from its end on, which is later.
func (a *audit) gone(made time.Time) bool {
	return made.Before(a.Since) || a.Retention > 0 && made.Before(a.Now().Add(skew-a.Retention))
}

// unaccountedFor says that the session is billed although nobody seems to have
// been told that it is taken care of. Whatever is in the inbox was acknowledged,
// or is about to be.
func (a *audit) unaccountedFor(r record) bool {
	return a.Journal != nil && r.has(billed) && !r.has(acknowledged|undecided|waiting|deadLetter) && (r.has(offered) || a.Complete)
}

// unsettled says that it is too early to hold such a bill against the journal,
// which has nothing of the session yet.
func (a *audit) unsettled(r record) bool {
	return a.unaccountedFor(r) && !r.has(offered) && r.has(young)
}

// readAgain reads what was read before what it is compared with, where that
// matters: the journal, which gets its line after the bill is made, and the
// inbox, where people retry dead letters.
func (a *audit) readAgain(ctx context.Context) error {
	if a.unaccounted {
		for o, err := range a.Journal {
			if err != nil {
				return fmt.Errorf("read the journal again: %w", err)
			}
			k := session.ID{AppID: o.AppID, RoomSessionID: o.RoomSessionID}
			if r, ok := a.sessions[k]; ok {
				r.flags |= o.flags()
				a.sessions[k] = r
			}
		}
	}
	if a.aside {
		for w, err := range a.Inbox.Waiting(ctx) {
			if err != nil {
				return fmt.Errorf("read the inbox again: %w", err)
			}
			k := session.ID{AppID: w.AppID, RoomSessionID: w.RoomSessionID}
			if !w.DeadLetter {
				a.sessions.mark(k, waiting)
				continue
			}
			a.sessions.mark(k, deadLetter|stillDead)
			if len(a.reasons) < MaxFaults {
				a.reasons[k] = w.Reason
			}
		}
	}
	return nil
}

// compare judges every session, and looks for the manifests of the closed ones.
func (a *audit) compare(ctx context.Context) error {
	group, look := errgroup.WithContext(ctx)
	group.SetLimit(a.Parallel)
	for k, r := range a.sessions {
		if look.Err() != nil {
			break
		}
		switch {
		case r.has(outside):
			a.count(k, r, finding{outside: true})
		case a.suspicious(r):
			group.Go(func() error { return a.examine(look, k, r) })
		case r.has(completed):
			group.Go(func() error {
				archived, err := a.archived(look, k)
				switch {
				case err != nil:
					return err
				case !archived:
					return a.examine(look, k, r)
				}
				a.count(k, r, finding{status: enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, billed: true, archived: true})
				return nil
			})
		default:
			f := finding{billed: r.has(billed), blocked: r.has(blocked), expired: r.has(billed) && !r.has(listed) && !r.has(waiting)}
			if r.has(running) {
				f.status = enums.WORKFLOW_EXECUTION_STATUS_RUNNING
			}
			a.count(k, r, f)
		}
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// suspicious says that something looks wrong with the session, apart from its
// manifest, which wasn't looked for yet.
func (a *audit) suspicious(r record) bool {
	if !r.has(listed) && !r.has(waiting) {
		if r.has(billed) && !r.has(old) || !r.has(billed) && r.has(acknowledged|deadLetter|closed) {
			return true
		}
	}
	return r.has(severally|ended|differs|stuck|unindexed) ||
		r.has(completed) && !r.has(billed) ||
		r.has(running) && !r.has(billed) && (a.lossy || r.has(blocked)) || // its bill may be lost
		a.unaccountedFor(r) && !a.unsettled(r)
}

// archived looks for the session's manifest.
func (a *audit) archived(ctx context.Context, k session.ID) (bool, error) {
	found, err := a.Archive.Exists(ctx, activities.ManifestKey(session.Session{ID: k}))
	if err != nil {
		return false, fmt.Errorf("look for %s in the archive: %w", activities.ManifestKey(session.Session{ID: k}), err)
	}
	return found, nil
}

// finding is what is known of a session in the end.
type finding struct {
	status           enums.WorkflowExecutionStatus // of its run; none if 0
	blocked          bool
	billed, archived bool
	skipped          bool // the step that makes the bill or the manifest was skipped or given up
	expired          bool // closed out, and its run is not kept any more
	outside          bool
	faults           []Fault
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
	add(&n.Outside, f.outside)
	if f.outside {
		return
	}
	add(&n.Bills, f.billed)
	add(&n.Manifests, f.archived)
	add(&n.Skipped, f.skipped)
	add(&n.Expired, f.expired)
	add(&n.Unsettled, a.unsettled(r))
	switch f.status {
	case enums.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED:
	case enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		n.Runs.Completed++
	case enums.WORKFLOW_EXECUTION_STATUS_FAILED:
		n.Runs.Failed++
	case enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		n.Runs.Terminated++
	case enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		n.Runs.TimedOut++
	case enums.WORKFLOW_EXECUTION_STATUS_CANCELED:
		n.Runs.Canceled++
	default:
		add(&n.Runs.Blocked, f.blocked)
		add(&n.Runs.Running, !f.blocked)
	}
	for _, fault := range f.faults {
		n.add(k, fault)
	}
}
