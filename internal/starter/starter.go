// Package starter starts Workflows: for callbacks, for sessions without a room_close, for
// adjustments and for late recordings. It is the sink of room_close callbacks.
package starter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc/status"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/internal/outage"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Temporal starts and describes runs. A [client.Client] implements it.
type Temporal interface {
	ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
}

// Options configure a [Starter].
type Options struct {
	// Temporal starts the Workflows.
	Temporal Temporal
	// TaskQueue is the Task Queue of the workers.
	TaskQueue string
	// Data reads the memos of runs. Default: the SDK's converter.
	Data converter.DataConverter
	// Route returns the Workflow of a session. Default: [workflows.RoomClose].
	Route func(session.Session) workflows.Workflow
	// Immediate, if set, reports whether a Workflow starts as soon as its room closes.
	// Others start after Settling.
	Immediate func(workflows.Workflow) bool
	// Settling is the time after a room_close in which ZEGO may still retry callbacks of
	// the session.
	Settling time.Duration
	// Weights are the apps' shares of the workers, by app ID. Default: 1.
	Weights map[uint32]float32
	// Eager lets a worker of the same client begin a run without a round trip.
	Eager bool
	// Events maps names of events, or [workflows.OtherEvents], to the functions that decide
	// about their callbacks. Signaler sends the Signals of their actions, in Namespace.
	Events    map[string]workflows.CallbackFunc
	Signaler  Signaler
	Namespace string
	// Log gets log lines for operators.
	Log *slog.Logger
	// Observe, if set, is called with "contradicted" for a duplicate that contradicts the
	// first room_close of its session, and with "ended" if the run of a duplicate has ended
	// without closing out the session.
	Observe func(outcome string)
	// Contradicted, if set, stores a room_close that contradicts the first of its session.
	Contradicted func(context.Context, session.Session) error
}

// Item is delivered by a [Starter]: either a closed session, or a callback for a function of
// [Options].Events.
type Item struct {
	*session.Session
	Callback *workflows.Callback `json:"callback,omitempty"`

	action *workflows.Action // the function's decision, or nil if it must be called
}

// Starter starts Workflows. It is a [delivery.Sink] of items.
type Starter struct {
	Options
	unset    *outage.Outage // missing search attributes
	checks   chan struct{}  // limits concurrent checks of runs
	checking sync.WaitGroup
}

var _ delivery.Sink[Item] = (*Starter)(nil)

// New returns a Starter.
func New(o Options) *Starter {
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	if o.Route == nil {
		o.Route = func(session.Session) workflows.Workflow { return workflows.RoomClose }
	}
	if o.Data == nil {
		o.Data = converter.GetDefaultDataConverter()
	}
	return &Starter{
		Options: o, checks: make(chan struct{}, maxChecks),
		unset: outage.New(o.Log, "search attributes", "callbacks wait in the inbox for a minute, then runs start without them"),
	}
}

// Request is a Workflow to start.
type Request struct {
	Options  client.StartWorkflowOptions
	Workflow any
	Input    any
	// AppID selects the weight.
	AppID uint32
	// Searchable makes Start fail if the Namespace lacks the search attributes. Otherwise
	// Start starts the run without them.
	Searchable bool
}

// Start starts a Workflow. It returns false if the Workflow ID has a run already, open or
// closed.
func (s *Starter) Start(ctx context.Context, r Request) (started bool, err error) {
	r.Options.Priority.FairnessWeight = s.Weights[r.AppID]
	_, err = s.Temporal.ExecuteWorkflow(ctx, r.Options, r.Workflow, r.Input)
	if invalid := new(serviceerror.InvalidArgument); errors.As(err, &invalid) {
		if r.Searchable && strings.Contains(strings.ToLower(invalid.Message), "search attribute") {
			return false, fmt.Errorf("%w: %w", errNotSetUp, err)
		}
		s.Log.Error("start refused, trying without search attributes", "workflow_id", r.Options.ID, "error", err)
		r.Options.TypedSearchAttributes = temporal.SearchAttributes{}
		_, err = s.Temporal.ExecuteWorkflow(ctx, r.Options, r.Workflow, r.Input)
	}
	if exists := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &exists) {
		return false, nil
	}
	return err == nil, err
}

// Close starts the Workflow of a session without a room_close. If the session has a run that
// is running or completed, Close returns nil. If its run ended otherwise, the error is an
// [*EndedError].
func (s *Starter) Close(ctx context.Context, closed session.Session) error {
	r, err := s.request(closed)
	if err != nil {
		return err
	}
	started, err := s.Start(ctx, r)
	if err != nil || started {
		return err
	}
	return Ended(ctx, s.Temporal, r.Options.ID)
}

// request returns the Request that closes out a session.
func (s *Starter) request(closed session.Session) (Request, error) {
	workflow, err := s.route(closed)
	if err != nil {
		return Request{}, err
	}
	closed.Settling = session.Duration(s.Settling)
	options := workflows.StartOptions(closed, s.TaskQueue)
	if s.Immediate != nil && s.Immediate(workflow) {
		options.StartDelay = 0
	}
	options.EnableEagerStart = s.Eager && options.StartDelay == 0
	return Request{Options: options, Workflow: workflow, Input: closed, AppID: closed.AppID}, nil
}

// route calls Route. It returns a panic as an error, because the panic would end the process
// each time the callback is tried again.
func (s *Starter) route(closed session.Session) (w workflows.Workflow, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.Log.Error("Route panicked", "workflow_id", closed.WorkflowID(), "panic", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errRoute, fault)
		}
	}()
	return s.Route(closed), nil
}

var (
	errNotSetUp = errors.New("the Namespace lacks search attributes; run closeout setup")
	errRoute    = errors.New("the function Route panicked")
	errEmpty    = errors.New("neither a session nor a callback")
)

// EndedError reports that a session's run has ended without closing it out.
type EndedError struct {
	// WorkflowID is the session's Workflow ID, and Status is Temporal's name of the status.
	WorkflowID, Status string
}

// Error implements error.
func (e *EndedError) Error() string {
	return fmt.Sprintf("run %s has ended as %s without closing out its session; reset it to its first Workflow Task, in the Web UI", e.WorkflowID, e.Status)
}

// Ended returns an [*EndedError] if the newest run of a Workflow was terminated or
// canceled, or has failed or timed out. It returns nil for a running or completed run.
func Ended(ctx context.Context, t Temporal, workflowID string) error {
	answer, err := t.DescribeWorkflowExecution(ctx, workflowID, "")
	if err != nil {
		return fmt.Errorf("describe run %s: %w", workflowID, err)
	}
	return ended(answer, workflowID)
}

func ended(answer *workflowservice.DescribeWorkflowExecutionResponse, workflowID string) error {
	switch status := answer.GetWorkflowExecutionInfo().GetStatus(); status {
	case enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, enums.WORKFLOW_EXECUTION_STATUS_CANCELED,
		enums.WORKFLOW_EXECUTION_STATUS_FAILED, enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return &EndedError{workflowID, status.String()}
	}
	return nil
}

// The outcomes of deliveries, for metrics.
const (
	Started   = "started"
	Duplicate = "duplicate"
)

// startTimeout bounds a start. Senders don't wait that long, only entries of the inbox do.
const startTimeout = 5 * time.Second

// Key implements [delivery.Sink].
func (s *Starter) Key(item Item) string {
	if item.Callback != nil {
		return callbackKey(item.Callback)
	}
	return item.WorkflowID()
}

// Fault implements [delivery.Sink]. Only starts show whether Temporal takes them.
func (s *Starter) Fault() error { return nil }

// Deliver implements [delivery.Sink].
func (s *Starter) Deliver(ctx context.Context, item Item, overdue bool, done func(string, error)) {
	go func() {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		if item.Callback != nil {
			done(s.act(ctx, item, overdue))
			return
		}
		if item.Session == nil {
			done("", errEmpty)
			return
		}
		closed := *item.Session
		r, err := s.request(closed)
		if err != nil {
			done("", err)
			return
		}
		r.Searchable = !overdue
		started, err := s.Start(ctx, r)
		switch {
		case errors.Is(err, errNotSetUp):
			s.unset.Fail(err)
			done("", err)
		case err != nil:
			done("", err)
		case started:
			if r.Searchable {
				s.unset.End()
			}
			done(Started, nil)
		default:
			s.checking.Go(func() { s.checkRun(r.Options.ID, closed) })
			done(Duplicate, nil)
		}
	}()
}

// Judge implements [delivery.Sink]. It refuses a start that Temporal or the SDK finds
// invalid. All other errors may pass: an outage, a limit, a missing Namespace or permission.
func (s *Starter) Judge(err error) delivery.Verdict {
	var answered serviceerror.ServiceError
	undecided := new(undecidedError)
	switch invalid := new(serviceerror.InvalidArgument); {
	case errors.As(err, &undecided):
		return undecided.verdict
	case errors.Is(err, errNotSetUp):
		return delivery.Later
	case errors.Is(err, errRoute), errors.As(err, &invalid):
		return delivery.Refused
	// gRPC refuses too large messages with this text. Temporal's own limits have a cause.
	case strings.Contains(err.Error(), "message larger than max"):
		return delivery.Refused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &answered):
		return delivery.Unavailable
	}
	if _, transport := status.FromError(err); transport {
		return delivery.Unavailable
	}
	return delivery.Refused
}
