package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/internal/telemetry"
)

// health tells whether this process does its work.
type health struct {
	temporal  client.Client
	namespace string
	inbox     *inbox.Inbox // of a webhook
	usage     *usage       // of a webhook that stores it
	worker    bool
	polling   atomic.Bool
	polled    func() // called when polling becomes true
}

// check gives the state of the process in a word, or an error if it is of no use
// at the moment. A webhook is of use as long as it can take callbacks, whatever
// becomes of them meanwhile: a load balancer that took it away would lose them.
func (h *health) check(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// An answer for the namespace says more than an open port.
	_, away := h.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: h.namespace})
	if away != nil {
		away = fmt.Errorf("namespace %s of Temporal: %w", h.namespace, away)
	}
	var idle error
	if h.worker && !h.polling.Load() {
		idle = errors.New("the worker isn't polling yet")
	}
	if h.inbox == nil {
		return "ok", errors.Join(away, idle)
	}

	full := h.inbox.Probe(ctx)
	if away != nil && full != nil {
		return "", fmt.Errorf("can't accept: %w", errors.Join(away, full))
	}
	state, degraded, more := "ok", "", ""
	if h.usage != nil {
		degraded, more = h.usage.state(ctx)
	}
	switch {
	case away != nil:
		state = "degraded: queuing: " + away.Error()
	case full != nil:
		state = "degraded: can't queue: " + full.Error()
	case idle != nil:
		state = "degraded: " + idle.Error()
	case degraded != "":
		state = "degraded: " + degraded
	}
	if degraded != "" && !strings.HasSuffix(state, degraded) {
		state += "\n" + degraded
	}
	if full == nil {
		stats, err := h.inbox.Stats(ctx)
		if err == nil && stats.Waiting > 0 {
			state += "\n" + waits(stats, "callbacks wait in the inbox")
		}
		if err == nil && stats.SetAside > 0 {
			state += fmt.Sprintf("\n%d callbacks were set aside, see `closeout inbox list`", stats.SetAside)
		}
	}
	return state + more, nil
}

// waits says how many wait, and for how long.
func waits(s inbox.Stats, what string) string {
	return fmt.Sprintf("%d %s, the oldest for %v", s.Waiting, what, time.Since(s.Oldest).Round(time.Second))
}

// waitingIn counts what waits in an inbox.
func waitingIn(box *inbox.Inbox) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		stats, err := box.Stats(ctx)
		return stats.Waiting, err
	}
}

// look gives the metrics their figures.
func look(ctx context.Context, box *inbox.Inbox, in *intake.Intake) (telemetry.Inbox, error) {
	var l telemetry.Inbox
	l.Takes, l.Limit, l.InFlight = in.State()
	err := depth(ctx, box, &l)
	return l, err
}

// depth tells how full an inbox is.
func depth(ctx context.Context, box *inbox.Inbox, l *telemetry.Inbox) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stats, err := box.Stats(ctx)
	if err != nil {
		return err
	}
	l.Waiting, l.SetAside = stats.Waiting, stats.SetAside
	if !stats.Oldest.IsZero() {
		l.Oldest = time.Since(stats.Oldest)
	}
	return nil
}

// adminRouter serves what only operators should reach.
func adminRouter(h *health, metrics *telemetry.Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		state, err := h.check(r.Context())
		if err != nil {
			// One line, for those who read it in a log.
			http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, state)
	})
	mux.Handle("GET /metrics", metrics.Handler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
