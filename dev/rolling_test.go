package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/webhook"
)

// balancer is a load balancer in front of the running webhooks. It doesn't retry a failed
// POST, as load balancers don't.
type balancer struct {
	mu       sync.Mutex
	backends []*url.URL
	next     int
	none     int // requests without a running webhook
}

func (b *balancer) pick() *url.URL {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.backends) == 0 {
		b.none++
		return &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	}
	b.next++
	return b.backends[b.next%len(b.backends)]
}

func (b *balancer) add(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = append(b.backends, &url.URL{Scheme: "http", Host: address})
}

func (b *balancer) remove(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var left []*url.URL
	for _, u := range b.backends {
		if u.Host != address {
			left = append(left, u)
		}
	}
	b.backends = left
}

// replica is one of several processes.
type replica struct {
	config  *config.Config
	address string // of the webhook
	*exec.Cmd
	log *lines
}

// stop sends SIGTERM, and reports an error if the process doesn't exit in order.
func (r *replica) stop(t *testing.T) {
	t.Helper()
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != nil {
		t.Errorf("it didn't stop in order: %v\n%s", err, r.log)
	}
}

var takenAt = regexp.MustCompile(`callback listener ready" address=(\S+)`)

// Three webhooks and three workers are replaced one after the other, repeatedly, while
// callbacks arrive, some of them several times and at several webhooks at once.
func TestARollingRestartLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	// Send callbacks until all rounds are over.
	const atOnce, rate, rounds = 20, 5, 2

	shared := settings(t, nil)
	shared.Temporal.Namespace = "rolling" // the audit covers all runs in it
	setUp(t, shared)
	webhookStarts := func(n int, c *config.Config) *replica {
		r := &replica{config: c}
		r.Cmd, r.log = process(t, c, "webhook")
		wait(t, fmt.Sprintf("webhook %d takes callbacks", n), func() bool {
			found := takenAt.FindStringSubmatch(r.log.String())
			if found != nil {
				r.address = found[1]
			}
			return found != nil
		})
		return r
	}
	workerStarts := func() *replica {
		r := &replica{config: shared}
		r.Cmd, r.log = process(t, shared, "worker")
		return r
	}

	front := &balancer{}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(front.pick()) },
		ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError),
	})
	defer proxy.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	var webhooks, workers [3]*replica
	var inboxes []string
	for n := range webhooks {
		c := *shared
		c.Data = t.TempDir()
		inboxes = append(inboxes, c.Inbox())
		webhooks[n] = webhookStarts(n, &c)
		front.add(webhooks[n].address)
		workers[n] = workerStarts()
	}

	path := filepath.Join(t.TempDir(), "journal.jsonl")
	journal, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	entries := json.NewEncoder(journal)
	var sessions, first int64
	var fault error
	enough, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for done := false; !done && fault == nil; {
			select {
			case <-enough:
				done = true
			default:
			}
			report, err := load.Run(t.Context(), load.Options{
				URL: proxy.URL + webhook.Path, AppID: 1, Secret: "secret", RoomID: "room", Rooms: 50, RoomSessionID: 1<<63 + uint64(sessions),
				Count: atOnce, Rate: rate, Duplicates: .5, Resign: .5, Timeout: 10 * time.Second, Seed: uint64(sessions), Progress: io.Discard,
				Journal:   func(e audit.Entry) { fault = errors.Join(fault, entries.Encode(e)) },
				Transport: transport,
			}, io.Discard)
			if fault = errors.Join(fault, err); fault == nil {
				sessions += atOnce
				first += report.FirstAttempt
				if report.Lost != 0 || report.Acknowledged != atOnce {
					fault = fmt.Errorf("%d of %d sessions were acknowledged, %d lost", report.Acknowledged, atOnce, report.Lost)
				}
			}
		}
	}()

	restarts := 0
	for range rounds {
		for n := range webhooks {
			old := webhooks[n]
			front.remove(old.address)
			old.stop(t)
			webhooks[n] = webhookStarts(n, old.config) // uses the inbox of the old one
			front.add(webhooks[n].address)

			oldWorker := workers[n]
			workers[n] = workerStarts()
			oldWorker.stop(t)
			restarts++
		}
	}
	close(enough)
	<-sent
	if fault != nil {
		t.Fatal(fault)
	}
	t.Logf("%d sessions during %d restarts of each kind, %d of them acknowledged at the first try", sessions, restarts, first)
	if front.none > 0 {
		t.Errorf("%d requests found no webhook", front.none)
	}

	books, err := ledger.Open(shared.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	kept, err := archive.OpenBucket(t.Context(), shared.ArchiveURL)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	boxes, err := audit.OpenInboxes(t.Context(), inboxes)
	if err != nil {
		t.Fatal(err)
	}
	defer boxes.Close()
	found, err := audit.Wait(t.Context(), audit.Options{
		Temporal: dial(t, shared), Ledger: books, Archive: kept, Inbox: boxes.All, Journal: audit.Journal(path), Complete: true,
	}, patience)
	if err != nil {
		t.Fatal(err)
	}
	if !found.OK() || found.Pending() > 0 || found.Bills != sessions {
		t.Errorf("after %d restarts of each kind: %d bills for %d sessions, %d faults, %d pending", restarts, found.Bills, sessions, found.Count(), found.Pending())
		if err := found.WriteText(t.Output()); err != nil {
			t.Fatal(err)
		}
	}
}
