package intake

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc/status"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// attempt is a start that is under way, or was.
type attempt struct {
	done chan struct{}
	// The following are set when done is closed: what became of it, and whether
	// Temporal will never take it.
	status  webhook.Status
	err     error
	refused bool
}

// wait says whether the attempt ended within that time.
func (a *attempt) wait(ctx context.Context, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-a.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-a.done: // at the same moment
		return true
	default:
		return false
	}
}

// attempt starts the session's workflow, unless there is enough to do or Temporal
// is away. It joins a start of the same session that is under way.
func (i *Intake) attempt(ctx context.Context, id string, s activities.Session, until time.Time) (a *attempt, joined bool) {
	i.mu.Lock()
	a = i.inFlight[id]
	i.mu.Unlock()
	if a != nil {
		return a, true
	}
	// In a burst it is best to get everything in. What isn't taken now is lost, and
	// what is can be started later.
	if i.Inbox.Crowded() {
		return nil, false
	}
	permit, ok := i.limiter.TryAcquirePermit()
	if !ok && !i.busy() && i.limiter.Queued() < mostWaiting {
		// A place will be free soon, and to wait for it is less work than to queue.
		var err error
		permit, err = i.limiter.AcquirePermitWithMaxWait(ctx, time.Until(until)/2)
		ok = err == nil
	}
	if !ok {
		return nil, false
	}
	return i.enter(id, s, permit, false, false)
}

// attemptWithin is attempt for a caller that can wait until ctx ends.
func (i *Intake) attemptWithin(ctx context.Context, id string, s activities.Session) (*attempt, error) {
	permit, err := i.limiter.AcquirePermit(ctx)
	if err != nil {
		return nil, errors.Join(errors.New("no place for another start"), err)
	}
	a, _ := i.enter(id, s, permit, false, true)
	if a == nil {
		return nil, errors.New("the last starts failed")
	}
	return a, nil
}

// enter begins a start for which the limiter has a place, or joins one of the
// same session. It gives none if the breaker is against it.
func (i *Intake) enter(id string, s activities.Session, permit adaptivelimiter.Permit, relayed, bare bool) (a *attempt, joined bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.inFlight[id]; a != nil {
		permit.Drop()
		return a, true
	}
	// The last to be asked: what the breaker permits has to be reported to it.
	if !i.breaker.TryAcquirePermit() {
		permit.Drop()
		return nil, false
	}
	return i.begin(id, s, permit, relayed, bare), false
}

// begin starts the workflow in the background, if need be bare of search
// attributes. It is called with the lock held, and with the limiter's and the
// breaker's permission.
func (i *Intake) begin(id string, s activities.Session, permit adaptivelimiter.Permit, relayed, bare bool) *attempt {
	a := &attempt{done: make(chan struct{})}
	i.inFlight[id] = a
	count := &i.direct
	if relayed {
		count = &i.relayed
	}
	count.Add(1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		began := time.Now()
		a.status, a.err = i.start(ctx, s, bare)
		a.refused = a.err != nil && refusal(a.err)
		switch {
		case a.err == nil:
			permit.Record()
			took := time.Since(began)
			i.fastest.add(took)
			i.trouble.succeed(took <= i.patienceBusy())
			i.breaker.RecordSuccess()
			i.recovered()
			i.Observe(string(a.status), relayed)
			if a.status == webhook.Duplicate {
				i.settling.Go(func() { i.look(id, s, relayed) })
			}
		case a.refused || errors.Is(a.err, errNotSetUp):
			permit.Record()
			i.breaker.RecordSuccess() // Temporal is there
			i.recovered()
			i.Observe("refused", relayed)
		default:
			// How long a failure took says nothing of how much Temporal can take.
			permit.Drop()
			i.breaker.RecordFailure()
			if !i.breaker.IsClosed() {
				i.outage.Fail(a.err)
			}
			i.trouble.fail()
			i.Observe("failed", relayed)
		}
		i.mu.Lock()
		delete(i.inFlight, id)
		i.mu.Unlock()
		count.Add(-1)
		close(a.done)
		select {
		case i.ended <- struct{}{}:
		default: // the relay looks anyway
		}
	}()
	return a
}

// recovered ends the outage once the breaker lets all starts through.
func (i *Intake) recovered() {
	if i.breaker.IsClosed() {
		i.outage.End()
	}
}

// maxLooks is how many runs of duplicates are looked at at once. A retry is mostly
// answered from memory; after an outage many come, and to start runs comes first.
const maxLooks = 8

// lookTimeout bounds a look with its wait for others, and so how long a stop waits. A
// thousand duplicates at once take less.
const lookTimeout = 10 * time.Second

// look compares a duplicate with the run of its session: another process, or this one
// before a restart, may have started it for another room or close time. It also warns
// of a run that has ended without closing out its session: Temporal refuses to start
// another, so nobody would do anything about it.
func (i *Intake) look(id string, s activities.Session, relayed bool) {
	if i.Describe == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	select {
	case i.looks <- struct{}{}:
		defer func() { <-i.looks }()
	case <-ctx.Done():
		i.Log.Warn("duplicate not compared with its run", "workflow_id", id, "room_id", s.RoomID, "room_close_time", s.RoomCloseTime)
		return
	}
	answer, err := i.Describe.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		i.Log.Warn("duplicate not compared with its run", "workflow_id", id, "room_id", s.RoomID, "room_close_time", s.RoomCloseTime, "error", err)
		return
	}
	if first, ok := i.closingOfRun(answer.GetWorkflowExecutionInfo(), s); ok {
		i.compare(first, s, relayed)
	}
	if err := ended(answer, id); err != nil {
		i.Observe("ended", relayed)
		i.Log.Error("a callback came for a session whose run has ended without closing it out", "workflow_id", id, "error", err)
	}
}

// closingOfRun returns what a run was told by the room_close that started it, as its
// memo has it. Of a session that was found gone nobody knows the close time, and of one
// whose time can't be it was replaced: there only the room is compared.
func (i *Intake) closingOfRun(run *workflow.WorkflowExecutionInfo, s activities.Session) (closing, bool) {
	memo := run.GetMemo().GetFields()
	text := func(name string) (value string) {
		if payload := memo[name]; payload != nil {
			_ = i.Data.FromPayload(payload, &value) // encrypted with a key that we lack
		}
		return value
	}
	room, told := text("room_id"), text("room_close_time")
	if room == "" {
		return closing{}, false
	}
	first := closingOf(activities.Session{RoomID: room})
	first.time = closingOf(s).time
	if t, err := time.Parse(time.RFC3339Nano, told); err == nil && memo["reconciled"] == nil && s.CloseTimeTold.IsZero() {
		first.time = t.UnixMilli()
	}
	return first, true
}

// Describer tells of a run. A Temporal client is one.
type Describer interface {
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
}

// EndedError means that a session's run has ended without closing it out.
type EndedError struct {
	// WorkflowID names the session, and Status is Temporal's word for the end.
	WorkflowID, Status string
}

// Error implements error.
func (e *EndedError) Error() string {
	return fmt.Sprintf("run %s has ended as %s without closing out its session; reset it to its first workflow task, in the Web UI", e.WorkflowID, e.Status)
}

// Ended returns an [*EndedError] if the newest run of a workflow was terminated or
// canceled, or has failed or timed out. One that is under way or completed is fine.
func Ended(ctx context.Context, temporal Describer, workflowID string) error {
	answer, err := temporal.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return fmt.Errorf("ask Temporal what became of run %s: %w", workflowID, err)
	}
	return ended(answer, workflowID)
}

func ended(answer *workflowservice.DescribeWorkflowExecutionResponse, workflowID string) error {
	switch status := answer.GetWorkflowExecutionInfo().GetStatus(); status {
	case enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, enums.WORKFLOW_EXECUTION_STATUS_CANCELED, enums.WORKFLOW_EXECUTION_STATUS_FAILED, enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return &EndedError{workflowID, status.String()}
	}
	return nil
}

// errNotSetUp means that the namespace lacks the search attributes.
var errNotSetUp = errors.New("the namespace lacks search attributes; run `closeout setup`")

// Start starts a session's workflow for one that no callback has told of, just as
// an [Intake] would. It is no error if there is one that is under way or completed;
// of one that has ended otherwise, the error is an [*EndedError]. Of the options it
// needs Temporal, Describe, TaskQueue, Route, Weights and Log.
func Start(ctx context.Context, o Options, s activities.Session) (webhook.Status, error) {
	status, err := o.start(ctx, s, true)
	if err == nil && status == webhook.Duplicate {
		err = Ended(ctx, o.Describe, workflows.WorkflowID(s))
	}
	return status, err
}

// Adjust starts the workflow of an adjustment as [Start] does that of a session. It
// needs the same options but Route.
func Adjust(ctx context.Context, o Options, a activities.Adjustment) error {
	_, err := o.execute(ctx, workflows.AdjustOptions(a, o.TaskQueue), a.Session.AppID, true, workflows.AdjustBill, a)
	return err
}

// AddLate starts the workflow that adds late recordings to a session's archive, as
// [Adjust] does its own. It tells whether it did, or one was running.
func AddLate(ctx context.Context, o Options, s activities.Session) (started bool, err error) {
	status, err := o.execute(ctx, workflows.LateRecordingsOptions(s, o.TaskQueue), s.AppID, true, workflows.LateRecordings, s)
	return status == webhook.Started, err
}

// start starts the session's workflow. It is no error if there is one already.
func (o *Options) start(ctx context.Context, s activities.Session, bare bool) (webhook.Status, error) {
	workflow, err := o.route(s)
	if err != nil {
		return "", err
	}
	s.Settling = activities.Duration(o.Settling)
	options := workflows.StartOptions(s, o.TaskQueue)
	if o.Immediate != nil && o.Immediate(workflow) {
		options.StartDelay = 0
	}
	options.EnableEagerStart = o.Eager && options.StartDelay == 0
	return o.execute(ctx, options, s.AppID, bare, workflow, s)
}

// execute starts a workflow with the weight of its app, and if need be bare of
// search attributes. It is no error if there is one already.
func (o *Options) execute(ctx context.Context, options client.StartWorkflowOptions, appID uint32, bare bool, workflow, arg any) (webhook.Status, error) {
	options.Priority.FairnessWeight = o.Weights[appID]
	_, err := o.Temporal.ExecuteWorkflow(ctx, options, workflow, arg)
	if invalid := new(serviceerror.InvalidArgument); errors.As(err, &invalid) {
		if !bare && strings.Contains(strings.ToLower(invalid.Message), "search attribute") {
			return "", fmt.Errorf("%w: %w", errNotSetUp, err)
		}
		o.Log.Error("Temporal refused the start, trying without search attributes", "workflow_id", options.ID, "error", err)
		options.TypedSearchAttributes = temporal.SearchAttributes{}
		_, err = o.Temporal.ExecuteWorkflow(ctx, options, workflow, arg)
	}
	if started := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &started) {
		return webhook.Duplicate, nil
	}
	if err != nil {
		return "", err
	}
	return webhook.Started, nil
}

// errRoute means that nobody knows which workflow a session should have.
var errRoute = errors.New("the route to a workflow panicked")

// route chooses the workflow. What a panic would do here is to end the process,
// again and again.
func (o *Options) route(s activities.Session) (w workflows.Workflow, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			o.Log.Error("the route to a workflow panicked; the callback is set aside", "workflow_id", workflows.WorkflowID(s), "panic", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errRoute, fault)
		}
	}()
	return o.Route(s), nil
}

// refusal says whether it will be the same however often Temporal is asked: it
// found the request invalid, or the SDK couldn't even make one of it. All
// else may pass: an outage, a limit, a namespace or a permission that is missing.
func refusal(err error) bool {
	if errors.Is(err, errNotSetUp) {
		return false
	}
	if errors.Is(err, errRoute) {
		return true
	}
	if invalid := new(serviceerror.InvalidArgument); errors.As(err, &invalid) {
		return true
	}
	// gRPC's own answer to what is too large for it; Temporal's limits have a cause.
	if strings.Contains(err.Error(), "message larger than max") {
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	var answered serviceerror.ServiceError
	if errors.As(err, &answered) {
		return false
	}
	_, transport := status.FromError(err)
	return !transport
}

// fastest knows how long a start took at its best, among the last some hundred.
type fastest struct {
	mu           sync.Mutex
	n            int
	best, former time.Duration // of this window and of the one before; 0: none yet
}

const fastestWindow = 100

func (f *fastest) add(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == fastestWindow {
		f.n, f.best, f.former = 0, 0, f.best
	}
	f.n++
	if f.best == 0 || took < f.best {
		f.best = took
	}
}

// get gives that duration, or 0 if none is known.
func (f *fastest) get() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.best == 0 || f.former != 0 && f.former < f.best {
		return f.former
	}
	return f.best
}
