// Package audit proves, on a live system, that nothing was lost and nothing was done twice: it compares what was
// acknowledged with the inbox, Temporal's runs, the ledger and the archive.
//
// A session moves while it is looked at: from the journal of what was acknowledged to the inbox, to a run, to a bill and a
// manifest. The places are read in that order, so that a session which has left one before it was read is found in a
// later one. What still looks wrong is only a candidate. It is examined by itself, where nothing is out of date:
// Temporal's list of runs lags behind, but what Temporal says of a single Workflow ID does not, and neither do the ledger
// and the archive. Only that makes it a [Fault].
package audit

import (
	"cmp"
	"context"
	"iter"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// Options select what is compared.
type Options struct {
	Temporal client.Client
	// Data reads the memos of runs; the SDK's default unless set.
	Data   converter.DataConverter
	Ledger *ledger.Ledger
	// Archive is the bucket with the manifests.
	Archive *blob.Bucket
	// Inbox and EventInbox list the callbacks on disk of all webhooks, for Temporal and for the ledger; nil if there are
	// none. An entry that leaves its inbox meanwhile may be listed or not: it is in its sink before it leaves.
	Inbox, EventInbox func(context.Context) iter.Seq2[inbox.Entry, error]
	// Journal lists what the webhook was offered. It is read several times. Without it only runs, bills, manifests and
	// inbox are compared, and a session that has left no trace in any of them is not missed.
	Journal iter.Seq2[Entry, error]
	// Complete reports that nothing was offered but what the journal lists.
	Complete bool
	// Since and Until skip the sessions whose runs started before, or not before. A zero time skips none.
	Since, Until time.Time
	// Retention is how long Temporal keeps closed runs: an older bill may be without one. 0 is for ever. Where it was
	// raised lately, let Since skip what is older.
	Retention time.Duration
	// Grace is the minimum age of a bill without an entry in the journal: after lost answers, the entry is written later
	// than the run. See [Report.Unsettled].
	Grace time.Duration
	// Found, if set, is called with every fault, also with those that are too many for the report, one after the other.
	Found func(Fault)
	// Lossy has open runs examined whose bill the ledger may have lost, as if the ledger itself reported a loss.
	Lossy bool
	// Parallel is how many sessions are examined at a time; 32 unless set.
	Parallel int
	// Now is the clock; [time.Now] unless set.
	Now func() time.Time
}

const (
	defaultParallel = 32
	// runsPage is the most that Temporal lists in one answer.
	runsPage = 1000
	// skew is how far apart the clocks of Temporal, the workers and this machine may be, and how long an audit may take,
	// where it matters whether the run of an old bill is still kept.
	skew = time.Hour
)

// audit is one that is under way.
type audit struct {
	Options
	began    time.Time
	sessions sessions
	// reasons are why callbacks are dead letters, of as many sessions as are reported.
	reasons map[session.ID]string
	// unaccounted reports that there are bills without an entry in the journal, and aside that there are dead letters.
	unaccounted, aside bool
	// lossy reports that the ledger was restored from a copy.
	lossy bool

	mu     sync.Mutex
	report Report
}

// Run compares everything once. Its error means that something could not be read; what is wrong with what was read is in
// the report. It holds 30 to 45 bytes of memory for each session.
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

// Wait is [Run], repeated until nothing is pending or the time is over. It returns the last report.
func Wait(ctx context.Context, o Options, timeout time.Duration) (Report, error) {
	deadline := time.Now().Add(timeout)
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

// late reports whether a run started too late to be of interest.
func (a *audit) late(start time.Time) bool {
	return !a.Until.IsZero() && !start.Before(a.Until)
}

// gone reports whether the run that made something at that time may be deleted: Temporal keeps it for the retention from
// its end on, which is later.
func (a *audit) gone(made time.Time) bool {
	return made.Before(a.Since) || a.Retention > 0 && made.Before(a.Now().Add(skew-a.Retention))
}

// unaccountedFor reports whether the session is billed although nobody seems to have been answered that it is taken care
// of. What is in the inbox was acknowledged, or is about to be.
func (a *audit) unaccountedFor(r record) bool {
	return a.Journal != nil && r.has(billed) && !r.has(acknowledged|undecided|waiting|deadLetter) && (r.has(offered) || a.Complete)
}

// unsettled reports whether it is too early to expect the session of such a bill in the journal.
func (a *audit) unsettled(r record) bool {
	return a.unaccountedFor(r) && !r.has(offered) && r.has(young)
}
