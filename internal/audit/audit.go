// Package audit checks on a live system that nothing was lost and nothing was done twice. It compares the acknowledged
// callbacks with the inbox, Temporal's runs, the ledger and the archive.
//
// Sessions move during an audit: from the journal of acknowledged callbacks to the inbox, to a run, to a bill and a
// manifest. The audit reads these places in that order, so it finds a session that moves on in a later place. A session
// that still looks wrong is a candidate. The audit examines each candidate again by its ID, because Temporal's list of runs
// lags behind, but a single Workflow Execution, the ledger and the archive are up to date. Only then it reports a [Fault].
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

// Options select what to compare.
type Options struct {
	Temporal client.Client
	// Data decodes the memos of runs. Default: the SDK's.
	Data   converter.DataConverter
	Ledger *ledger.Ledger
	// Archive is the bucket with the manifests.
	Archive *blob.Bucket
	// Inbox and EventInbox list the queued callbacks of all webhooks, for Temporal and for the ledger; nil without any. An
	// entry that is removed meanwhile may be missing, because its sink has it by then.
	Inbox, EventInbox func(context.Context) iter.Seq2[inbox.Entry, error]
	// Journal lists the callbacks that were sent to the webhook. It is read several times. Without it, the audit compares
	// only runs, bills, manifests and inboxes, and does not notice a session that is in none of them.
	Journal iter.Seq2[Entry, error]
	// Complete reports that the journal lists all callbacks that were sent.
	Complete bool
	// Since and Until select the sessions with a run started in Since <= start < Until. A zero time selects all.
	Since, Until time.Time
	// Retention is how long Temporal keeps closed runs; 0 means forever. An older bill may be without a run. If the
	// retention was raised lately, set Since to skip older sessions.
	Retention time.Duration
	// Grace is the age from which a bill needs an entry in the journal. If answers were lost, the entry is written after the
	// run. See [Report.Unsettled].
	Grace time.Duration
	// Found, if set, is called with every fault, even beyond [MaxFaults], and not concurrently.
	Found func(Fault)
	// Lossy makes the audit examine open runs for lost bills, as if the ledger reported a loss.
	Lossy bool
	// Parallel bounds the sessions examined concurrently. Default: 32.
	Parallel int
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

const (
	defaultParallel = 32
	// runsPage is the largest page of Temporal's lists.
	runsPage = 1000
	// skew bounds the difference of the clocks of Temporal, the workers and this machine plus the length of an audit. It
	// matters for whether Temporal still keeps the run of an old bill.
	skew = time.Hour
)

// audit is the state of one audit.
type audit struct {
	Options
	began    time.Time
	sessions sessions
	// reasons holds why callbacks are dead letters, for at most MaxFaults sessions.
	reasons map[session.ID]string
	// unaccounted reports bills without an entry in the journal, and aside reports dead letters.
	unaccounted, aside bool
	// lossy reports that the ledger was restored from a backup.
	lossy bool

	mu     sync.Mutex
	report Report
}

// Run makes one audit. It returns an error if a place could not be read; faults are in the report. It uses 30 to 45 bytes
// of memory for each session.
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

	// The order matters: see the package comment.
	for _, read := range []func(context.Context) error{a.readJournal, a.readInbox, a.readRuns, a.readBills, a.readAgain, a.compare, a.readAdjustments, a.readContradictions, a.readEvents} {
		if err := read(ctx); err != nil {
			return Report{}, err
		}
	}
	a.report.Ended = o.Now()
	a.report.sort()
	return a.report, nil
}

// Wait repeats [Run] until nothing is pending or timeout has passed. It returns the last report.
func Wait(ctx context.Context, o Options, timeout time.Duration) (Report, error) {
	deadline := time.Now().Add(timeout)
	for {
		began := time.Now()
		report, err := Run(ctx, o)
		if err != nil || report.Pending() == 0 || !time.Now().Before(deadline) {
			return report, err
		}
		// Audit at most half of the time, because audits slow down what they wait for.
		pause := min(max(time.Since(began), 200*time.Millisecond), time.Until(deadline))
		select {
		case <-ctx.Done():
			return Report{}, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// late reports whether a run started at Until or later.
func (a *audit) late(start time.Time) bool {
	return !a.Until.IsZero() && !start.Before(a.Until)
}

// gone reports whether Temporal may have deleted the run that made something at that time. The retention begins later, at
// the end of the run.
func (a *audit) gone(made time.Time) bool {
	return made.Before(a.Since) || a.Retention > 0 && made.Before(a.Now().Add(skew-a.Retention))
}

// unaccountedFor reports whether the session is billed although the journal has no acknowledgement. A callback in the
// inbox was acknowledged, or is about to be.
func (a *audit) unaccountedFor(r record) bool {
	return a.Journal != nil && r.has(billed) && !r.has(acknowledged|undecided|waiting|deadLetter) && (r.has(offered) || a.Complete)
}

// unsettled reports whether such a bill is too young to be in the journal.
func (a *audit) unsettled(r record) bool {
	return a.unaccountedFor(r) && !r.has(offered) && r.has(young)
}
