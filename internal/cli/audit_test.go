package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	urfave "github.com/urfave/cli/v3"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// oneRun is a Temporal with one run, or with none if info is nil.
type oneRun struct {
	workflowservice.UnimplementedWorkflowServiceServer
	info *workflow.WorkflowExecutionInfo
}

func (o *oneRun) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{Config: &namespace.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(24 * time.Hour)}}, nil
}

func (o *oneRun) ListWorkflowExecutions(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	if o.info != nil {
		answer.Executions = append(answer.Executions, o.info)
	}
	return answer, nil
}

func (o *oneRun) DescribeWorkflowExecution(context.Context, *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if o.info == nil {
		return nil, status.Error(codes.NotFound, "no such run")
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: o.info}, nil
}

func auditCommand(args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	root := &urfave.Command{Name: "closeout", Commands: []*urfave.Command{cli.Audit()}}
	code = cli.Run(context.Background(), root, append([]string{"closeout", "audit"}, args...), &out, &err)
	return code, out.String(), err.String()
}

func TestAudit(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	temporal, server := &oneRun{}, grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, temporal)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	t.Setenv("TEMPORAL_ADDRESS", listener.Addr().String())

	data := t.TempDir()
	journal := filepath.Join(data, "journal.jsonl")
	line := `{"appid":1,"room_session_id":"18446744073709551615","acknowledged":true}` + "\n"
	if err := os.WriteFile(journal, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []string{"--data", data, "--journal", journal, "--complete", "--since", "1h"}
	makeStores(t, data)

	// No store has the session.
	code, stdout, stderr := auditCommand(all...)
	if code != 1 || stderr != "error: 1 fault\n" || !strings.Contains(stdout, "room-close-1-18446744073709551615: lost\n") {
		t.Errorf("lost: %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = auditCommand(append(all, "--json")...)
	var report struct {
		Acknowledged int `json:"acknowledged"`
		Faults       []struct {
			Kind          string `json:"kind"`
			RoomSessionID string `json:"room_session_id"`
		} `json:"faults"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 1 || stderr != "error: 1 fault\n" {
		t.Errorf("lost, as JSON: %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if report.Acknowledged != 1 || len(report.Faults) != 1 || report.Faults[0].Kind != "lost" || report.Faults[0].RoomSessionID != "18446744073709551615" {
		t.Errorf("report %+v", report)
	}
	// Without the journal, the audit doesn't know the session.
	if code, stdout, stderr := auditCommand("--data", data); code != 0 || !strings.Contains(stdout, "No faults.\n") || strings.Contains(stdout, "offered") {
		t.Errorf("without the journal: %d\n%s%s", code, stdout, stderr)
	}

	// Without an inbox the report says so, because callbacks may wait there.
	worker := t.TempDir()
	makeStores(t, worker)
	if err := os.RemoveAll(filepath.Join(worker, "inbox")); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := auditCommand("--data", worker); code != 0 || strings.Contains(stdout, "in the inbox") || !strings.Contains(stderr, "so none is compared") {
		t.Errorf("without an inbox: %d\n%s%s", code, stdout, stderr)
	}

	// The session has a running run.
	temporal.info = &workflow.WorkflowExecutionInfo{
		Execution: &common.WorkflowExecution{WorkflowId: "room-close-1-18446744073709551615", RunId: "r"},
		Status:    enums.WORKFLOW_EXECUTION_STATUS_RUNNING, StartTime: timestamppb.Now(),
		SearchAttributes: &common.SearchAttributes{IndexedFields: map[string]*common.Payload{"RoomId": {}}},
	}
	if code, stdout, stderr := auditCommand(all...); code != 0 || !strings.Contains(stdout, "1 with a run under way\n") {
		t.Errorf("under way: %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := auditCommand(append(all, "--wait", "1ms")...); code != 1 || !strings.Contains(stdout, "No faults.\n") || stderr != "error: 1 session is still pending after 1ms\n" {
		t.Errorf("under way, waited for: %d\n%s%s", code, stdout, stderr)
	}

	// The session is closed out.
	temporal.info.Status = enums.WORKFLOW_EXECUTION_STATUS_COMPLETED
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}}}); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(data, "archive", "1", "18446744073709551615", "manifest.json")
	if err := os.MkdirAll(filepath.Dir(manifest), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := auditCommand(append(all, "--wait", "1m")...); code != 0 || !strings.Contains(stdout, "1 closed out with a manifest\n\nNo faults.\n") {
		t.Errorf("closed out: %d\n%s%s", code, stdout, stderr)
	}

	// The error about an unreadable journal names the line.
	if err := os.WriteFile(journal, []byte(line+"?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := auditCommand(all...); code != 1 || stdout != "" || !strings.Contains(stderr, "journal.jsonl:2: ") {
		t.Errorf("a bad journal: %d\n%s%s", code, stdout, stderr)
	}
}

// makeStores makes an empty inbox, ledger and archive in a data folder.
func makeStores(t *testing.T, data string) {
	t.Helper()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(box.Close(), books.Migrate(t.Context()), os.MkdirAll(filepath.Join(data, "archive"), 0o750)); err != nil {
		t.Fatal(err)
	}
}

func TestAuditRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--complete":                    "--complete: ",
		"--since yesterday":             `--since: found "yesterday"`,
		"--since -1h":                   `--since: found "-1h"`,
		"--until 2026-11-23":            `--until: found "2026-11-23"`,
		"--since 1h --until 2h":         "--since and --until: ",
		"--since 1h --until 1h":         "--since and --until: ",
		"--wait -1s":                    "--grace and --wait: ",
		"--grace -1s":                   "--grace and --wait: ",
		"--archive-url ftp://h":         "--archive-url: ",
		"--archive-url s3://b?no_such=": "--archive-url: ",
		"journal.jsonl":                 `unexpected argument "journal.jsonl"`,
	} {
		data := t.TempDir()
		makeStores(t, data)
		code, stdout, stderr := auditCommand(append(strings.Fields(args), "--data", data)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d\n%s%s, want %q", args, code, stdout, stderr, want)
		}
	}
}
