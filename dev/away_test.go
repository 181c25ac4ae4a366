package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/closeouthq/closeout/dev/server"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// The webhook starts and accepts callbacks without Temporal. When Temporal starts, they
// are closed out without a restart. Then Temporal stops and starts once more.
func TestTemporalStartsLater(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	port, err := strconv.Atoi(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Temporal.HostPort = "127.0.0.1:" + strconv.Itoa(port)
	c.AdminListen = "127.0.0.1:" + freePort(t)

	address := start(t, c, service.Parts{Webhook: true})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	worker := *c
	worker.AdminListen = "127.0.0.1:0"
	go func() { ended <- service.Run(ctx, &worker, service.Parts{Worker: true}, quiet) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("worker: %v", err)
		}
	}()

	first := newClose()
	if a := post(t, address, first); a.code != 200 || a.Status != webhook.Queued {
		t.Errorf("answer without Temporal %+v", a)
	}
	if a := post(t, address, first); a.code != 200 || a.Status != webhook.Duplicate {
		t.Errorf("second answer without Temporal %+v", a)
	}
	if code, text := get(t, c, "/readyz"); code != 200 || !strings.HasPrefix(text, "degraded: queuing: Temporal: ") ||
		!strings.Contains(text, "1 callbacks wait in the inbox") {
		t.Errorf("readiness without Temporal: %d %s", code, text)
	}

	o := server.Options{Dir: t.TempDir(), Port: port, UIPort: -1, Logger: quiet}
	late, err := server.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Stop() })
	setUp(t, c)
	temporalClient := dial(t, c)
	closedOut := func(c zego.RoomClose) {
		t.Helper()
		if r := result(t, temporalClient, c); r.State != workflows.StateDone {
			t.Errorf("result %+v", r)
		}
	}
	closedOut(first)
	second := newClose()
	wait(t, "callbacks go straight to Temporal", func() bool {
		second = newClose()
		return post(t, address, second).Status == webhook.Started
	})
	closedOut(second)
	wait(t, "all is well", func() bool { _, text := get(t, c, "/readyz"); return text == "ok" })

	if err := late.Stop(); err != nil {
		t.Fatal(err)
	}
	var during []zego.RoomClose
	for range 20 {
		closed := newClose()
		if a := post(t, address, closed); a.code != 200 || a.Status != webhook.Queued {
			t.Errorf("answer while Temporal was down: %+v", a)
		}
		during = append(during, closed)
	}
	if _, text := get(t, c, "/metrics"); !strings.Contains(text, `closeout_inbox_depth{state="waiting"} 20`) || !strings.Contains(text, "closeout_inbox_oldest_age_seconds ") {
		t.Errorf("metrics:\n%s", text)
	}
	if late, err = server.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, closed := range during {
		closedOut(closed)
	}
	wait(t, "the inbox is empty", func() bool {
		_, text := get(t, c, "/metrics")
		return strings.Contains(text, `closeout_inbox_depth{state="waiting"} 0`) && strings.Contains(text, "closeout_temporal_takes 1")
	})
}

// get sends a request to the listener for operators.
func get(t *testing.T, c *config.Config, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + c.AdminListen + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// In a Namespace that isn't set up, callbacks wait for the setup.
func TestMissingSearchAttributesLoseNoCallback(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	c.Temporal.Namespace = "bare"
	temporalClient := dial(t, c)
	if _, err := temporalClient.WorkflowService().RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: "bare", WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	address := start(t, c, both)
	closed := newClose()
	if a := post(t, address, closed); a.code != 200 || a.Status != webhook.Queued {
		t.Errorf("answer %+v", a)
	}
	setUp(t, c)
	if r := result(t, temporalClient, closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	query := fmt.Sprintf("RoomSessionId = '%d'", closed.RoomSessionID)
	wait(t, "it is found by its search attributes", func() bool { return runs(t, temporalClient, query) == 1 })
}

// withoutAttributes starts a run in a new Namespace that lacks the search attributes.
func withoutAttributes(t *testing.T, c *config.Config) (client.Client, session.Session) {
	t.Helper()
	temporalClient := dial(t, c)
	if _, err := temporalClient.WorkflowService().RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: c.Temporal.Namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	closed := newClose()
	s := session.Of(&closed)
	options := workflows.StartOptions(s, c.TaskQueue)
	options.TypedSearchAttributes = sdktemporal.SearchAttributes{}
	if _, err := temporalClient.ExecuteWorkflow(t.Context(), options, workflows.RoomClose, s); err != nil {
		t.Fatal(err)
	}
	return temporalClient, s
}

// A run that was started without search attributes can be found by them after setup,
// including its blocked state.
func TestSetupMakesOlderRunsSearchable(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }))
	t.Cleanup(api.Close)
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c) // the ledger
	c.Temporal.Namespace = "older-than-setup"
	temporalClient, session := withoutAttributes(t, c)
	start(t, c, service.Parts{Worker: true})
	setUp(t, c)
	query := fmt.Sprintf("CloseoutState = 'blocked' AND RoomSessionId = '%d' AND RoomId = 'rid_1242649' AND AppId = 1", session.RoomSessionID)
	wait(t, "it is found by its search attributes", func() bool { return runs(t, temporalClient, query) == 1 })
	if n := runs(t, temporalClient, workflows.UnindexedQuery()); n != 0 {
		t.Errorf("%d runs lack them", n)
	}
}

// While the Namespace lacks the search attributes, a blocked run is found by its details,
// and the audit names each open run.
func TestABlockedRunIsFoundWithoutSearchAttributes(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) }))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c) // the ledger
	c.Temporal.Namespace = "never-set-up"
	temporalClient, session := withoutAttributes(t, c)
	start(t, c, service.Parts{Worker: true})
	wait(t, "it is blocked", func() bool { return workflows.IsBlocked(detailsOf(temporalClient, session.WorkflowID())) })
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	t.Setenv("TEMPORAL_NAMESPACE", c.Temporal.Namespace)
	for command, want := range map[string]string{"blocked list": session.WorkflowID(), "audit --data " + c.Data + " --task-queue " + c.TaskQueue: session.WorkflowID() + ": unindexed"} {
		var out lines
		wait(t, command+" reports it", func() bool {
			out = lines{}
			run(t.Context(), append([]string{"dev"}, strings.Fields(command)...), &out, &out)
			return strings.Contains(out.String(), want)
		})
	}
}

// Setup may run repeatedly and concurrently.
func TestSetupIsIdempotent(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	c.Temporal.Namespace = "set-up-twice"
	errs := make(chan error)
	for range 3 {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			errs <- service.Setup(ctx, c, quiet)
		}()
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	setUp(t, c)
	if n := runs(t, dial(t, c), "RoomId = 'none'"); n != 0 {
		t.Errorf("%d runs", n)
	}
}

// The error about an address in use names the setting.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for flag, setting := range map[string]string{"listen": "CLOSEOUT_LISTEN", "admin-listen": "CLOSEOUT_ADMIN_LISTEN"} {
		c := settings(t, map[string]string{flag: l.Addr().String()})
		err := service.Run(t.Context(), c, both, quiet)
		if err == nil || !strings.Contains(err.Error(), setting+": can't listen on "+l.Addr().String()) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// Two webhooks can't share a data folder, because an inbox has one writer.
func TestDataFolderInUse(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	start(t, c, service.Parts{Webhook: true})
	err := service.Run(t.Context(), c, service.Parts{Webhook: true}, quiet)
	if err == nil || !strings.HasPrefix(err.Error(), "CLOSEOUT_DATA: ") || !strings.Contains(err.Error(), "in use by another process") || !strings.Contains(err.Error(), c.Data) {
		t.Error(err)
	}
}

// Health is served on another listener.
func TestHealthIsNotPublic(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	address := start(t, c, service.Parts{Webhook: true})
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/"} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}
