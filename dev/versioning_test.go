package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Three builds of a Workflow with the same name.
type before struct{}

func (before) CloseShow(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "wallet"}, show.Settle)
	return run.Finish()
}

// after changes the order and the number of steps without GetVersion, so it can't replay
// an older run.
type after struct{}

func (after) CloseShow(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "gifts"}, show.Thank)
	workflows.Start(run, workflows.Step{Name: "wallet"}, show.Settle)
	return run.Finish()
}

// careful makes the same change with GetVersion, so it can replay an older run.
type careful struct{}

func (careful) CloseShow(ctx workflow.Context, s session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, s)
	workflows.Start(run, workflows.Step{Name: "gifts", AddedLater: true}, show.Thank)
	workflows.Start(run, workflows.Step{Name: "wallet"}, show.Settle)
	return run.Finish()
}

var show *showSteps // only names the steps

// showSteps are the steps of a build.
type showSteps struct {
	build string
	empty *atomic.Bool // the wallet is empty until an operator fills it
}

func (s *showSteps) Settle(context.Context, activities.Task) (string, error) {
	if s.empty.Load() {
		return "", activities.Blockedf("the wallet is empty")
	}
	return "settled by build " + s.build, nil
}

func (s *showSteps) Thank(context.Context, activities.Task) (string, error) {
	return "thanked by build " + s.build, nil
}

// deployment is a Worker Deployment with several builds that run at once.
type deployment struct {
	t        *testing.T
	settings *config.Config
	temporal client.Client
	empty    atomic.Bool
}

func newDeployment(t *testing.T) *deployment {
	// A name that has never had a current build, however often the test runs.
	name := fmt.Sprintf("%s-%d", t.Name(), rand.Uint64())
	c := settings(t, map[string]string{"temporal-deployment-name": name, "temporal-worker-build-id": "1", "task-queue": name})
	setUp(t, c)
	return &deployment{t: t, settings: c, temporal: dial(t, c)}
}

// start starts parts of a build until the test ends. Without a number it is not a version
// of the deployment.
func (d *deployment) start(parts service.Parts, build string, closeShow workflows.Workflow) (address string) {
	d.t.Helper()
	c := *d.settings
	c.Data = d.t.TempDir() // for its own inbox
	if c.BuildID = build; build == "" {
		c.DeploymentName = ""
	}
	parts.Extension = service.Extension{
		Workflows:  []workflows.Workflow{closeShow},
		Route:      func(session.Session) workflows.Workflow { return closeShow },
		Activities: []any{&showSteps{build, &d.empty}},
	}
	return start(d.t, &c, parts)
}

// makeCurrent sends new runs to a build, as soon as a worker of the build polls.
func (d *deployment) makeCurrent(build string) {
	d.t.Helper()
	name := d.settings.DeploymentName
	wait(d.t, "build "+build+" can be made current", func() bool {
		_, err := d.temporal.WorkerDeploymentClient().GetHandle(name).
			SetCurrentVersion(d.t.Context(), client.WorkerDeploymentSetCurrentVersionOptions{BuildID: build})
		return err == nil
	})
	// Task Queues apply the change a little later.
	wait(d.t, "build "+build+" is current everywhere", func() bool {
		answer, err := d.temporal.WorkflowService().DescribeWorkerDeployment(d.t.Context(),
			&workflowservice.DescribeWorkerDeploymentRequest{Namespace: d.settings.Temporal.Namespace, DeploymentName: name})
		if err != nil {
			d.t.Fatal(err)
		}
		return answer.GetWorkerDeploymentInfo().GetRoutingConfigUpdateState() == enums.ROUTING_CONFIG_UPDATE_STATE_COMPLETED
	})
}

// close sends the callback of a session.
func (d *deployment) close(address string) zego.RoomClose {
	d.t.Helper()
	closed := newClose()
	if a := post(d.t, address, closed); a.code != 200 {
		d.t.Fatalf("answer %+v", a)
	}
	return closed
}

// closeBlocked is close for a session with an empty wallet.
func (d *deployment) closeBlocked(address string) zego.RoomClose {
	d.t.Helper()
	d.empty.Store(true)
	closed := d.close(address)
	query := "CloseoutState = 'blocked' AND WorkflowId = '" + workflowID(closed) + "'"
	wait(d.t, "the run is blocked", func() bool { return runs(d.t, d.temporal, query) == 1 })
	d.empty.Store(false)
	return closed
}

// retry retries a blocked session's step.
func (d *deployment) retry(closed zego.RoomClose) {
	d.t.Helper()
	if err := d.decide(closed); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deployment) decide(closed zego.RoomClose) error {
	handle, err := d.temporal.UpdateWorkflow(d.t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: workflowID(closed), UpdateName: workflows.UpdateRetry, Args: []any{workflows.Decision{Reason: "filled"}},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(d.t.Context(), nil)
}

// move moves a session's run to a build. Without a number it removes the override.
func (d *deployment) move(closed zego.RoomClose, build string) {
	d.t.Helper()
	change := client.VersioningOverrideChange{}
	if build != "" {
		change.Value = &client.PinnedVersioningOverride{Version: worker.WorkerDeploymentVersion{DeploymentName: d.settings.DeploymentName, BuildID: build}}
	}
	if _, err := d.temporal.UpdateWorkflowExecutionOptions(d.t.Context(), client.UpdateWorkflowExecutionOptionsRequest{
		WorkflowId: workflowID(closed), WorkflowExecutionOptionsChanges: client.WorkflowExecutionOptionsChanges{VersioningOverride: &change},
	}); err != nil {
		d.t.Fatal(err)
	}
}

// expect waits until a session's run is done, and compares the results of its steps.
func (d *deployment) expect(closed zego.RoomClose, want ...string) {
	d.t.Helper()
	r := result(d.t, d.temporal, closed)
	var got []string
	for _, s := range r.Steps {
		got = append(got, s.Summary)
	}
	if r.State != workflows.StateDone || strings.Join(got, ", ") != strings.Join(want, ", ") {
		d.t.Errorf("%s: %s, %q; want %q", workflowID(closed), r.State, got, want)
	}
}

// replays reports whether a build can replay a session's run.
func (d *deployment) replays(closed zego.RoomClose, closeShow workflows.Workflow) error {
	d.t.Helper()
	events := d.temporal.GetWorkflowHistory(d.t.Context(), workflowID(closed), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	recorded := &history.History{}
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			d.t.Fatal(err)
		}
		recorded.Events = append(recorded.Events, event)
	}
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(closeShow, workflow.RegisterOptions{Name: "CloseShow"})
	return replayer.ReplayWorkflowHistory(tlog.NewStructuredLogger(quiet), recorded)
}

func workflowID(closed zego.RoomClose) string {
	return session.Of(&closed).WorkflowID()
}

// A run stays with the build that started it, however long it is blocked and whatever
// later builds do. New runs go to the current build.
func TestRunIsFinishedByItsBuild(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	address := d.start(service.Parts{Webhook: true}, "1", before{}.CloseShow)
	d.start(service.Parts{Worker: true}, "1", before{}.CloseShow)
	waits := d.close(address) // waits for a current build
	d.makeCurrent("1")
	d.expect(waits, "settled by build 1")
	blocked := d.closeBlocked(address)
	if d.replays(blocked, before{}.CloseShow) != nil || d.replays(blocked, after{}.CloseShow) == nil {
		t.Error("build 2 could replay the run: this test would prove nothing")
	}

	d.start(service.Parts{Worker: true}, "2", after{}.CloseShow)
	d.expect(d.close(address), "settled by build 1")
	d.makeCurrent("2")
	d.expect(d.close(address), "thanked by build 2", "settled by build 2")

	query := "TemporalWorkerDeploymentVersion = '" + d.settings.DeploymentName + ":1' AND ExecutionStatus = 'Running'"
	wait(t, "the run that is left of build 1 is found", func() bool { return runs(t, d.temporal, query) == 1 })
	d.retry(blocked)
	d.expect(blocked, "settled by build 1")
	wait(t, "no run is left of build 1", func() bool { return runs(t, d.temporal, query) == 0 })
}

// A blocked run can be moved to a build that can replay it.
func TestBlockedRunIsMoved(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	address := d.start(service.Parts{Webhook: true}, "1", before{}.CloseShow)
	d.start(service.Parts{Worker: true}, "1", before{}.CloseShow)
	d.makeCurrent("1")
	blocked := d.closeBlocked(address)
	d.start(service.Parts{Worker: true}, "2", careful{}.CloseShow)
	d.makeCurrent("2")

	d.move(blocked, "2")
	d.retry(blocked)
	d.expect(blocked, "settled by build 2") // not thanked, because the run is older than that step
}

// A build that can't replay a run leaves it stuck until it is moved back. Then the
// waiting decision is carried out.
func TestBlockedRunIsMovedBack(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	address := d.start(service.Parts{Webhook: true}, "1", before{}.CloseShow)
	d.start(service.Parts{Worker: true}, "1", before{}.CloseShow)
	d.makeCurrent("1")
	blocked := d.closeBlocked(address)
	d.start(service.Parts{Worker: true}, "2", after{}.CloseShow)
	d.makeCurrent("2")

	d.move(blocked, "2")
	decided := make(chan error, 1)
	go func() { decided <- d.decide(blocked) }()
	wait(t, "the run is stuck", func() bool {
		run, err := d.temporal.DescribeWorkflowExecution(t.Context(), workflowID(blocked), "")
		return err == nil && run.GetPendingWorkflowTask().GetAttempt() > 1
	})
	d.move(blocked, "")
	if err := <-decided; err != nil {
		t.Errorf("the decision that build 2 couldn't take: %v", err)
	}
	d.expect(blocked, "settled by build 1")
}

// Runs that started without a build continue on the first current build, which must be
// able to replay them.
func TestRunWithoutABuildContinuesOnTheFirst(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	address := d.start(service.Parts{Webhook: true}, "", before{}.CloseShow)
	d.start(service.Parts{Worker: true}, "", before{}.CloseShow)
	blocked := d.closeBlocked(address)
	d.start(service.Parts{Worker: true}, "1", before{}.CloseShow)
	d.expect(d.close(address), "settled by build ") // the build without a number, because none is current
	d.makeCurrent("1")
	d.retry(blocked)
	d.expect(blocked, "settled by build 1")
}

// Even with webhook and worker in one process, the current build closes out a session,
// whichever build received its callback.
func TestServeLeavesRunsToTheCurrentBuild(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	first := d.start(both, "1", before{}.CloseShow)
	d.makeCurrent("1")
	d.expect(d.close(first), "settled by build 1")
	second := d.start(both, "2", after{}.CloseShow)
	d.expect(d.close(second), "settled by build 1")
	d.makeCurrent("2")
	d.expect(d.close(first), "thanked by build 2", "settled by build 2")
}

// Runs that began before a change are found. When there are none left, the code for them
// can be removed.
func TestRunsOlderThanAChangeAreFound(t *testing.T) {
	t.Parallel()
	old, changed := newDeployment(t), newDeployment(t)
	closeBlocked := func(d *deployment, closeShow workflows.Workflow) zego.RoomClose {
		address := d.start(service.Parts{Webhook: true}, "", closeShow)
		d.start(service.Parts{Worker: true}, "", closeShow)
		return d.closeBlocked(address)
	}
	older, newer := closeBlocked(old, before{}.CloseShow), closeBlocked(changed, careful{}.CloseShow)
	query := "WorkflowType = 'CloseShow' AND ExecutionStatus = 'Running' AND (TemporalChangeVersion IS NULL OR TemporalChangeVersion != 'step gifts-1')"
	for closed, want := range map[zego.RoomClose]int64{older: 1, newer: 0} {
		if n := runs(t, old.temporal, query+" AND WorkflowId = '"+workflowID(closed)+"'"); n != want {
			t.Errorf("%d runs, want %d", n, want)
		}
	}
	if err := old.replays(newer, after{}.CloseShow); err != nil {
		t.Errorf("a run that began with the change: %v", err)
	}
}
