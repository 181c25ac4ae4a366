package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/dev/server"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// patience bounds each wait of a test.
const patience = 2 * time.Minute

// temporal is a real Temporal server for all tests, and testDir a folder.
var (
	temporal *server.Server
	testDir  string
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "closeout-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		testDir = dir
		temporal, err = server.Start(context.Background(), server.Options{Dir: filepath.Join(dir, "temporal"), UIPort: -1, Logger: quiet})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = temporal.Stop() }()
		return m.Run()
	}())
}

var quiet = slog.New(slog.DiscardHandler)

// settings returns the settings of a Closeout with its own data folder and Task Queue, on
// free ports.
func settings(t *testing.T, flags map[string]string) *config.Config {
	t.Helper()
	all := map[string]string{
		// Few tests are about overdue sessions.
		"reconcile-interval": "0",
		"apps":               "1=secret", "listen": "127.0.0.1:0", "admin-listen": "127.0.0.1:0", "data": t.TempDir(), "task-queue": t.Name(), "stop-timeout": "2s", "settling": "0s",
		// Ignore the settings that the command dev sets in this process.
		"prices": "",
	}
	for name, value := range flags {
		all[name] = value
	}
	c, err := config.Load(func(name string) (string, bool) { v, ok := all[name]; return v, ok }, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Temporal = client.Options{HostPort: temporal.Address(), Namespace: "default"}
	return c
}

// setUp runs setup with the settings.
func setUp(t *testing.T, c *config.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := service.Setup(ctx, c, quiet); err != nil {
		t.Fatal(err)
	}
}

// start runs parts of Closeout until the test ends, and returns the address of callbacks.
func start(t *testing.T, c *config.Config, parts service.Parts) (address string) {
	t.Helper()
	address, _ = startUntil(t, c, parts)
	return address
}

// startUntil is start with a function that stops the parts earlier.
func startUntil(t *testing.T, c *config.Config, parts service.Parts) (address string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan net.Addr, 1), make(chan error, 1)
	parts.Started = func(a net.Addr) { started <- a }
	go func() { ended <- service.Run(ctx, c, parts, quiet) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case a := <-started:
		if a == nil {
			return "", stop
		}
		return a.String(), stop
	case err := <-ended:
		ended <- nil
		t.Fatalf("start: %v", err)
	case <-time.After(patience):
		t.Fatal("it doesn't start")
	}
	return "", stop
}

var both = service.Parts{Webhook: true, Worker: true}

// newClose returns a genuine room_close of a new session.
func newClose() zego.RoomClose {
	c := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: time.Now().Unix(), Nonce: fmt.Sprint(rand.Uint64())},
		RoomID: "rid_1242649", RoomSessionID: rand.Uint64() | 1<<63, CloseReason: zego.CloseOffline, RoomCloseTime: time.Now().UTC().Truncate(time.Millisecond),
	}
	c.Signature = zego.Sign("secret", c.Timestamp, c.Nonce)
	return c
}

// answer is the webhook's answer.
type answer struct {
	code int
	webhook.Receipt
}

// post posts a signed callback.
func post(t *testing.T, address string, event any) answer {
	t.Helper()
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post("http://"+address+webhook.Path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a := answer{code: resp.StatusCode}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &a.Receipt); err != nil && resp.StatusCode == 200 {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

func dial(t *testing.T, c *config.Config) client.Client {
	t.Helper()
	temporal, err := service.Dial(c, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(temporal.Close)
	return temporal
}

// result waits until the session's run has started and completed.
func result(t *testing.T, temporal client.Client, c zego.RoomClose) workflows.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	id := isThere(t, temporal, c)
	var r workflows.Result
	if err := temporal.GetWorkflow(ctx, id, "").Get(ctx, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// isThere waits until a room's run has started, and returns its Workflow ID.
func isThere(t *testing.T, temporal client.Client, c zego.RoomClose) string {
	t.Helper()
	id := session.Of(&c).WorkflowID()
	wait(t, id+" is there", func() bool {
		_, err := temporal.DescribeWorkflowExecution(t.Context(), id, "")
		if none := new(serviceerror.NotFound); err != nil && !errors.As(err, &none) {
			t.Fatal(err)
		}
		return err == nil
	})
	return id
}

// input returns the input of a room's run.
func input(t *testing.T, temporal client.Client, c zego.RoomClose) (s session.Session) {
	t.Helper()
	events := temporal.GetWorkflowHistory(t.Context(), isThere(t, temporal, c), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	started, err := events.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := converter.GetDefaultDataConverter().FromPayloads(started.GetWorkflowExecutionStartedEventAttributes().GetInput(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// runs counts the runs that match a query.
func runs(t *testing.T, temporal client.Client, query string) int64 {
	t.Helper()
	count, err := temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return count.GetCount()
}

// wait waits until the condition holds.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func bill(t *testing.T, c *config.Config, closed zego.RoomClose) ledger.Bill {
	t.Helper()
	l, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := l.Bill(t.Context(), session.Of(&closed).ID)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// record stores a recording of the session, as ZEGO does, and returns its path.
func record(t *testing.T, c *config.Config, closed zego.RoomClose, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(c.Data, "recordings", filepath.FromSlash(session.Of(&closed).Folder()), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// archived returns the path of an object in the session's archive.
func archived(c *config.Config, closed zego.RoomClose, name string) string {
	return filepath.Join(c.Data, "archive", filepath.FromSlash(session.Of(&closed).Folder()), filepath.FromSlash(name))
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lines is a writer that can be waited on for a text.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
