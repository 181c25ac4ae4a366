package cli_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// unindexed is a Temporal whose Namespace lacks Closeout's Search Attributes. runs has the current
// details of its open runs, or "" for a run that answers a query with silent.
type unindexed struct {
	workflowservice.UnimplementedWorkflowServiceServer
	runs   []string
	silent error // error of a query to a run without details
}

func (u *unindexed) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{}, nil
}

func (u *unindexed) ListWorkflowExecutions(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	if strings.Contains(r.GetQuery(), "CloseoutState") {
		return nil, serviceerror.ToStatus(serviceerror.NewInvalidArgument("invalid query: column name 'CloseoutState' is not a valid search attribute")).Err()
	}
	if !strings.Contains(r.GetQuery(), "STARTS_WITH 'room-close-'") || !strings.Contains(r.GetQuery(), "STARTS_WITH 'bill-adjustment-'") {
		return nil, fmt.Errorf("asked for %s", r.GetQuery())
	}
	answer := &workflowservice.ListWorkflowExecutionsResponse{} // one run to a page
	at := len(r.GetNextPageToken())
	if at < len(u.runs) {
		answer.Executions = []*workflow.WorkflowExecutionInfo{{Execution: &common.WorkflowExecution{WorkflowId: fmt.Sprintf("room-close-1-%d", at+1)}, StartTime: timestamppb.Now()}}
	}
	if at+1 < len(u.runs) {
		answer.NextPageToken = make([]byte, at+1)
	}
	return answer, nil
}

func (u *unindexed) QueryWorkflow(_ context.Context, r *workflowservice.QueryWorkflowRequest) (*workflowservice.QueryWorkflowResponse, error) {
	var at int
	if _, err := fmt.Sscanf(r.GetExecution().GetWorkflowId(), "room-close-1-%d", &at); err != nil || r.GetQuery().GetQueryType() != "__temporal_workflow_metadata" {
		return nil, fmt.Errorf("asked %v: %v", r, err)
	}
	if u.runs[at-1] == "" {
		return nil, serviceerror.ToStatus(u.silent).Err()
	}
	result, err := converter.GetDefaultDataConverter().ToPayloads(&sdk.WorkflowMetadata{CurrentDetails: u.runs[at-1]})
	return &workflowservice.QueryWorkflowResponse{QueryResult: result}, err
}

// In a Namespace without Closeout's Search Attributes, the command queries each open run. If no
// worker answers, it reports the run as unknown and fails.
func TestBlockedRunsAreFoundWithoutSearchAttributes(t *testing.T) {
	const (
		blocked = "Room `a`, session 1 of app 1, closed.\n\n- **billing** is **blocked**: `no price`\n  Fix the cause.\n- **recordings** is running: Archive"
		claims  = "Room `a** is **blocked**: `, session 2 of app 1.\n\n- **billing** is done: `- **x** is **blocked**: `\n- **recordings** is running: Archive"
	)
	for name, tt := range map[string]struct {
		temporal   *unindexed
		args       string
		code       int
		want, lack []string
	}{
		"one of three":       {&unindexed{runs: []string{claims, blocked, claims}}, "list", 0, []string{"room-close-1-2  blocked"}, []string{"room-close-1-1", "room-close-1-3"}},
		"none":               {&unindexed{runs: []string{claims}}, "list", 0, []string{"WORKFLOW ID"}, []string{"room-close-1-1"}},
		"no run at all":      {&unindexed{}, "list", 0, []string{"WORKFLOW ID"}, nil},
		"one that is stuck":  {&unindexed{runs: []string{"", blocked}, silent: serviceerror.NewWorkflowNotReady("Cannot query workflow due to Workflow Task in failed state.")}, "list", 0, []string{"room-close-1-1  stuck", "room-close-1-2  blocked"}, nil},
		"one that is closed": {&unindexed{runs: []string{"", blocked}, silent: serviceerror.NewNotFound("workflow not found")}, "list", 0, []string{"room-close-1-2  blocked"}, []string{"room-close-1-1"}},
		"no worker":          {&unindexed{runs: []string{"", claims}, silent: serviceerror.NewQueryFailed("no poller")}, "list", 1, []string{"closeout setup", "unknown", "room-close-1-1", "no poller"}, nil},
		"all are decided":    {&unindexed{runs: []string{claims, blocked}}, "retry --all --reason r", 1, []string{"1 blocked runs, the first is room-close-1-2"}, nil},
		"all, and no worker": {&unindexed{runs: []string{""}, silent: serviceerror.NewQueryFailed("no poller")}, "retry --all --reason r", 1, []string{"closeout setup", "unknown"}, nil},
		"all, by a filter":   {&unindexed{runs: []string{blocked}}, "retry --all --where AppId=1 --reason r", 2, []string{"--where", "CloseoutState"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			workflowservice.RegisterWorkflowServiceServer(server, tt.temporal)
			go func() { _ = server.Serve(listener) }()
			defer server.Stop()
			t.Setenv("TEMPORAL_ADDRESS", listener.Addr().String())
			code, stdout, stderr := closeout("blocked " + tt.args)
			shown := stdout + stderr
			if code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(shown, want) {
					t.Errorf("lacks %q:\n%s", want, shown)
				}
			}
			for _, lack := range tt.lack {
				if strings.Contains(shown, lack) {
					t.Errorf("has %q:\n%s", lack, shown)
				}
			}
		})
	}
}
