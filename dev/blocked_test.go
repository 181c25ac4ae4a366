package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// A bill that the API refuses blocks only its run. An operator finds the run and retries
// the step from the command line.
func TestBlockedStepIsFoundAndRetried(t *testing.T) {
	var mu sync.Mutex
	status, keys := 422, map[string]int{}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Idempotency-Key")]++
		w.WriteHeader(status)
		fmt.Fprint(w, "no such customer")
	}))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)
	closed := newClose()
	if a := post(t, address, closed); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	id := session.Of(&closed).WorkflowID()
	wait(t, "the run is blocked", func() bool {
		return runs(t, temporalClient, "CloseoutState = 'blocked' AND WorkflowId = '"+id+"'") == 1
	})
	wait(t, "the recordings are archived", func() bool { return exists(archived(c, closed, "manifest.json")) })

	blocked := func(arguments ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, err lines
		code = run(t.Context(), append([]string{"dev", "blocked"}, arguments...), &out, &err)
		return code, out.String(), err.String()
	}
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	if code, out, err := blocked("list"); code != 0 || !strings.Contains(out, id) || !strings.Contains(out, "rid_1242649") {
		t.Errorf("list: %d\n%s%s", code, out, err)
	}
	if code, out, err := blocked("show", id); code != 0 || !strings.Contains(out, "**billing** is **blocked**: `the billing API refused it: 422 Unprocessable Entity: no such customer`") {
		t.Errorf("show: %d\n%s%s", code, out, err)
	}
	if code, out, err := blocked("show", "room-close-1-1"); code != 1 || !strings.Contains(err, "room-close-1-1: ask for its details: ") {
		t.Errorf("show of none: %d\n%s%s", code, out, err)
	}
	number := strconv.FormatUint(closed.RoomSessionID, 10)
	if code, out, err := blocked("show", number); code != 0 || !strings.Contains(out, "**billing** is **blocked**") {
		t.Errorf("show of the session: %d\n%s%s", code, out, err)
	}
	if code, out, err := blocked("retry", "--reason", "no such run", "1"); code != 1 || !strings.Contains(err, "the session has no open run") {
		t.Errorf("retry of a session without a run: %d\n%s%s", code, out, err)
	}
	if code, out, err := blocked("retry", "--step", "recordings", "--reason", "wrong step", id); code != 1 || !strings.Contains(err, "want one that is blocked: billing") {
		t.Errorf("retry of another step: %d\n%s%s", code, out, err)
	}
	mu.Lock()
	status = 201
	mu.Unlock()
	if code, out, err := blocked("retry", "--reason", "customer added", id); code != 0 || !strings.Contains(out, "retry of billing") {
		t.Errorf("retry: %d\n%s%s", code, out, err)
	}
	r := result(t, temporalClient, closed)
	if r.State != workflows.StateDone || len(r.Decisions) != 1 || r.Decisions[0].Reason != "customer added" {
		t.Errorf("result %+v", r)
	}
	if key := session.Of(&closed).IdempotencyKey("billing").String(); len(keys) != 1 || keys[key] != 2 {
		t.Errorf("the API saw %v, want %s twice", keys, key)
	}
}

// After an outage, an operator decides about all blocked runs at once.
func TestManyBlockedRunsAreRetriedAtOnce(t *testing.T) {
	var status atomic.Int64
	status.Store(422)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)
	const many = 5
	var sessions []zego.RoomClose
	ofRoom := "RoomId = '" + t.Name() + "'"
	for range many {
		closed := newClose()
		closed.RoomID = t.Name()
		if a := post(t, address, closed); a.code != 200 {
			t.Fatalf("answer %+v", a)
		}
		sessions = append(sessions, closed)
	}
	wait(t, "they are blocked", func() bool {
		return runs(t, temporalClient, "CloseoutState = 'blocked' AND "+ofRoom) == many
	})
	status.Store(201)

	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	for _, test := range []struct {
		name      string
		arguments []string
		code      int
		says      string
	}{
		{"neither a session nor all", nil, 2, "no session"},
		{"a session and all", []string{"--all", "1"}, 2, "together with --all"},
		{"a filter without all", []string{"--where", ofRoom, "1"}, 2, "--where without --all"},
		{"an invalid filter", []string{"--all", "--where", "Room is a"}, 2, "--where: "},
		{"a filter that finds nothing", []string{"--all", "--where", "RoomId = 'nowhere'"}, 0, "no such run is blocked"},
		{"to see how many", []string{"--all", "--where", ofRoom}, 1, "5 blocked runs, the first is room-close-1-"},
		{"the wrong step", []string{"--all", "--where", ofRoom, "--step", "recordings", "--yes"}, 1, "want one that is blocked: billing"},
		{"all of them", []string{"--all", "--where", ofRoom, "--yes"}, 0, "retry of 5 runs"},
	} {
		var out lines
		code := run(t.Context(), append([]string{"dev", "blocked", "retry", "--reason", "the API is back"}, test.arguments...), &out, &out)
		if code != test.code || !strings.Contains(out.String(), test.says) {
			t.Errorf("%s: %d\n%s", test.name, code, out.String())
		}
	}
	for _, closed := range sessions {
		if r := result(t, temporalClient, closed); r.State != workflows.StateDone || len(r.Decisions) != 1 || r.Decisions[0].Reason != "the API is back" {
			t.Errorf("result %+v", r)
		}
	}
}

// A step that keeps failing is blocked after its Timeout, and its failure says so.
func TestStepBlocksAtItsDeadline(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	temporalClient := dial(t, c)
	w := worker.New(temporalClient, c.TaskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, s session.Session) (workflows.Result, error) {
		run := workflows.Begin(ctx, s)
		workflows.Start(run, workflows.Step{Name: "wallet", Timeout: 2 * time.Second}, chargeWallet)
		return run.Finish()
	}, workflow.RegisterOptions{Name: "ChargeOnly"})
	w.RegisterActivity(chargeWallet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	closed := newClose()
	s := session.Of(&closed)
	run, err := temporalClient.ExecuteWorkflow(t.Context(), workflows.StartOptions(s, c.TaskQueue), "ChargeOnly", s)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the run is blocked", func() bool {
		return runs(t, temporalClient, "CloseoutState = 'blocked' AND WorkflowId = '"+run.GetID()+"'") == 1
	})
	handle, err := temporalClient.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: run.GetID(), UpdateName: workflows.UpdateSkip, Args: []any{workflows.Decision{Step: "wallet", Reason: "enough"}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		t.Fatal(err)
	}
	var said string
	if err := handle.Get(t.Context(), &said); err != nil || said != "skip of wallet" {
		t.Errorf("said %q, %v", said, err)
	}
	if r := result(t, temporalClient, closed); r.State != workflows.StateSkipped || r.Steps[0].Failure != "not done within 2s: the wallet is away" {
		t.Errorf("result %+v", r)
	}
}

// chargeWallet is a step that never succeeds.
func chargeWallet(context.Context, activities.Task) (string, error) {
	return "", errors.New("the wallet is away")
}
