package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/deployment/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/config"
)

// watched is a Temporal with a Task Queue and runs.
type watched struct {
	workflowservice.UnimplementedWorkflowServiceServer
	operatorservice.UnimplementedOperatorServiceServer
	backlog int64
	polled  time.Time // last poll; zero without a poller
	mode    enums.WorkerVersioningMode
	build   string
	current string
	oldest  time.Duration // age of the oldest open run; negative without one
	unset   bool
}

func (w *watched) DescribeTaskQueue(_ context.Context, r *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	answer := &workflowservice.DescribeTaskQueueResponse{Stats: &taskqueue.TaskQueueStats{ApproximateBacklogCount: w.backlog}}
	if r.GetTaskQueue().GetName() != "closeout" || !r.GetReportStats() {
		return nil, fmt.Errorf("asked for %v", r)
	}
	if !w.polled.IsZero() {
		answer.Pollers = []*taskqueue.PollerInfo{{LastAccessTime: timestamppb.New(w.polled), Identity: "w", DeploymentOptions: &deployment.WorkerDeploymentOptions{WorkerVersioningMode: w.mode, BuildId: w.build}}}
	}
	if w.current != "" {
		answer.VersioningInfo = &taskqueue.TaskQueueVersioningInfo{CurrentDeploymentVersion: &deployment.WorkerDeploymentVersion{BuildId: w.current}}
	}
	return answer, nil
}

var startedBefore = regexp.MustCompile("StartTime <= '([^']+)'")

func (w *watched) CountWorkflowExecutions(_ context.Context, r *workflowservice.CountWorkflowExecutionsRequest) (*workflowservice.CountWorkflowExecutionsResponse, error) {
	found := startedBefore.FindStringSubmatch(r.GetQuery())
	if found == nil && strings.Contains(r.GetQuery(), "TaskQueue = 'closeout' AND TemporalReportedProblems IS NOT NULL") {
		return &workflowservice.CountWorkflowExecutionsResponse{Count: 3}, nil
	}
	if found == nil {
		if w.unset {
			return nil, serviceerror.ToStatus(serviceerror.NewInvalidArgument("column name 'CloseoutState' is not a valid search attribute")).Err()
		}
		return &workflowservice.CountWorkflowExecutionsResponse{Count: 2}, nil
	}
	before, err := time.Parse(time.RFC3339, found[1])
	if err != nil {
		return nil, err
	}
	if w.oldest >= 0 && !time.Now().Add(-w.oldest).After(before.Add(time.Second)) {
		return &workflowservice.CountWorkflowExecutionsResponse{Count: 1}, nil
	}
	return &workflowservice.CountWorkflowExecutionsResponse{}, nil
}

// Tasks that no worker may take are counted, and readiness says which and why.
func TestTasksWithoutAWorkerAreReported(t *testing.T) {
	now, versioned := time.Now(), enums.WORKER_VERSIONING_MODE_VERSIONED
	for name, tt := range map[string]struct {
		temporal *watched
		tasks    int64
		why      string
	}{
		"nothing waits":                        {&watched{}, 0, ""},
		"a worker polls":                       {&watched{backlog: 3, polled: now}, 0, ""},
		"none polls":                           {&watched{backlog: 3}, 3, "CLOSEOUT_TASK_QUEUE"},
		"none has polled for long":             {&watched{backlog: 3, polled: now.Add(-time.Hour)}, 3, "CLOSEOUT_TASK_QUEUE"},
		"versioned, and none is current":       {&watched{backlog: 3, polled: now, mode: versioned}, 3, "set-current-version"},
		"versioned, and one is current":        {&watched{backlog: 3, polled: now, mode: versioned, build: "v1", current: "v1"}, 0, ""},
		"versioned, and another is current":    {&watched{backlog: 3, polled: now, mode: versioned, build: "v1", current: "v2"}, 3, "version v2"},
		"not versioned, and one is current":    {&watched{backlog: 3, polled: now, current: "v2"}, 3, "version v2"},
		"versioned without a current and idle": {&watched{polled: now, mode: versioned}, 0, ""},
	} {
		c := &config.Config{TaskQueue: "closeout"}
		temporal := clientOf(t, serveTemporal(t, tt.temporal))
		tasks, err := stranded(t.Context(), c, temporal)
		if tasks != tt.tasks || (err != nil) != (tt.why != "") || err != nil && (!errors.Is(err, errStranded) || !strings.Contains(err.Error(), tt.why)) {
			t.Errorf("%s: %d, %v", name, tasks, err)
		}
		h := &health{}
		h.polling.Store(true)
		h.questions.Store(&questions{inbox: askQueue(within, disk{}), tasks: askStranded(within, c, temporal)})
		if state, err := h.check(t.Context()); err != nil || strings.Contains(state, "degraded: tasks wait that no worker may take") != (tt.why != "") {
			t.Errorf("%s: readiness %q, %v", name, state, err)
		}
	}
}

// Without Search Attributes, gauges that need them are left out with an error. The age of the
// oldest open run needs none.
func TestUnknownRunGaugesAreLeftOut(t *testing.T) {
	for name, tt := range map[string]struct {
		temporal *watched
		want     map[string]float64
	}{
		"with search attributes": {&watched{oldest: -1}, map[string]float64{
			"closeout_runs_blocked": 2, "closeout_runs_stuck": 3, "closeout_search_attributes_missing": 0, "closeout_tasks_stranded": 0, "closeout_runs_oldest_open_age_seconds": 0}},
		"without": {&watched{oldest: 30 * time.Hour, unset: true}, map[string]float64{
			"closeout_runs_stuck": 3, "closeout_search_attributes_missing": 1, "closeout_tasks_stranded": 0, "closeout_runs_oldest_open_age_seconds": 24 * 3600}},
		"a very old one": {&watched{oldest: 300 * 24 * time.Hour, backlog: 5}, map[string]float64{
			"closeout_runs_blocked": 2, "closeout_runs_stuck": 3, "closeout_search_attributes_missing": 0, "closeout_tasks_stranded": 5, "closeout_runs_oldest_open_age_seconds": 30 * 24 * 3600}},
	} {
		got := map[string]float64{}
		readRuns(&config.Config{TaskQueue: "closeout"}, clientOf(t, serveTemporal(t, tt.temporal)))(t.Context(), func(gauge string, value float64, _ ...string) { got[gauge] = value })
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
