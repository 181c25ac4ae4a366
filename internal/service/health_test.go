package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
)

// swallow starts a server that accepts connections, reads from them and never answers, like a
// paused process. It returns the address.
func swallow(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	return l.Addr().String()
}

// nobody returns an address that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type namespaces struct {
	workflowservice.UnimplementedWorkflowServiceServer
}

func (namespaces) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

func answering(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, namespaces{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func clientOf(t *testing.T, address string) client.Client {
	t.Helper()
	c := &config.Config{}
	c.Temporal.HostPort = address
	temporal, err := Dial(c, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(temporal.Close)
	return temporal
}

// disk is an inbox whose disk fails, or hangs until the test ends.
type disk struct {
	hangs <-chan struct{}
	fault error
}

func (d disk) Probe(context.Context) error {
	if d.hangs != nil {
		<-d.hangs
	}
	return d.fault
}

func (d disk) Stats(context.Context) (inbox.Stats, error) {
	if d.hangs != nil {
		<-d.hangs
	}
	return inbox.Stats{Waiting: 3, Oldest: time.Now()}, nil
}

// within bounds the wait for peers that hang. Peers that answer must do so in that time.
const within = 5 * time.Second

// Temporal, the disk and the ledger answer, refuse or hang in every combination. A webhook is
// unready only if neither Temporal nor the disk takes callbacks. It reports what is wrong, and
// /livez and /metrics answer.
func TestReadinessWhateverHangs(t *testing.T) {
	up, full := make(chan struct{}), errors.New("the disk is full")
	t.Cleanup(func() { close(up) })
	temporals := map[string]client.Client{"answers": clientOf(t, answering(t)), "refuses": clientOf(t, nobody(t)), "hangs": clientOf(t, swallow(t))}
	disks := map[string]disk{"answers": {}, "refuses": {fault: full}, "hangs": {hangs: up}}
	ledgers := map[string]*ledger.Ledger{}
	for state, url := range map[string]string{"answers": "sqlite:" + t.TempDir() + "/ledger.db", "refuses": "postgres://u@" + nobody(t) + "/db?sslmode=disable", "hangs": "postgres://u@" + swallow(t) + "/db?sslmode=disable"} {
		books, err := ledger.Open(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = books.Close() })
		ledgers[state] = books
	}
	type what struct{ temporal, disk, usage, ledger string }
	var all []what
	states := []string{"answers", "refuses", "hangs"}
	for _, t := range states {
		for _, d := range states {
			for _, u := range states {
				for _, l := range states {
					all = append(all, what{t, d, u, l})
				}
			}
		}
	}
	var group sync.WaitGroup
	defer group.Wait()
	for _, w := range all {
		group.Go(func() {
			h := &health{}
			q := &questions{
				temporal: askNamespace(within, temporals[w.temporal], "default"), inbox: askQueue(within, disks[w.disk]), events: askQueue(within, disks[w.usage]),
				ledger: askLedger(within, ledgers[w.ledger]), stores: func() error { return nil },
			}
			h.questions.Store(q)
			metrics := newMetrics()
			metrics.inbox(startMetrics, q.inbox, func() error { return nil })
			router := adminRouter(h, metrics.Handler())
			get := func(path string) (int, string) {
				r := httptest.NewRecorder()
				router.ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
				return r.Code, r.Body.String()
			}
			code, text := get("/readyz")
			want := http.StatusOK
			if w.temporal != "answers" && w.disk != "answers" {
				want = http.StatusServiceUnavailable
			}
			if code != want {
				t.Errorf("%+v: %d %s", w, code, text)
			}
			says := func(said string, wanted bool) {
				t.Helper()
				if strings.Contains(text, said) != wanted {
					t.Errorf("%+v: says %q: %v, want %v: %s", w, said, !wanted, wanted, text)
				}
			}
			if w.disk == "hangs" || want == http.StatusOK && (w.usage == "hangs" || w.ledger == "hangs") {
				says("no answer", true)
			}
			says("Temporal", w.temporal != "answers")
			if want == http.StatusOK {
				says("ok\n", w == what{"answers", "answers", "answers", "answers"})
				says("degraded: queuing: Temporal", w.temporal != "answers")
				says("can't queue: ", w.disk != "answers")
				says("queuing events: ledger", w.ledger != "answers" && w.usage == "answers")
				says("can't queue events: ", w.ledger == "answers" && w.usage != "answers")
				says("can't take events: ledger", w.ledger != "answers" && w.usage != "answers")
				says("3 callbacks wait", w.disk != "hangs")
			}
			if code, text := get("/livez"); code != http.StatusOK {
				t.Errorf("%+v: livez: %d %s", w, code, text)
			}
			if code, text := get("/metrics"); code != http.StatusOK || strings.Contains(text, "closeout_inbox_depth") != (w.disk != "hangs") {
				t.Errorf("%+v: metrics: %d %s", w, code, text[:min(len(text), 500)])
			}
		})
	}
}

// A worker without a webhook is ready while Temporal answers and the worker polls. A ledger that
// can't be reached only degrades it, because without the worker no bill would be made sooner.
func TestReadinessOfAWorker(t *testing.T) {
	for temporal, ask := range map[string]*probe.Probe[struct{}]{
		"answers": askNamespace(within, clientOf(t, answering(t)), "default"),
		"hangs":   askNamespace(10*time.Millisecond, clientOf(t, swallow(t)), "default"),
	} {
		for _, polling := range []bool{false, true} {
			for books, fault := range map[string]error{"answers": nil, "refuses": errors.New("away"), "not set up": ledger.ErrNotSetUp} {
				h := &health{worker: true}
				h.polling.Store(polling)
				h.questions.Store(&questions{temporal: ask, ledger: askLedger(within, checked{fault})})
				state, err := h.check(t.Context())
				if ready := temporal == "answers" && polling; (err == nil) != ready || ready && (state == "ok") != (books != "refuses") {
					t.Errorf("Temporal %s, polling %v, ledger %s: %q, %v", temporal, polling, books, state, err)
				}
			}
		}
	}
}

type checked struct{ fault error }

func (c checked) Check(context.Context) error { return c.fault }

func TestStartingProcessIsNotReady(t *testing.T) {
	if state, err := (&health{}).check(t.Context()); err == nil || err.Error() != "starting" {
		t.Errorf("%q, %v", state, err)
	}
}
