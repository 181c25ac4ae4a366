package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// keyText returns a value of CLOSEOUT_PAYLOAD_KEYS with keys of these names.
func keyText(names ...string) string {
	var all []string
	for _, name := range names {
		all = append(all, name+"="+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(name[:1]), 32)))
	}
	return strings.Join(all, ";")
}

func payloadKeys(t *testing.T, names ...string) codec.Keys {
	t.Helper()
	k, err := codec.ParseKeys(keyText(names...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// kept returns everything that Temporal stores about a run, as text with decoded binary
// data.
func kept(t *testing.T, c *config.Config, id string) string {
	t.Helper()
	temporalClient := dial(t, c)
	h := &history.History{}
	for events := temporalClient.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		h.Events = append(h.Events, event)
	}
	described, err := temporalClient.DescribeWorkflowExecution(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, m := range []any{h, described} {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	b, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	all.Write(b)
	text := all.String()
	for _, coded := range regexp.MustCompile(`"[A-Za-z0-9+/]{4,}={0,2}"`).FindAllString(text, -1) {
		if plain, err := base64.StdEncoding.DecodeString(coded[1 : len(coded)-1]); err == nil {
			all.Write(plain)
		}
	}
	return all.String()
}

// stuckBy waits until a run's Workflow Task fails, and returns the reason.
func stuckBy(t *testing.T, temporalClient client.Client, id string) (why string) {
	t.Helper()
	wait(t, id+" is stuck", func() bool {
		events := temporalClient.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			if failed := event.GetWorkflowTaskFailedEventAttributes(); failed != nil {
				why = failed.GetFailure().GetMessage()
			}
		}
		return why != ""
	})
	return why
}

// Temporal's data about an encrypted run shows only what the documentation lists, and
// everything else works as without encryption.
func TestHistoriesAreEncrypted(t *testing.T) {
	var status atomic.Int64
	status.Store(http.StatusUnprocessableEntity)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "there is no wallet of Anna", int(status.Load()))
	}))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL, "payload-keys": keyText("new", "old")})
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)
	closed := newClose()
	post(t, address, closed)
	id := workflowID(closed)
	wait(t, "the run is blocked", func() bool {
		return runs(t, temporalClient, "CloseoutState = 'blocked' AND WorkflowId = '"+id+"'") == 1
	})

	text := kept(t, c, id)
	for _, secret := range []string{"Unprocessable Entity", "wallet", "Finalize the bill", zego.CloseReasonText(closed.CloseReason)} {
		if strings.Contains(text, secret) {
			t.Errorf("Temporal keeps %q", secret)
		}
	}
	for _, plain := range []string{"new", "rid_1242649", "RoomClose"} { // the key's name, a Search Attribute, the Workflow type
		if !strings.Contains(text, plain) {
			t.Errorf("Temporal doesn't keep %q, and the documentation says it does", plain)
		}
	}

	// Commands can read the run and decide about it.
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	t.Setenv("CLOSEOUT_PAYLOAD_KEYS", keyText("new"))
	command := func(arguments ...string) (int, string) {
		var out lines
		code := run(t.Context(), append([]string{"dev"}, arguments...), &out, &out)
		return code, out.String()
	}
	if code, text := command("blocked", "show", id); code != 0 || !strings.Contains(text, "there is no wallet of Anna") {
		t.Errorf("blocked show: %d\n%s", code, text)
	}
	folder := filepath.Join(t.TempDir(), "testdata")
	if code, text := command("history", "save", "--output", folder, id); code != 0 {
		t.Errorf("history save: %d\n%s", code, text)
	}
	closeouttest.Replay(t, folder, workflows.RoomClose)
	files, _ := filepath.Glob(filepath.Join(folder, "*"))
	if len(files) != 1 {
		t.Fatal(files)
	}
	if b, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(b), "there is no wallet of Anna") || strings.Contains(string(b), "binary/encrypted") {
		t.Errorf("the saved history isn't plain: %v", err)
	}

	status.Store(http.StatusOK)
	if code, text := command("blocked", "retry", "--step", "billing", "--reason", "Anna has one", id); code != 0 || !strings.Contains(text, "billing") {
		t.Errorf("blocked retry: %d\n%s", code, text)
	}
	if r := result(t, temporalClient, closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	if strings.Contains(kept(t, c, id), "Anna") {
		t.Error("Temporal keeps why it was retried")
	}
	if code, text := command("status", "--data", c.Data, id); code != 0 || !strings.Contains(text, "Completed, done") {
		t.Errorf("status: %d\n%s", code, text)
	}
	for _, arguments := range [][]string{{"audit", "--data", c.Data, "--since", "1h"}} {
		if code, text := command(arguments...); strings.Contains(text, id) {
			t.Errorf("%v: %d\n%s", arguments, code, text)
		}
	}

	// Without the key, their errors name the missing key.
	t.Setenv("CLOSEOUT_PAYLOAD_KEYS", keyText("other"))
	for _, arguments := range [][]string{{"status", "--data", c.Data, id}, {"history", "save", "--output", t.TempDir(), id}} {
		if _, text := command(arguments...); !strings.Contains(text, `encrypted with key "new", and CLOSEOUT_PAYLOAD_KEYS has only other`) {
			t.Errorf("%v:\n%s", arguments, text)
		}
	}
}

// Keys change while runs are open. Plain data stays readable, and a run with a missing
// key waits for it.
func TestARunGoesOnWhenItsKeyIsBack(t *testing.T) {
	closeShow := careful{}.CloseShow
	var empty atomic.Bool
	empty.Store(true)
	c := settings(t, nil)
	setUp(t, c)
	temporalClient := dial(t, c)
	parts := func(p service.Parts, build string) service.Parts {
		p.Extension = service.Extension{Workflows: []workflows.Workflow{closeShow}, Activities: []any{&showSteps{build, &empty}},
			Route: func(session.Session) workflows.Workflow { return closeShow }}
		return p
	}
	webhook := func(names ...string) (address string) {
		own := *c
		own.Data, own.PayloadKeys = t.TempDir(), payloadKeys(t, names...)
		return start(t, &own, parts(service.Parts{Webhook: true}, ""))
	}
	worker := func(keys codec.Keys) (stop func()) {
		own := *c
		own.Data, own.PayloadKeys = t.TempDir(), keys
		_, stop = startUntil(t, &own, parts(service.Parts{Worker: true}, "1"))
		return stop
	}
	plain, old := newClose(), newClose()
	stop := worker(nil)
	if a := post(t, start(t, c, parts(service.Parts{Webhook: true}, "")), plain); a.code != 200 {
		t.Fatal(a)
	}
	blocked := func(id string) {
		wait(t, id+" is blocked", func() bool {
			return runs(t, temporalClient, "CloseoutState = 'blocked' AND WorkflowId = '"+id+"'") == 1
		})
	}
	blocked(workflowID(plain))
	stop()

	// Turn encryption on. A version marker that can't be decrypted would change the run's course if
	// it were skipped.
	stop = worker(payloadKeys(t, "old"))
	post(t, webhook("old"), old)
	blocked(workflowID(old))
	stop()

	// The key is lost.
	empty.Store(false)
	for _, keys := range []codec.Keys{payloadKeys(t, "new"), nil} {
		stop = worker(keys)
		lost := newClose()
		post(t, webhook("old"), lost)
		id := workflowID(lost)
		if why := stuckBy(t, temporalClient, id); !strings.Contains(why, `encrypted with key "old"`) {
			t.Errorf("the Web UI shows %q", why)
		}
		described, err := temporalClient.DescribeWorkflowExecution(t.Context(), id, "")
		if err != nil || described.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			t.Fatalf("%v, %v", described.GetWorkflowExecutionInfo().GetStatus(), err)
		}
		stop()
		// The key is back, as one of two.
		stop = worker(payloadKeys(t, "new", "old"))
		if r := result(t, dial(t, withKeys(c, payloadKeys(t, "new", "old"))), lost); r.State != workflows.StateDone {
			t.Errorf("result %+v", r)
		}
		stop()
	}

	// Runs that were blocked when the key was lost continue too.
	stop = worker(payloadKeys(t, "new", "old"))
	defer stop()
	operator := dial(t, withKeys(c, payloadKeys(t, "new", "old")))
	for _, id := range []string{workflowID(plain), workflowID(old)} {
		handle, err := operator.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID: id, UpdateName: workflows.UpdateRetry, Args: []any{workflows.Decision{Reason: "filled"}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err == nil {
			err = handle.Get(t.Context(), nil)
		}
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if r := result(t, operator, plain); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	if r := result(t, operator, old); r.State != workflows.StateDone || len(r.Steps) != 2 {
		t.Errorf("result %+v", r)
	}
}

// Data that determines a run's path, such as version markers, isn't skipped if it can't
// be decrypted.
func TestReplayWithoutTheKeyTakesNoOtherPath(t *testing.T) {
	c := settings(t, map[string]string{"payload-keys": keyText("old")})
	setUp(t, c)
	closeShow := careful{}.CloseShow
	extension := service.Extension{Workflows: []workflows.Workflow{closeShow}, Activities: []any{&showSteps{"1", new(atomic.Bool)}},
		Route: func(session.Session) workflows.Workflow { return closeShow }}
	closed := newClose()
	post(t, start(t, c, service.Parts{Webhook: true, Worker: true, Extension: extension}), closed)
	temporalClient := dial(t, c)
	result(t, temporalClient, closed)
	h := &history.History{}
	for events := temporalClient.GetWorkflowHistory(t.Context(), workflowID(closed), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		h.Events = append(h.Events, event)
	}
	// Decrypt the input, so that the worker lacks only the key of the later events.
	if err := payloadKeys(t, "old").DecryptHistory(t.Context(), &history.History{Events: h.Events[:1]}); err != nil {
		t.Fatal(err)
	}
	for keys, want := range map[string]string{"old": "", "new": `encrypted with key "old", and CLOSEOUT_PAYLOAD_KEYS has only new`} {
		data, failures := payloadKeys(t, keys).ForWorker()
		replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: data, FailureConverter: failures})
		if err != nil {
			t.Fatal(err)
		}
		replayer.RegisterWorkflowWithOptions(closeShow, workflow.RegisterOptions{Name: "CloseShow"})
		switch err := replayer.ReplayWorkflowHistory(tlog.NewStructuredLogger(quiet), h); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("with key %s: %v, want %q", keys, err, want)
		}
	}
}

// withKeys returns settings with other keys.
func withKeys(c *config.Config, keys codec.Keys) *config.Config {
	own := *c
	own.PayloadKeys = keys
	return &own
}
