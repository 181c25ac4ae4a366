package simulation

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/workflows"
)

const taskQueue = "closeout"

// workerProcess is a process with the SDK's worker, the product's Workflows and its steps. Its
// requests to Temporal and their answers get lost, and its steps fail.
type workerProcess struct {
	k       *worker
	number  int
	dead    atomic.Bool
	calls   atomic.Int64
	ledger  *ledger.Ledger
	client  client.Client
	worker  sdkworker.Worker
	working sync.WaitGroup // attempts of steps
}

var silent = tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))

// startWorker starts a worker's process.
func (k *worker) startWorker() *workerProcess {
	k.lives++
	p := &workerProcess{k: k, number: k.lives}
	var err error
	if p.ledger, err = k.faultyLedger(k.lives, true); err != nil {
		panic(err)
	}
	if p.client, err = connect(silent, p.call); err != nil {
		panic(err)
	}
	for p.newWorker(); p.worker.Start() != nil; p.newWorker() { // Temporal didn't answer
		p.worker.Stop() // gives back its share of the SDK's cache
		time.Sleep(time.Second)
	}
	return p
}

// newWorker makes a worker as the product does.
func (p *workerProcess) newWorker() {
	p.worker = sdkworker.New(p.client, taskQueue, sdkworker.Options{WorkerStopTimeout: 2 * time.Minute,
		MaxConcurrentWorkflowTaskPollers: 2, MaxConcurrentActivityTaskPollers: 2})
	p.worker.RegisterActivity(&faultySteps{p, steps.Standard{
		Billing:    &steps.Billing{Ledger: p.ledger, Prices: p.k.billing.Prices, API: p.k.billing.API},
		Recordings: p.recordings(),
	}})
	for _, w := range append(workflows.All(), workflows.LateRecordings, Approved) {
		p.worker.RegisterWorkflow(w)
	}
	p.worker.RegisterWorkflowWithOptions(workflows.AdjustBill(route), workflow.RegisterOptions{Name: workflows.AdjustBillName})
}

// kill cuts the process off from Temporal and from its ledger, in whatever it does.
func (p *workerProcess) kill() {
	p.dead.Store(true)
	_ = p.ledger.Close()
	p.stop()
}

// stop stops the process.
func (p *workerProcess) stop() {
	p.worker.Stop()
	p.working.Wait()
	p.client.Close()
	if err := p.ledger.Close(); err != nil && !p.dead.Load() {
		p.k.w.broken("close the worker's ledger: %v", err)
	}
}

// call passes a request to Temporal. Some requests don't arrive, and some answers get lost.
func (p *workerProcess) call(ctx context.Context, request any) (proto.Message, error) {
	chance := p.k.w.chance("call", p.number, int(p.calls.Add(1)))
	if p.dead.Load() {
		return p.gone(ctx, request)
	}
	var failed error = serviceerror.NewUnavailable("simulated: connection lost")
	switch request.(type) {
	case *workflowservice.RecordActivityTaskHeartbeatRequest, *workflowservice.RespondWorkflowTaskCompletedRequest:
		// The SDK would repeat it with a mutex locked, for which virtual time doesn't go on.
		failed = serviceerror.NewNotFound("simulated: connection lost")
	}
	fault := chance.IntN(40)
	if fault == 0 {
		return nil, failed
	}
	answer, err := p.k.server.call(ctx, request)
	switch {
	case p.dead.Load():
		return p.gone(ctx, request)
	case fault == 1 && err == nil:
		return nil, failed
	}
	return answer, err
}

// gone answers a dead process. No answer makes the SDK repeat the request.
func (p *workerProcess) gone(ctx context.Context, request any) (proto.Message, error) {
	switch request.(type) {
	case *workflowservice.PollWorkflowTaskQueueRequest, *workflowservice.PollActivityTaskQueueRequest:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, serviceerror.NewNotFound("simulated: the process is dead")
}

// attempted counts the attempts of a step.
func (k *worker) attempted(step string, t activities.Task) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := step + " " + t.IdempotencyKey.String()
	k.attempts[key]++
	return k.attempts[key]
}

// work keeps a worker running until stop is closed. The first ones are killed.
func (k *worker) work(stop chan struct{}) {
	for {
		p := k.startWorker()
		chance := k.w.chance("worker", k.lives)
		var death <-chan time.Time
		if k.lives <= 3 {
			death = time.After(between(chance, 0, settling+time.Minute))
		}
		select {
		case <-stop:
			p.stop()
			return
		case <-death:
			p.kill()
		}
		select {
		case <-stop:
		case <-time.After(between(chance, 0, time.Minute)):
		}
	}
}

// maxRun bounds the time until all runs are closed: a step blocks after at most a day.
const maxRun = 30 * time.Hour

// awaitRuns waits until all runs are closed. Now and then an operator decides about blocked
// steps and makes runs searchable.
func (k *worker) awaitRuns() {
	k.starts.Wait()
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() { k.work(stop) })
	defer func() { close(stop); working.Wait() }()
	for deadline := time.Now().Add(maxRun); ; time.Sleep(20 * time.Second) {
		open := k.server.open()
		if len(open) == 0 || k.w.failed() {
			return
		}
		if time.Now().After(deadline) {
			k.w.broken("%s is open after %v:\n%s", open[0].id, maxRun, open[0].story())
			return
		}
		for _, r := range open {
			k.operate(r)
		}
	}
}

// operate does what people do about a run: approve it, decide if it is blocked, and index it if
// it has no Search Attributes.
func (k *worker) operate(r *serverRun) {
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	k.server.mu.Lock()
	state, indexed := string(r.attributes[workflows.CloseoutState.GetName()].GetData()), r.attributes[workflows.RoomID.GetName()] != nil
	k.server.mu.Unlock()
	k.visits++
	chance := k.w.chance("operate", k.visits)
	blocked := strings.Contains(state, string(workflows.StateBlocked))
	if r.start.WorkflowType.Name == workflows.Name(Approved) && (chance.IntN(100) == 0 || blocked && chance.IntN(4) == 0) {
		_ = k.client.SignalWorkflow(ctx, r.id, "", approval, Approval{By: "Ada"})
	}
	switch {
	case !indexed && !k.indexed[r.runID]:
		k.indexed[r.runID] = true
		_ = k.client.SignalWorkflow(ctx, r.id, "", workflows.SignalIndex, nil)
	case blocked && chance.IntN(3) > 0:
		update, decision := workflows.UpdateRetry, workflows.Decision{Reason: "mended"}
		switch chance.IntN(6) {
		case 0, 1:
			decision.Step = workflows.Billing.Name
		case 2:
			update, decision.Step = workflows.UpdateSkip, workflows.Recordings.Name
		case 3:
			decision.Reason = "" // is refused
		case 4:
			if k.w.recorded() { // some files never come
				update, decision.Step = workflows.UpdateSkip, workflows.Recordings.Name
			}
		}
		handle, err := k.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: r.id, UpdateName: update, Args: []any{decision}, WaitForStage: client.WorkflowUpdateStageCompleted})
		if err == nil {
			err = handle.Get(ctx, nil)
		}
		if err == nil && decision.Reason == "" {
			k.w.broken("%s took a decision without a reason", r.id)
		}
	}
}

// start starts the run of a session.
func (k *worker) start(e *execution) {
	k.starts.Go(func() {
		if _, err := k.client.ExecuteWorkflow(context.Background(), e.options, workflows.Name(route(e.input)), e.input); err != nil {
			k.w.broken("start %s: %v", e.options.ID, err)
		}
	})
}

// startAdjustment starts an adjustment's run, unless one is open.
func (k *worker) startAdjustment(ctx context.Context, s ledger.BilledSession) error {
	a := activities.Adjustment{Session: s.Session, Number: s.Number}
	_, err := k.client.ExecuteWorkflow(ctx, workflows.AdjustOptions(a, taskQueue), workflows.AdjustBillName, a)
	if started := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &started) {
		return nil
	}
	return err
}
