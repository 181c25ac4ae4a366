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

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
)

// answerWithin bounds each question of readiness. All are asked at once, so a kubelet
// that gives up after 3 s has its answer.
const answerWithin = 1500 * time.Millisecond

// health reports whether this process does its work.
type health struct {
	worker  bool
	polling atomic.Bool
	// questions is set once the parts are opened, and so is the ledger.
	questions atomic.Pointer[questions]
	ledger    atomic.Pointer[ledger.Ledger]
}

// questions are what readiness asks. Those about parts that this process doesn't have are
// nil.
type questions struct {
	temporal *probe.Probe[struct{}]
	inbox    *queueQuestions
	events   *queueQuestions
	// ledger reports whether the ledger answers.
	ledger       *probe.Probe[struct{}]
	certificates *probe.Probe[struct{}] // of their expiry
	tasks        *probe.Probe[struct{}] // of those that no worker may take
	// starts and stores return why Temporal takes no start, and the ledger no event; nil while
	// they do.
	starts, stores func() error
	// refused reports the refused callbacks that no ledger has.
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

// askNamespace asks whether Temporal has the Namespace, which an open port does not show.
func askNamespace(within time.Duration, t client.Client, namespace string) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(ctx context.Context) error {
		_, err := t.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
		return err
	}))
}

// askCertificates asks whether certificates expire soon. It reads them again, which takes
// less than a handshake.
func askCertificates(within time.Duration, all []CertificateFiles) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(context.Context) error {
		var faults []error
		for _, files := range all {
			faults = append(faults, files.Expiry(time.Now()))
		}
		return errors.Join(faults...)
	}))
}

// askLedger asks whether the ledger answers. Missing tables are made when they are needed.
func askLedger(within time.Duration, books interface{ Check(context.Context) error }) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(ctx context.Context) error {
		if err := books.Check(ctx); !errors.Is(err, ledger.ErrNotSetUp) {
			return err
		}
		return nil
	}))
}

// answers are the answers to questions.
type answers struct {
	temporal, ledger error
	inbox, events    queueAnswers
	certificates     error
	tasks            error
}

type queueAnswers struct {
	write, read error
	stats       inbox.Stats
}

// ask asks all at once, so that one that hangs takes no time from another.
func (q *questions) ask(ctx context.Context) (a answers) {
	var group sync.WaitGroup
	ask := func(p *probe.Probe[struct{}], err *error) {
		if p != nil {
			group.Go(func() { _, *err = p.Get(ctx) })
		}
	}
	queue := func(q *queueQuestions, a *queueAnswers) {
		if q != nil {
			ask(q.write, &a.write)
			group.Go(func() { a.stats, a.read = q.stats.Get(ctx) })
		}
	}
	ask(q.temporal, &a.temporal)
	ask(q.ledger, &a.ledger)
	queue(q.inbox, &a.inbox)
	queue(q.events, &a.events)
	ask(q.certificates, &a.certificates)
	ask(q.tasks, &a.tasks)
	group.Wait()
	return a
}

// check returns the state of the process, or an error if it is not ready. A webhook is ready
// as long as Temporal or the disk takes callbacks, whatever else is wrong: without it they
// would be lost.
func (h *health) check(ctx context.Context) (string, error) {
	q := h.questions.Load()
	if q == nil {
		return "", errors.New("starting")
	}
	a := q.ask(ctx)
	if a.temporal != nil {
		a.temporal = fmt.Errorf("%s: %w", "Temporal", a.temporal) // a name
	}
	var idle error
	if h.worker && !h.polling.Load() {
		idle = errors.New("the worker isn't polling yet")
	}
	var degraded, more []string
	switch full := a.inbox.write; {
	case q.inbox == nil:
		if err := errors.Join(a.temporal, idle); err != nil {
			return "", err
		}
	case a.temporal != nil && full != nil:
		return "", fmt.Errorf("can't accept: %w", errors.Join(a.temporal, full))
	case a.temporal != nil:
		degraded = append(degraded, "queuing: "+a.temporal.Error())
	case full != nil:
		degraded = append(degraded, "can't queue: "+full.Error())
	}
	// Failed starts make no webhook unready: without callbacks no start would find out that
	// Temporal is back.
	if a.temporal == nil && q.starts != nil {
		if err := q.starts(); err != nil {
			degraded = append(degraded, "queuing: Temporal answers, and starts fail: "+err.Error())
		}
	}
	if idle != nil {
		degraded = append(degraded, idle.Error())
	}
	if a.ledger == nil && q.stores != nil {
		a.ledger = q.stores()
	}
	if a.ledger != nil {
		a.ledger = fmt.Errorf("ledger: %w", a.ledger)
	}
	switch {
	case q.events == nil && a.ledger != nil:
		degraded = append(degraded, a.ledger.Error())
	case a.ledger != nil && a.events.write != nil:
		degraded = append(degraded, "can't take events: "+errors.Join(a.ledger, a.events.write).Error())
	case a.events.write != nil:
		degraded = append(degraded, "can't queue events: "+a.events.write.Error())
	case a.ledger != nil:
		degraded = append(degraded, "queuing events: "+a.ledger.Error())
	}
	if errors.Is(a.tasks, errStranded) { // an outage of Temporal is listed already
		degraded = append(degraded, a.tasks.Error())
	}
	if a.certificates != nil {
		degraded = append(degraded, a.certificates.Error())
	}
	if q.refused != nil {
		if err := q.refused(); err != nil {
			degraded = append(degraded, err.Error())
		}
	}
	more = append(more, a.inbox.lines("callbacks", "closeout inbox list")...)
	more = append(more, a.events.lines("callbacks of participants", "closeout inbox list --events")...)
	state := "ok"
	if len(degraded) > 0 {
		state = "degraded: " + strings.ReplaceAll(strings.Join(degraded, "; "), "\n", "; ")
	}
	return strings.Join(append([]string{state}, more...), "\n"), nil
}

// lines returns what operators should know about an inbox.
func (a queueAnswers) lines(what, list string) (lines []string) {
	if a.stats.Waiting > 0 {
		lines = append(lines, fmt.Sprintf("%d %s wait in the inbox, the oldest for %v", a.stats.Waiting, what, time.Since(a.stats.Oldest).Round(time.Second)))
	}
	if a.stats.DeadLetters > 0 {
		lines = append(lines, fmt.Sprintf("%d %s are dead letters, see `%s`", a.stats.DeadLetters, what, list))
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
