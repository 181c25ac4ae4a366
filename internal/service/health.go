package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
)

// answerWithin bounds each check of readiness. All run concurrently, so that a kubelet with a
// timeout of 3 s gets an answer.
const answerWithin = 1500 * time.Millisecond

// health reports whether this process does its work.
type health struct {
	worker  bool
	polling atomic.Bool
	// questions and the ledger are set once the parts are open.
	questions atomic.Pointer[questions]
	ledger    atomic.Pointer[ledger.Ledger]
}

// questions holds the checks of readiness. Checks of parts that this process does not run are nil.
type questions struct {
	temporal *probe.Probe[struct{}]
	inbox    *queueQuestions
	events   *queueQuestions
	// ledger reports whether the ledger answers.
	ledger       *probe.Probe[struct{}]
	certificates *probe.Probe[struct{}] // whether certificates expire soon
	tasks        *probe.Probe[struct{}] // whether tasks wait that no worker takes
	// starts and stores return why Temporal takes no starts and the ledger no events, or nil.
	starts, stores func() error
	// refused reports refused callbacks that no ledger has recorded.
	refused func() error
}

// queueQuestions are the questions about an inbox.
type queueQuestions struct {
	write *probe.Probe[struct{}]
	stats *probe.Probe[inbox.Stats]
}

// queue is an inbox.
type queue interface {
	Probe(context.Context) error
	Stats(context.Context) (inbox.Stats, error)
}

func askQueue(within time.Duration, q queue) *queueQuestions {
	return &queueQuestions{probe.New(within, probe.Err(q.Probe)), probe.New(within, q.Stats)}
}

// askNamespace checks that Temporal has the Namespace. An open port does not show that.
func askNamespace(within time.Duration, t client.Client, namespace string) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(ctx context.Context) error {
		_, err := t.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		return err
	}))
}

// askCertificates checks whether certificates expire soon. It reads the files each time, which is
// cheaper than a handshake.
func askCertificates(within time.Duration, c *config.Config) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(context.Context) error {
		var faults []error
		for _, files := range []CertificateFiles{CallbackCertificate(c), TemporalCertificate(c)} {
			if files.Cert != "" {
				faults = append(faults, files.Expiry(time.Now()))
			}
		}
		return errors.Join(faults...)
	}))
}

// askLedger checks that the ledger answers. It ignores missing tables, which are created on use.
func askLedger(within time.Duration, books interface{ Check(context.Context) error }) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(ctx context.Context) error {
		if err := books.Check(ctx); !errors.Is(err, ledger.ErrNotSetUp) {
			return err
		}
		return nil
	}))
}

// queueState is the state of an inbox.
type queueState struct {
	write error
	stats inbox.Stats
}

// check returns the state of the process, or an error if it is not ready. A webhook is ready as
// long as Temporal or the disk takes callbacks, because otherwise they would be lost.
func (h *health) check(ctx context.Context) (string, error) {
	q := h.questions.Load()
	if q == nil {
		return "", errors.New("starting")
	}
	// Run all checks concurrently, so that one that hangs does not delay the others.
	var group sync.WaitGroup
	var temporal, books, certificates, tasks error
	var closes, events queueState
	ask := func(p *probe.Probe[struct{}], err *error) {
		if p != nil {
			group.Go(func() { _, *err = p.Get(ctx) })
		}
	}
	queue := func(q *queueQuestions, s *queueState) {
		if q != nil {
			ask(q.write, &s.write)
			group.Go(func() { s.stats, _ = q.stats.Get(ctx) })
		}
	}
	ask(q.temporal, &temporal)
	ask(q.ledger, &books)
	ask(q.certificates, &certificates)
	ask(q.tasks, &tasks)
	queue(q.inbox, &closes)
	queue(q.events, &events)
	group.Wait()

	if temporal != nil {
		temporal = fmt.Errorf("%s: %w", "Temporal", temporal) // a name
	}
	var idle error
	if h.worker && !h.polling.Load() {
		idle = errors.New("the worker isn't polling yet")
	}
	var degraded []string
	report := func(what string, err error) {
		if err != nil {
			degraded = append(degraded, what+err.Error())
		}
	}
	switch {
	case q.inbox == nil:
		if err := errors.Join(temporal, idle); err != nil {
			return "", err
		}
	case temporal != nil && closes.write != nil:
		return "", fmt.Errorf("can't accept: %w", errors.Join(temporal, closes.write))
	}
	report("queuing: ", temporal)
	report("can't queue: ", closes.write)
	// Failed starts do not make a webhook unready: without callbacks, no start would notice that
	// Temporal is back.
	if temporal == nil && q.starts != nil {
		report("queuing: Temporal answers, and starts fail: ", q.starts())
	}
	report("", idle)
	if books == nil && q.stores != nil {
		books = q.stores()
	}
	if books != nil {
		books = fmt.Errorf("ledger: %w", books)
	}
	switch {
	case q.events == nil:
		report("", books)
	case books != nil && events.write != nil:
		report("can't take events: ", errors.Join(books, events.write))
	default:
		report("can't queue events: ", events.write)
		report("queuing events: ", books)
	}
	if errors.Is(tasks, errStranded) { // an outage of Temporal is listed already
		report("", tasks)
	}
	report("", certificates)
	if q.refused != nil {
		report("", q.refused())
	}
	state := "ok"
	if len(degraded) > 0 {
		state = "degraded: " + strings.ReplaceAll(strings.Join(degraded, "; "), "\n", "; ")
	}
	lines := append([]string{state}, closes.lines("callbacks", "closeout inbox list")...)
	lines = append(lines, events.lines("callbacks of participants", "closeout inbox list --events")...)
	return strings.Join(lines, "\n"), nil
}

// lines returns the lines about an inbox for operators.
func (s queueState) lines(what, list string) (lines []string) {
	if s.stats.Waiting > 0 {
		lines = append(lines, fmt.Sprintf("%d %s wait in the inbox, the oldest for %v", s.stats.Waiting, what, time.Since(s.stats.Oldest).Round(time.Second)))
	}
	if s.stats.DeadLetters > 0 {
		lines = append(lines, fmt.Sprintf("%d %s are dead letters, see `%s`", s.stats.DeadLetters, what, list))
	}
	return lines
}

// waiting returns the number of callbacks that wait in an inbox.
func (q *queueQuestions) waiting(ctx context.Context) (int64, error) {
	stats, err := q.stats.Get(ctx)
	return stats.Waiting, err
}

// adminRouter serves the endpoints for operators.
func adminRouter(h *health, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		state, err := h.check(r.Context())
		if err != nil {
			// One line, for logs.
			http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, state)
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("PUT /recordings/{appid}/{task}", h.announceRecording)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
