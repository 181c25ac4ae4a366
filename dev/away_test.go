package main

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/closeouthq/closeout/dev/server"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// The webhook starts and answers without Temporal; when Temporal comes, callbacks
// are taken and the worker works, with nothing restarted.
func TestTemporalComesLater(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.Temporal.HostPort = "127.0.0.1:" + strconv.Itoa(port)

	address := start(t, c, service.Parts{Webhook: true})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx, c, service.Parts{Worker: true}, quiet) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("worker: %v", err)
		}
	}()

	closed := newClose()
	if a := post(t, address, closed); a.code != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer without Temporal %+v", a)
	}

	late, err := server.Start(t.Context(), server.Options{Dir: t.TempDir(), Port: port, UIPort: -1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Stop() })
	setUp(t, c)
	var a answer
	wait(t, "the callback is taken", func() bool {
		a = post(t, address, closed)
		return a.code == 200
	})
	if a.Status != webhook.Started && a.Status != webhook.Duplicate {
		t.Errorf("answer %+v", a)
	}
	if r := result(t, dial(t, c), closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
}

// A namespace that was never set up costs the search attributes, and no callback.
func TestMissingSearchAttributesCostNoCallback(t *testing.T) {
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
	wait(t, "the callback is taken", func() bool { return post(t, address, closed).code == 200 })
	if r := result(t, temporalClient, closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
}

// Setup may be run again and again, and by several at once.
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

// An address that is in use is an error that names the setting.
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

// Health is on a listener of its own.
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
