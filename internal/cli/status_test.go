package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// failedRuns is a Temporal whose runs have all failed.
type failedRuns struct {
	workflowservice.UnimplementedWorkflowServiceServer
	runs  []*workflow.WorkflowExecutionInfo
	token []byte
	query string // the last one
}

// add adds a run of a session in the room.
func (f *failedRuns) add(t *testing.T, session int, room string, started time.Time) {
	t.Helper()
	attributes := map[string]*common.Payload{}
	for name, value := range map[string]string{"RoomId": room, "RoomSessionId": fmt.Sprint(session), "CloseoutState": "running"} {
		payload, err := converter.GetDefaultDataConverter().ToPayload(value)
		if err != nil {
			t.Fatal(err)
		}
		attributes[name] = payload
	}
	f.runs = append(f.runs, &workflow.WorkflowExecutionInfo{
		Execution: &common.WorkflowExecution{WorkflowId: fmt.Sprintf("room-close-1-%d", session), RunId: "run/1"},
		Type:      &common.WorkflowType{Name: "RoomClose"}, Status: enums.WORKFLOW_EXECUTION_STATUS_FAILED,
		StartTime: timestamppb.New(started), CloseTime: timestamppb.New(started.Add(time.Second)),
		SearchAttributes: &common.SearchAttributes{IndexedFields: attributes},
	})
}

func (f *failedRuns) ListWorkflowExecutions(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.query = r.GetQuery()
	return &workflowservice.ListWorkflowExecutionsResponse{Executions: f.runs, NextPageToken: f.token}, nil
}

func (f *failedRuns) DescribeWorkflowExecution(_ context.Context, r *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	for _, run := range f.runs {
		if run.GetExecution().GetWorkflowId() == r.GetExecution().GetWorkflowId() {
			return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: run}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such run")
}

func (f *failedRuns) GetWorkflowExecutionHistory(context.Context, *workflowservice.GetWorkflowExecutionHistoryRequest) (*workflowservice.GetWorkflowExecutionHistoryResponse, error) {
	return &workflowservice.GetWorkflowExecutionHistoryResponse{History: &history.History{Events: []*history.HistoryEvent{{
		EventType: enums.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
		Attributes: &history.HistoryEvent_WorkflowExecutionFailedEventAttributes{WorkflowExecutionFailedEventAttributes: &history.WorkflowExecutionFailedEventAttributes{
			Failure: &failure.Failure{Message: "it\nbroke"},
		}},
	}}}}, nil
}

// serve starts a server for f and sets TEMPORAL_ADDRESS to it.
func (f *failedRuns) serve(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Setenv("TEMPORAL_ADDRESS", listener.Addr().String())
}

// queue puts sessions into an inbox and makes the last one a dead letter.
func queue(t *testing.T, data string, keys ...string) {
	t.Helper()
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	for _, key := range keys {
		if _, err := box.Put(t.Context(), inbox.Entry{Key: key, Body: []byte(`{"appid":1,"room_id":"lobby","room_session_id":"` + key[len("room-close-1-"):] + `"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.DeadLetter(t.Context(), keys[len(keys)-1], "too large"); err != nil {
		t.Fatal(err)
	}
}

// Status shows what some stores have, even if others don't answer.
func TestStatusReportsWhatItCanReach(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	data := t.TempDir()
	code, stdout, stderr := closeout("status --data " + data + " room-close-1-7")
	if code != 3 || stdout != "" || !regexp.MustCompile(`room-close-1-7: found nothing, and some stores did not answer: bill: .* not set up.*; inbox: no webhook has run in .*; manifest: .*; run: ask Temporal at 127.0.0.1:1: `).MatchString(stderr) {
		t.Errorf("nothing there: %d\n%s%s", code, stdout, stderr)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) > 0 {
		t.Errorf("it made %v, %v", entries, err)
	}

	queue(t, data, "room-close-1-7", "room-close-1-8")
	code, stdout, stderr = closeout("status --data " + data + " lobby")
	for _, want := range []string{
		"room-close-1-7\n  room      lobby\n  inbox     waiting since 20", "room-close-1-8\n  room      lobby\n  inbox     dead letter since 20", ": too large\n",
		"run       unknown: ask Temporal at 127.0.0.1:1: ", "bill      unknown: ", "manifest  unknown: ",
		"Web UI    http://localhost:8233/namespaces/default/workflows/room-close-1-7\n",
	} {
		if code != 3 || stderr != "error: some stores did not answer, so these are unknown: run\nhint: closeout doctor checks all connections\n" || !strings.Contains(stdout, want) {
			t.Errorf("queued: %d, without %q\n%s%s", code, want, stdout, stderr)
		}
	}

	// If the ledger answers, a session of a configured app is found by its number.
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 2, RoomSessionID: 1<<64 - 1}, RoomID: "attic"}}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLOSEOUT_APPS", "1=a;2=b")
	code, stdout, stderr = closeout("status --data " + data + " 18446744073709551615")
	if code != 3 || !strings.HasPrefix(stdout, "room-close-2-18446744073709551615\n  room      attic\n") || strings.Contains(stdout, "room-close-1-") {
		t.Errorf("billed: %d\n%s%s", code, stdout, stderr)
	}
}

// A session without a callback is in no store, but ZEGO's counts show that there are such sessions.
func TestStatusReportsRoomsWithoutCallbacks(t *testing.T) {
	(&failedRuns{}).serve(t)
	data := t.TempDir()
	compared(ledger.Comparison{AppID: 1, At: time.Now(), UnknownRooms: 3})(data)
	const want = "ZEGO counts 3 rooms and 0 users of app 1 without callbacks, since 20"
	if code, stdout, stderr := closeout("status --data " + data + " lost"); code != 1 || !strings.Contains(stdout, want) {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	if _, stdout, _ := closeout("status --json --data " + data + " lost"); !strings.Contains(stdout, `"unknown_rooms": 3`) {
		t.Error(stdout)
	}
	compared(ledger.Comparison{AppID: 1, At: time.Now(), Rooms: 3})(data)
	if _, stdout, _ := closeout("status --data " + data + " lost"); stdout != "" {
		t.Error(stdout)
	}
}

func TestStatusOfARoomIsTheNewestFirst(t *testing.T) {
	temporal := &failedRuns{}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	temporal.add(t, 2, "lobby", now.Add(-2*time.Hour))
	temporal.add(t, 4, "lobbyist", now)
	temporal.add(t, 3, "lobby", now.Add(-time.Hour))
	temporal.add(t, 1, "lobby", now.Add(-3*time.Hour))
	temporal.serve(t)
	t.Setenv("TEMPORAL_NAMESPACE", "a b")
	data := t.TempDir()
	queue(t, data, "room-close-1-9") // today

	ids := regexp.MustCompile(`(?m)^room-close-1-\d`)
	for _, tt := range []struct {
		args, want string
		more       bool
	}{
		{"lobby", "9 3 2 1", false},
		{"--limit 4 lobby", "9 3 2 1", false},
		{"--limit 3 lobby", "9 3 2", true},
		{"3 2", "3 2", false},
		{"room-close-1-4 9", "4 9", false},
	} {
		code, stdout, stderr := closeout("status --data " + data + " " + tt.args)
		got := strings.ReplaceAll(strings.Join(ids.FindAllString(stdout, -1), " "), "room-close-1-", "")
		if code != 0 || got != tt.want || strings.Contains(stdout, "lobby has more sessions than these") != tt.more {
			t.Errorf("%s: %d, %s, want %s\n%s%s", tt.args, code, got, tt.want, stdout, stderr)
		}
	}
	_, stdout, _ := closeout("status --data " + data + " 3")
	for _, want := range []string{
		"run       Failed, running; RoomClose, started at 2026-11-23T11:00:00Z, closed after 1s\n", "it broke\n",
		"/namespaces/a%20b/workflows/room-close-1-3/run%2F1/history\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("without %q:\n%s", want, stdout)
		}
	}
	if want := "RoomSessionId = '3' OR RoomId = '3'"; temporal.query != want {
		t.Errorf("query %s, want %s", temporal.query, want)
	}

	// After --wait, the command shows the sessions and what each lacks.
	code, stdout, stderr := closeout("status --wait 1ms --data " + data + " lobby")
	if code != 1 || !strings.Contains(stdout, "room-close-1-3\n") || !strings.Contains(stderr, "lobby: not closed out after 0s: room-close-1-9: no run; room-close-1-3: its run is Failed, running; ") {
		t.Errorf("waited: %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := closeout("status --wait 1ms --data " + data + " nobody"); code != 1 || !strings.Contains(stderr, "nobody: not closed out after 0s: found nothing") {
		t.Errorf("waited for nobody: %d\n%s", code, stderr)
	}

	temporal.token = []byte("more")
	code, stdout, _ = closeout("status --json --data " + data + " lobby nobody")
	var all struct {
		Sessions []struct {
			ID  string `json:"workflow_id"`
			Run *struct{ Fault string }
		}
		More []string
	}
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != 1 || len(all.Sessions) != 4 || len(all.More) != 1 || all.More[0] != "lobby" {
		t.Fatalf("as JSON: %d, %v\n%s", code, err, stdout)
	}
	if all.Sessions[0].Run != nil || all.Sessions[1].Run == nil || !strings.Contains(all.Sessions[1].Run.Fault, "it broke") {
		t.Errorf("as JSON:\n%s", stdout)
	}
}

func TestStatusRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                    "error: no session\nhint: for example: closeout status 858012925204410417",
		"--limit 0 1":         "--limit: found 0, want at least 1",
		"--ui-url ftp://ui 1": "--ui-url: not a URL with one of the schemes http, https",
	} {
		if code, stdout, stderr := closeout("status " + args); code != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d\n%s%s", args, code, stdout, stderr)
		}
	}
}
