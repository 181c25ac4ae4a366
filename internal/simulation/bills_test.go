package simulation

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// toTheBill reports whether the history has a real ledger, in which a worker bills the
// sessions and adjusts the bills.
func (h history) toTheBill() bool { return h.seed%20 == 0 }

// worker has the real ledger, a Temporal server, and a sequence of worker processes. They make a
// bill and an archive for each run, and adjust the bills.
type worker struct {
	w               *world
	path            string         // of the ledger
	ledger          *ledger.Ledger // never fails; for callbacks and checks
	billing         *steps.Billing
	api             *billingAPI
	dir             string // of the buckets
	source, archive *blob.Bucket
	notifier        *starter.Notifier
	reconciler      *reconcile.Reconciler
	server          *server
	client          client.Client // used by all but the worker processes
	lives           int           // number of worker processes
	lateStarts      int           // number of requests to archive late recordings
	visits          int           // number of times that an operator looked at a run
	indexed         map[string]bool
	starts          sync.WaitGroup
	asides          atomic.Int64 // goroutines of aside
	stop            chan struct{}
	beside          sync.WaitGroup

	mu        sync.Mutex
	events    []ledger.Event // all arguments of Record, with repetitions
	attempts  map[string]int // of steps, by idempotency key
	files     map[session.ID][]string
	receipts  map[uuid.UUID]string // by idempotency key
	receipted int                  // receipts that were checked
	uploads   map[string]bool      // files in ZEGO's bucket, by name
	reports   map[session.ID]int   // files that more has reported
	done      bool                 // nothing new is reported
	skipped   map[session.ID]bool  // whose recordings a person skipped
}

// emptyLedger returns the database file of a migrated ledger without events.
var emptyLedger = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "ledger.db")
	l, err := ledger.Open("sqlite:" + path)
	if err != nil {
		return nil, err
	}
	if err := l.Migrate(context.Background()); err != nil {
		return nil, err
	}
	if err := l.Close(); err != nil { // also writes SQLite's log back into the file
		return nil, err
	}
	return os.ReadFile(path)
})

// tempDir returns a folder for a ledger, in memory if /dev/shm exists.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ledger")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func openLedger(dir, name string) (*ledger.Ledger, error) {
	empty, err := emptyLedger()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, empty, 0o600); err != nil {
		return nil, err
	}
	return ledger.Open("sqlite:" + path)
}

func newWorker(w *world, dir string) *worker {
	l, err := openLedger(dir, "ledger.db")
	if err != nil {
		panic(err)
	}
	if w.seed%40 == 0 {
		var calls atomic.Int64
		l.Price = func(s pricing.Session) ([]pricing.Line, error) {
			time.Sleep(between(w.chance("price", int(calls.Add(1))), 0, 20*time.Second)) // callbacks come meanwhile
			return perUser(s)
		}
	}
	k := &worker{w: w, path: filepath.Join(dir, "ledger.db"), ledger: l, stop: make(chan struct{}), indexed: map[string]bool{}, attempts: map[string]int{}, files: map[session.ID][]string{}, receipts: map[uuid.UUID]string{}, uploads: map[string]bool{}, reports: map[session.ID]int{}, skipped: map[session.ID]bool{}}
	k.api = &billingAPI{w: w, calls: map[string]int{}, taken: map[string]string{}}
	k.billing = &steps.Billing{Ledger: l, Prices: metering.Prices{Default: price}, API: k.api.endpoint()}
	due, err := k.faultyLedger(0, false)
	if err != nil {
		panic(err)
	}
	k.reconciler = &reconcile.Reconciler{Ledger: due, Adjust: k.startAdjustment, AddLate: k.startLate}
	k.server = newServer(w.broken)
	if k.client, err = connect(silent, k.server.call); err != nil {
		panic(err)
	}
	k.notifier = starter.NewNotifier(l, k.client, slog.New(slog.DiscardHandler))
	k.openBuckets(dir)
	k.beside.Go(func() { k.work(k.stop) })
	k.beside.Go(func() {
		for ticks := time.NewTicker(time.Minute); ; {
			select {
			case <-ticks.C:
				k.adjust()
			case <-k.stop:
				ticks.Stop()
				return
			}
		}
	})
	return k
}

var price = pricing.Price{Currency: "EUR", PerMinute: 2}

// perUser is a price function with a line for each user.
func perUser(s pricing.Session) (lines []pricing.Line, err error) {
	for p := range s.Participants {
		n := p.InRoom.Minutes()
		lines = append(lines, pricing.Line{Payer: p.User, Description: "time in the room", Quantity: n, Unit: "minute", UnitPrice: price.PerMinute, Amount: n * price.PerMinute, Currency: price.Currency})
	}
	return lines, nil
}

// Record implements [eventsink.Store].
func (k *worker) Record(ctx context.Context, events []ledger.Event) error {
	k.mu.Lock()
	k.events = append(k.events, events...)
	k.mu.Unlock()
	if err := k.ledger.Record(ctx, events); err != nil {
		return err
	}
	k.announce(events)
	return nil
}

// Probe implements [eventsink.Store].
func (k *worker) Probe(ctx context.Context) error { return k.ledger.Probe(ctx) }

func taskOf(s session.Session) activities.Task {
	return activities.Task{Session: s, IdempotencyKey: s.IdempotencyKey("billing")}
}

// execute executes an Activity.
func execute(activity any, args ...any) (converter.EncodedValue, error) {
	suite := new(testsuite.WorkflowTestSuite)
	suite.SetLogger(silent)
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(activity)
	return env.ExecuteActivity(activity, args...)
}

// adjust starts the adjustments and the late recordings that are due. It returns false if the
// ledger failed.
func (k *worker) adjust() bool {
	_, err := execute(k.reconciler.StartAdjustments)
	if err == nil {
		_, err = execute(k.reconciler.StartLateRecordings)
	}
	if err != nil && !strings.Contains(err.Error(), errLedger.Error()) {
		k.w.broken("start adjustments and late recordings: %v", err)
	}
	return err == nil
}

// finish waits until all sessions are billed and adjusted, and checks the results.
func (k *worker) finish(dir string) {
	ctx := context.Background()
	close(k.stop)
	k.beside.Wait()
	defer time.Sleep(time.Hour) // the SDK's workers leave goroutines that repeat requests for a while
	defer k.client.Close()
	defer func() {
		if err := errors.Join(k.ledger.Close(), k.reconciler.Ledger.Close(), k.source.Close(), k.archive.Close()); err != nil {
			k.w.broken("close the ledger and the buckets: %v", err)
		}
	}()
	k.awaitRuns()
	if k.w.failed() {
		return
	}
	if err := k.closeOut(); err != nil {
		k.w.broken("%v", err)
		return
	}
	for rounds := 0; ; {
		k.awaitAsides()
		dirty, err := k.ledger.Dirty(ctx, time.Now().Add(time.Hour), ledger.BilledSession{}, 1)
		late, lateErr := k.ledger.LateRecordings(ctx, time.Now().Add(lateAgain), time.Time{}, ledger.RecordingTask{}, 1)
		if err = errors.Join(err, lateErr); err != nil || rounds == 5 {
			k.w.broken("sessions %v to adjust and recordings %v to archive after %d rounds: %v", dirty, late, rounds, err)
			return
		}
		if len(dirty)+len(late) == 0 {
			break
		}
		if k.w.failed() {
			return
		}
		if time.Sleep(time.Minute); len(late) > 0 {
			time.Sleep(lateAgain)
		}
		if k.adjust() {
			rounds++
		}
		k.awaitRuns()
	}
	k.mu.Lock()
	k.done = true
	k.mu.Unlock()
	k.afterRetention()
	entries := map[session.ID]ledger.Entry{}
	for e, err := range k.ledger.Entries(ctx, ledger.Filter{}) {
		if err != nil {
			k.w.broken("list entries: %v", err)
			return
		}
		entries[e.Session.ID] = e
		k.w.bills, k.w.adjustments = k.w.bills+1, k.w.adjustments+len(e.Adjustments)
	}
	if len(entries) != len(k.w.temporal.runs) {
		k.w.broken("%d bills for %d runs", len(entries), len(k.w.temporal.runs))
	}
	k.checkRuns(entries)
	if err := k.compare(ctx, dir, entries); err != nil {
		k.w.broken("%v", err)
	}
}

// failed reports whether a guarantee is broken.
func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure != ""
}

// broken calls failf with w.mu locked.
func (w *world) broken(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failf(format, args...)
}

// The seeds that bill include adjustments, sessions without a room_close, blocked steps, and
// recordings that are reported before and after the archive.
// Otherwise their checks would prove little.
func TestSeedsThatBillAdjust(t *testing.T) {
	bills, adjustments, overdue, decisions, files, late := 0, 0, 0, 0, 0, 0
	for seed := uint64(20); seed <= 400; seed += 20 {
		o := run(t, newHistory(seed))
		if o.failure != "" {
			t.Fatal(explain(t, newHistory(seed), o.failure))
		}
		bills, adjustments, overdue, decisions = bills+o.bills, adjustments+o.adjustments, overdue+o.overdue, decisions+o.decisions
		files, late = files+o.files, late+o.late
	}
	t.Logf("%d bills with %d adjustments, %d of sessions without a room_close, %d decisions about blocked steps, %d files in callbacks, %d sessions with late files",
		bills, adjustments, overdue, decisions, files, late)
	if bills < 20 || adjustments < 5 || overdue < 5 || decisions < 20 || files < 10 || late < 3 {
		t.Errorf("want at least 20, 5, 5, 20, 10 and 3")
	}
}
