package service

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/workflows"
)

// pollersLast is the age up to which a poller counts as alive. A poll takes a minute at most, but
// Temporal lists pollers for longer.
const pollersLast = 2 * time.Minute

// errStranded means that tasks wait that no worker takes.
var errStranded = errors.New("tasks wait that no worker may take")

// A Queue is the state of the workers' Task Queue.
type Queue struct {
	Tasks   int64 // waiting
	Workers int   // polling
	// Fault is why no worker takes new tasks, and Fix is advice. Both are empty if one does.
	Fault, Fix string
}

// DescribeQueue describes the Task Queue of Workflow or Activity tasks.
func DescribeQueue(ctx context.Context, c *config.Config, t client.Client, kind enums.TaskQueueType) (Queue, error) {
	answer, err := t.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: c.Temporal.Namespace, TaskQueue: &taskqueue.TaskQueue{Name: c.TaskQueue}, TaskQueueType: kind, ReportStats: true,
	})
	if err != nil {
		return Queue{}, fmt.Errorf("describe task queue %s: %w", c.TaskQueue, err)
	}
	q := Queue{Tasks: answer.GetStats().GetApproximateBacklogCount()}
	// New tasks go to the current version or, without one, to unversioned workers.
	current, workers, takers := answer.GetVersioningInfo().GetCurrentDeploymentVersion(), map[string]bool{}, 0
	for _, p := range answer.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) > pollersLast {
			continue
		}
		workers[p.GetIdentity()] = true
		o := p.GetDeploymentOptions()
		versioned := o.GetWorkerVersioningMode() == enums.WORKER_VERSIONING_MODE_VERSIONED
		if versioned != (current.GetBuildId() != "") {
			continue
		}
		if !versioned || o.GetBuildId() == current.GetBuildId() && o.GetDeploymentName() == current.GetDeploymentName() {
			takers++
		}
	}
	switch q.Workers = len(workers); {
	case q.Workers == 0:
		q.Fault, q.Fix = "no worker polls it", fmt.Sprintf("start one, or see that workers have CLOSEOUT_TASK_QUEUE %s, TEMPORAL_NAMESPACE %s and the right TEMPORAL_ADDRESS", c.TaskQueue, c.Temporal.Namespace)
	case takers > 0:
	case current.GetBuildId() == "":
		q.Fault, q.Fix = "its workers are versioned while no version is current", "set one by `temporal worker deployment set-current-version`"
	default:
		q.Fault = fmt.Sprintf("no worker of it has the version %s of %s, which is current", current.GetBuildId(), current.GetDeploymentName())
		q.Fix = "start workers of that version, or set another one by `temporal worker deployment set-current-version`"
	}
	return q, nil
}

// stranded counts the tasks in the Task Queue that no worker takes. The error says why.
func stranded(ctx context.Context, c *config.Config, t client.Client) (tasks int64, err error) {
	for _, kind := range []enums.TaskQueueType{enums.TASK_QUEUE_TYPE_WORKFLOW, enums.TASK_QUEUE_TYPE_ACTIVITY} {
		q, err := DescribeQueue(ctx, c, t, kind)
		if err != nil {
			return 0, err
		}
		if q.Tasks > 0 && q.Fault != "" {
			return q.Tasks, fmt.Errorf("%w: %d in task queue %s of namespace %s: %s; %s", errStranded, q.Tasks, c.TaskQueue, c.Temporal.Namespace, q.Fault, q.Fix)
		}
	}
	return 0, nil
}

// askStranded checks whether there are such tasks.
func askStranded(within time.Duration, c *config.Config, t client.Client) *probe.Probe[struct{}] {
	return probe.New(within, probe.Err(func(ctx context.Context) error {
		_, err := stranded(ctx, c, t)
		return err
	}))
}

// openAges are the reported ages of the oldest open run.
var openAges = []time.Duration{0, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 2 * 24 * time.Hour, 3 * 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

// oldestOpen returns the largest of openAges that the oldest open run has reached, or 0. It counts
// runs by age, because Temporal's SQL stores cannot sort.
func oldestOpen(ctx context.Context, c *config.Config, t client.Client) (time.Duration, error) {
	now := time.Now()
	lowest, highest := 0, len(openAges) // openAges[lowest] is reached, openAges[highest] is not
	for highest-lowest > 1 {
		middle := (lowest + highest) / 2
		count, err := t.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: fmt.Sprintf(
			"ExecutionStatus = 'Running' AND TaskQueue = '%s' AND WorkflowType != '%s' AND StartTime <= '%s'",
			c.TaskQueue, reconcile.Name, now.Add(-openAges[middle]).UTC().Format(time.RFC3339))})
		if err != nil {
			return 0, err
		}
		if count.GetCount() > 0 {
			lowest = middle
		} else {
			highest = middle
		}
	}
	return openAges[lowest], nil
}

// Runs lists the runs that a List Filter matches.
func Runs(ctx context.Context, t client.Client, query string) iter.Seq2[*workflow.WorkflowExecutionInfo, error] {
	return func(yield func(*workflow.WorkflowExecutionInfo, error) bool) {
		for page := []byte(nil); ; {
			answer, err := t.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
			if err != nil {
				yield(nil, fmt.Errorf("list runs: %w", err))
				return
			}
			for _, run := range answer.GetExecutions() {
				if !yield(run, nil) {
					return
				}
			}
			if page = answer.GetNextPageToken(); len(page) == 0 {
				return
			}
		}
	}
}

// StuckQuery returns the List Filter for runs with a Workflow Task that keeps failing. Older servers
// lack its Search Attribute.
func StuckQuery(c *config.Config) string {
	return fmt.Sprintf("ExecutionStatus = 'Running' AND TaskQueue = '%s' AND %s IS NOT NULL", c.TaskQueue, workflows.ReportedProblems)
}

// runGauges are the gauges of all runs. Every process reports the same values.
var runGauges = []telemetry.Metric{
	{Name: "closeout_runs_blocked", Help: "Runs that wait for an operator, in the whole Namespace. Each process reports the same."},
	{Name: "closeout_runs_stuck", Help: "Runs in the Task Queue that workers fail at repeatedly: their code lacks the Workflow, or cannot replay it."},
	{Name: "closeout_search_attributes_missing", Help: "1 while the Namespace lacks Closeout's Search Attributes, so that blocked runs cannot be counted."},
	{Name: "closeout_tasks_stranded", Help: "Tasks in the Task Queue that no worker may take: none polls it, or none has the current version."},
	{Name: "closeout_runs_oldest_open_age_seconds", Help: "Age of the oldest open run, rounded down to 0, 1 or 10 minutes, 1 or 6 hours, or 1, 2, 3, 7 or 30 days."},
}

// readRuns reads runGauges. It leaves out a gauge while Temporal does not answer.
func readRuns(c *config.Config, t client.Client) func(context.Context, telemetry.Set) {
	return func(ctx context.Context, set telemetry.Set) {
		count, err := t.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: workflows.BlockedQuery()})
		invalid := new(serviceerror.InvalidArgument)
		missing := errors.As(err, &invalid) // the query names a missing Search Attribute
		if err == nil {
			set("closeout_runs_blocked", float64(count.GetCount()))
		}
		if err == nil || missing {
			set("closeout_search_attributes_missing", one(missing))
		}
		if count, err := t.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: StuckQuery(c)}); err == nil {
			set("closeout_runs_stuck", float64(count.GetCount()))
		}
		if n, err := stranded(ctx, c, t); err == nil || errors.Is(err, errStranded) {
			set("closeout_tasks_stranded", float64(n))
		}
		if age, err := oldestOpen(ctx, c, t); err == nil {
			set("closeout_runs_oldest_open_age_seconds", age.Seconds())
		}
	}
}
