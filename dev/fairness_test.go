package main

import (
	"context"
	"slices"
	"sync"
	"testing"

	"go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/dev/server"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// A run has its app as fairness key, and the app's weight, so that a fair Task Queue can
// dispatch the tasks of all apps in turn.
func TestARunCarriesItsAppAsFairnessKey(t *testing.T) {
	c := settings(t, map[string]string{"app-weights": "1=5;2=0.5"})
	setUp(t, c)
	closed := newClose()
	post(t, start(t, c, both), closed)
	temporalClient := dial(t, c)
	result(t, temporalClient, closed)
	described, err := temporalClient.DescribeWorkflowExecution(t.Context(), workflowID(closed), "")
	if err != nil {
		t.Fatal(err)
	}
	if p := described.GetWorkflowExecutionInfo().GetPriority(); p.GetFairnessKey() != "1" || p.GetFairnessWeight() != 5 {
		t.Errorf("got %v", p)
	}
}

// fairly runs a test on a server with fair Task Queues, where no app may be delayed, and
// on a server without, where an app must be delayed. Otherwise the test would prove
// nothing.
func fairly(t *testing.T, test func(t *testing.T, temporal *server.Server, fair bool)) {
	t.Helper()
	t.Run("fair", func(t *testing.T) {
		t.Parallel()
		fair, err := server.Start(t.Context(), server.Options{Dir: t.TempDir(), UIPort: -1, Fair: true, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fair.Stop() })
		test(t, fair, true)
	})
	t.Run("in order of arrival", func(t *testing.T) {
		t.Parallel()
		test(t, temporal, false)
	})
}

// Sessions that one app left while no worker ran don't delay the sessions of another app.
func TestBacklogOfOneAppDelaysNoOther(t *testing.T) {
	t.Parallel()
	const many, few = 40, 5
	fairly(t, func(t *testing.T, temporal *server.Server, fair bool) {
		c := settings(t, map[string]string{"apps": "1=secret;2=secret"})
		c.Temporal.HostPort = temporal.Address()
		setUp(t, c)
		temporalClient := dial(t, c)
		address := start(t, c, service.Parts{Webhook: true, Extension: service.Extension{
			Workflows: []workflows.Workflow{TakeTurn},
			Route:     func(session.Session) workflows.Workflow { return TakeTurn },
		}})
		for i := range many + few {
			closed := newClose()
			if i >= many {
				closed.AppID = 2
			}
			// A callback that went to the inbox would start too late.
			if a := post(t, address, closed); a.Status != webhook.Started {
				t.Fatalf("answer %+v", a)
			}
		}
		wait(t, "all wait for a worker", func() bool {
			return waiting(t, temporalClient, c, enums.TASK_QUEUE_TYPE_WORKFLOW) >= many+few
		})

		var s turns
		// A worker that can't process the whole backlog at once.
		work(t, temporalClient, c, worker.Options{
			MaxConcurrentWorkflowTaskExecutionSize: 2, MaxConcurrentWorkflowTaskPollers: 2,
			MaxConcurrentActivityExecutionSize: 1, MaxConcurrentActivityTaskPollers: 1,
		}, func(w worker.Worker) {
			w.RegisterWorkflow(TakeTurn)
			w.RegisterActivity(&s)
		})
		wait(t, "all had their turn", func() bool { return len(s.taken()) >= many+few })
		before := ahead(s.taken())
		t.Logf("%d of app 1 came before the last of the %d of app 2", before, few)
		if heldUp := before > many/2; heldUp == fair {
			t.Errorf("%d of %d of app 1 came before the last of app 2: %v", before, many, s.taken())
		}
	})
}

// The steps of started runs wait in a Task Queue of their own. They inherit the priority
// of their run, and an app of weight 5 gets five tasks for each task of another app.
func TestStepsAreDispatchedByWeight(t *testing.T) {
	t.Parallel()
	const many, few = 20, 10
	fairly(t, func(t *testing.T, temporal *server.Server, fair bool) {
		c := settings(t, map[string]string{"app-weights": "2=5"})
		c.Temporal.HostPort = temporal.Address()
		setUp(t, c)
		temporalClient := dial(t, c)
		// A worker that starts the runs and leaves their steps to another.
		work(t, temporalClient, c, worker.Options{LocalActivityWorkerOnly: true}, func(w worker.Worker) { w.RegisterWorkflow(TakeTurn) })
		starts := starter.New(starter.Options{Temporal: temporalClient, TaskQueue: c.TaskQueue, Weights: c.AppWeights, Log: quiet,
			Route: func(session.Session) workflows.Workflow { return TakeTurn }})
		begin := func(app uint32, n, all int64) {
			t.Helper()
			for range n {
				closed := newClose()
				closed.AppID = app
				if err := starts.Close(t.Context(), session.Of(&closed)); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, "their steps wait for a worker", func() bool {
				return waiting(t, temporalClient, c, enums.TASK_QUEUE_TYPE_ACTIVITY) >= all
			})
		}
		begin(1, many, many)
		begin(2, few, many+few)

		var s turns
		work(t, temporalClient, c, worker.Options{DisableWorkflowWorker: true, MaxConcurrentActivityExecutionSize: 1, MaxConcurrentActivityTaskPollers: 1},
			func(w worker.Worker) { w.RegisterActivity(&s) })
		wait(t, "all had their turn", func() bool { return len(s.taken()) >= many+few })
		before := ahead(s.taken())
		t.Logf("%d of app 1 came before the last of the %d of app 2", before, few)
		// Without weights, app 1 would have as many as app 2.
		if fair && before > few/2 || !fair && before < many {
			t.Errorf("%d of %d of app 1 came before the last of app 2: %v", before, many, s.taken())
		}
	})
}

// work runs a worker until the test ends.
func work(t *testing.T, temporalClient client.Client, c *config.Config, options worker.Options, register func(worker.Worker)) {
	t.Helper()
	w := worker.New(temporalClient, c.TaskQueue, options)
	register(w)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
}

// TakeTurn is a Workflow of one step.
func TakeTurn(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "turn"}, (&turns{}).Turn)
	return run.Finish()
}

// turns records the order of the apps' steps.
type turns struct {
	mu   sync.Mutex
	apps []uint32
}

func (s *turns) Turn(_ context.Context, task activities.Task) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = append(s.apps, task.Session.AppID)
	return "", nil
}

func (s *turns) taken() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.apps)
}

// ahead counts the steps of app 1 before the last step of app 2.
func ahead(apps []uint32) (n int) {
	for i, app := range apps {
		if app == 1 && slices.Contains(apps[i:], 2) {
			n++
		}
	}
	return n
}

// waiting returns the number of tasks that wait for a worker.
func waiting(t *testing.T, temporalClient client.Client, c *config.Config, kind enums.TaskQueueType) int64 {
	t.Helper()
	described, err := temporalClient.WorkflowService().DescribeTaskQueue(t.Context(), &workflowservice.DescribeTaskQueueRequest{
		Namespace: c.Temporal.Namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: c.TaskQueue}, TaskQueueType: kind, ReportStats: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return described.GetStats().GetApproximateBacklogCount()
}
