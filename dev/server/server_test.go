package server

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const taskQueue = "dev"

var (
	roomID    = temporal.NewSearchAttributeKeyKeyword("RoomId")
	roomCount = temporal.NewSearchAttributeKeyInt64("RoomCount")
)

func greet(ctx workflow.Context, name string) (string, error) {
	if err := workflow.Sleep(ctx, time.Millisecond); err != nil {
		return "", err
	}
	return "hello " + name, nil
}

func TestWorkflowsAndSearchAttributesSurviveARestart(t *testing.T) {
	o := Options{Dir: t.TempDir(), UIPort: -1}
	s := start(t, o)
	c := dial(t, s)
	addSearchAttributes(t, c)

	run := startGreet(t, c, "greet-1")
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := run.Get(t.Context(), &got); err != nil || got != "hello you" {
		t.Fatalf("got %q, %v", got, err)
	}
	w.Stop()
	awaitListed(t, c, `RoomId = "r-1" AND RoomCount = 3 AND ExecutionStatus = "Completed"`, run.GetRunID())
	// Another run waits for a worker during the restart.
	open := startGreet(t, c, "greet-2")
	c.Close()
	stop(t, s)

	_, o.Port, _ = splitAddress(t, s.Address())
	s = start(t, o)
	c = dial(t, s)
	awaitListed(t, c, `RoomId = "r-1" AND WorkflowId = "greet-1"`, run.GetRunID())
	w = worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	if err := c.GetWorkflow(t.Context(), "greet-2", open.GetRunID()).Get(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	startGreet(t, c, "greet-3") // the search attributes still exist
}

func TestNamespaceIsRegisteredWithItsRetention(t *testing.T) {
	s := start(t, Options{Dir: t.TempDir(), UIPort: -1, Namespace: "rooms", Retention: 48 * time.Hour})
	c := dial(t, s)
	ns, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "rooms"})
	if err != nil {
		t.Fatal(err)
	}
	if got := ns.Config.WorkflowExecutionRetentionTtl.AsDuration(); got != 48*time.Hour {
		t.Errorf("retention is %s", got)
	}
}

func TestUIShowsItsPageAndTheNamespace(t *testing.T) {
	s := start(t, Options{Dir: t.TempDir()})
	for path, want := range map[string]string{
		"/":                                    "svelte",
		"/namespaces/default":                  "svelte",
		"/api/v1/namespaces":                   `"default"`,
		"/api/v1/settings":                     `"DefaultNamespace":"default"`,
		"/api/v1/cluster-info":                 `"serverVersion"`,
		"/api/v1/namespaces/default":           `"NAMESPACE_STATE_REGISTERED"`,
		"/api/v1/namespaces/default/workflows": `{`,
	} {
		res, err := http.Get(s.UIURL() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(want)) {
			t.Errorf("GET %s: %s, %v, without %q: %.500s", path, res.Status, err, want, body)
		}
	}
}

func TestStartRefusesAPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, text := splitAddress(t, l.Addr().String())
	for name, o := range map[string]Options{
		"frontend": {Port: port},
		"ui":       {UIPort: port},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir = t.TempDir()
			_, err := Start(t.Context(), o)
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), text) {
				t.Fatalf("got %v", err)
			}
			if _, err := os.Stat(filepath.Join(o.Dir, "temporal.db")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a database was made: %v", err)
			}
			o.Port, o.UIPort = 0, -1
			start(t, o) // nothing holds the folder any more
		})
	}
}

// Without a check, the server would end the process.
func TestAPortLostDuringTheStartIsAnError(t *testing.T) {
	o := Options{Dir: t.TempDir(), UIPort: -1, Logger: slog.New(slog.DiscardHandler)}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	ports, err := reservePorts(o)
	if err != nil {
		t.Fatal(err)
	}
	defer ports.frontend.Close()
	ports.frontend = stuck{ports.frontend}
	s := &Server{log: newLogger(o.Logger), address: ports.frontend.Addr().String()}
	if s.db, err = openDatabase(filepath.Join(o.Dir, "temporal.db"), o.Namespace, o.Retention); err != nil {
		t.Fatal(err)
	}
	if err := s.startTemporal(t.Context(), o, ports); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
	stop(t, s)
}

type stuck struct{ net.Listener }

func (stuck) Close() error { return nil }

func TestStartRefusesAFolderInUse(t *testing.T) {
	o := Options{Dir: t.TempDir(), UIPort: -1}
	s := start(t, o)
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.Dir) {
		t.Fatalf("got %v", err)
	}
	start(t, Options{Dir: t.TempDir(), UIPort: -1}) // another folder works
	if _, err := dial(t, s).CheckHealth(t.Context(), nil); err != nil {
		t.Errorf("the first server suffered: %v", err)
	}
}

func TestStartRefusesADatabaseOfAnotherVersion(t *testing.T) {
	for name, change := range map[string]string{
		"older": "ALTER TABLE namespaces DROP COLUMN is_global",
		"newer": "ALTER TABLE namespaces ADD COLUMN shiny INT",
		"alien": "DROP TABLE executions_visibility",
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Dir: t.TempDir(), UIPort: -1}
			path := filepath.Join(o.Dir, "temporal.db")
			db, err := openDatabase(path, "default", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.db.Exec(change); err != nil {
				t.Fatal(err)
			}
			if err := db.close(); err != nil {
				t.Fatal(err)
			}
			_, err = Start(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), "another version") || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestAKilledProcessLosesNothing(t *testing.T) {
	o := Options{Dir: t.TempDir(), UIPort: -1}
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+o.Dir)
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child said nothing: %v", err)
	}
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.Dir) {
		t.Fatalf("two processes on one folder: %v", err)
	}
	c := dial(t, &Server{address: strings.TrimSpace(address)})
	addSearchAttributes(t, c)
	run := startGreet(t, c, "greet-1")
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()

	c = dial(t, start(t, o))
	got, err := c.DescribeWorkflowExecution(t.Context(), "greet-1", "")
	if err != nil || got.WorkflowExecutionInfo.Execution.RunId != run.GetRunID() {
		t.Errorf("got %v, %v", got, err)
	}
}

// childDir is the environment variable with a data folder. If it is set, the test binary runs a
// server, as a process that can be killed.
const childDir = "CLOSEOUT_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		s, err := Start(context.Background(), Options{Dir: dir, UIPort: -1})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.Address())
		select {}
	}
	os.Exit(m.Run())
}

func TestOtherAddresses(t *testing.T) {
	for _, ip := range []string{"0.0.0.0", "::1"} {
		t.Run(ip, func(t *testing.T) {
			l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
			if err != nil {
				t.Skip(err)
			}
			l.Close()
			s := start(t, Options{Dir: t.TempDir(), IP: ip})
			dial(t, s)
			if host, _, _ := splitAddress(t, s.Address()); net.ParseIP(host).IsUnspecified() {
				t.Errorf("%s can't be dialled everywhere", s.Address())
			}
		})
	}
}

func TestStopLeavesOneCompleteFile(t *testing.T) {
	// The name has characters with a meaning in URIs.
	o := Options{Dir: filepath.Join(t.TempDir(), "a b?c#d%20e"), UIPort: -1}
	s := start(t, o)
	stop(t, s)
	stop(t, s) // a second call is allowed
	files, err := filepath.Glob(filepath.Join(filepath.Dir(o.Dir), "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); name != "temporal.db" && name != "temporal.lock" {
			t.Errorf("left behind: %s", f)
		}
	}
	db, err := sql.Open(driver, "file:"+s.db.config.DatabaseName)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM namespaces WHERE name = 'default'").Scan(&n); err != nil || n != 1 {
		t.Errorf("got %d namespaces, %v", n, err)
	}
}

func TestDeletedFolderStartsEmpty(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "data"), UIPort: -1}
	s := start(t, o)
	c := dial(t, s)
	addSearchAttributes(t, c)
	startGreet(t, c, "greet-1")
	stop(t, s)
	if err := os.RemoveAll(o.Dir); err != nil {
		t.Fatal(err)
	}
	c = dial(t, start(t, o))
	if _, err := c.DescribeWorkflowExecution(t.Context(), "greet-1", ""); err == nil {
		t.Error("the workflow is still there")
	}
}

func TestStartObeysItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := Options{Dir: t.TempDir(), UIPort: -1}
	if _, err := Start(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	start(t, o)
}

// start starts a server. It logs to the test's output if the test fails.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	begin := time.Now()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %s", time.Since(begin))
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	begin := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped after %s", time.Since(begin))
}

func dial(t *testing.T, s *Server) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{
		HostPort: s.Address(),
		Logger:   sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func addSearchAttributes(t *testing.T, c client.Client) {
	t.Helper()
	_, err := c.OperatorService().AddSearchAttributes(t.Context(), &operatorservice.AddSearchAttributesRequest{
		Namespace: "default",
		SearchAttributes: map[string]enums.IndexedValueType{
			roomID.GetName():    enums.INDEXED_VALUE_TYPE_KEYWORD,
			roomCount.GetName(): enums.INDEXED_VALUE_TYPE_INT,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startGreet retries until the server knows the search attributes.
func startGreet(t *testing.T, c client.Client, id string) (run client.WorkflowRun) {
	t.Helper()
	await(t, func() (err error) {
		run, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID:                    id,
			TaskQueue:             taskQueue,
			TypedSearchAttributes: temporal.NewSearchAttributes(roomID.ValueSet("r-1"), roomCount.ValueSet(3)),
		}, greet, "you")
		return err
	})
	return run
}

func awaitListed(t *testing.T, c client.Client, query, runID string) {
	t.Helper()
	await(t, func() error {
		list, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			return err
		}
		if len(list.Executions) != 1 || list.Executions[0].Execution.RunId != runID {
			return fmt.Errorf("%s lists %v", query, list.Executions)
		}
		return nil
	})
}

func await(t *testing.T, check func() error) {
	t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			t.Logf("awaited for %s", time.Since(begin))
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func splitAddress(t *testing.T, address string) (host string, port int, text string) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return host, port, text
}
