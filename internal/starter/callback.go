package starter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc"

	"github.com/closeouthq/closeout/internal/delivery"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Signaler sends Signals. Temporal's WorkflowServiceClient implements it. The SDK's client
// can't set the request ID that makes a repeated Signal count once.
type Signaler interface {
	SignalWorkflowExecution(ctx context.Context, r *workflowservice.SignalWorkflowExecutionRequest, _ ...grpc.CallOption) (*workflowservice.SignalWorkflowExecutionResponse, error)
}

// Signaled is the outcome of a callback that was sent to a run.
const Signaled = "signaled"

// decideTimeout bounds a function, because the sender of the callback waits for it.
const decideTimeout = 200 * time.Millisecond

// callbackPrefix begins the key of a callback in the inbox.
const callbackPrefix = "callback-"

// callbackKey returns the key of a callback in the inbox. Every delivery of the callback has
// the same key.
func callbackKey(c *workflows.Callback) string {
	sum := identify(c, c.Digest)
	return callbackPrefix + strconv.FormatUint(uint64(c.AppID), 10) + "-" + hex.EncodeToString(sum[:10])
}

// identify returns a hash of the app, the event and a key.
func identify(c *workflows.Callback, key string) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d %q %q", c.AppID, c.Event, key))
}

// undecidedError reports that a function has failed, or that its action can't be done yet.
type undecidedError struct {
	error
	verdict delivery.Verdict
}

func (e *undecidedError) Unwrap() error { return e.error }

// undecided wraps err so that the callback is tried again, or becomes a dead letter if it is
// overdue.
func undecided(err error, overdue bool) error {
	if overdue {
		return &undecidedError{err, delivery.Refused}
	}
	return &undecidedError{err, delivery.Later}
}

// ReceiveOther calls the function of [Options].Events for a callback. It returns after
// Temporal has done the function's action, or the inbox has the callback.
func (r *Receiver) ReceiveOther(ctx context.Context, o *zego.Other) (webhook.Receipt, error) {
	if r.starter.function(o.Event) == nil {
		return webhook.Receipt{Status: webhook.Ignored}, nil
	}
	c := &workflows.Callback{AppID: o.AppID, Event: o.Event, SentAt: o.SentAt(), Digest: hex.EncodeToString(o.Digest[:]), JSON: o.JSON}
	item := Item{Callback: c}
	action, err := r.starter.decide(ctx, c)
	var receipt webhook.Receipt
	var acted [32]byte
	switch {
	case err != nil: // the delivery calls the function again
		r.starter.Log.Error("function for callback failed, callback is queued and the function called again", "event", c.Event, "appid", c.AppID, "digest", c.Digest, "error", err)
	case action == (workflows.Action{}):
		return webhook.Receipt{Status: webhook.Ignored}, nil
	default:
		receipt.WorkflowID = action.WorkflowID
		acted = identify(c, cmp.Or(action.Key, c.Digest))
		if _, found := r.acted.Get(acted); found {
			receipt.Status = webhook.Duplicate
			return receipt, nil
		}
		item.action = &action
	}
	result, err := r.Delivery.Deliver(ctx, item)
	if err != nil {
		return webhook.Receipt{}, err
	}
	if item.action != nil {
		r.acted.Add(acted, struct{}{})
	}
	receipt.Status = webhook.Status(result.Outcome)
	switch {
	case result.Outcome == "":
		receipt.Status = webhook.Queued
	case result.Joined:
		receipt.Status = webhook.Duplicate
	}
	return receipt, nil
}

// function returns the function for an event, or nil.
func (s *Starter) function(event string) workflows.CallbackFunc {
	if f := s.Events[event]; f != nil {
		return f
	}
	return s.Events[workflows.OtherEvents]
}

// decide calls the function for a callback. It doesn't wait longer than decideTimeout.
func (s *Starter) decide(ctx context.Context, c *workflows.Callback) (workflows.Action, error) {
	f := s.function(c.Event)
	if f == nil {
		return workflows.Action{}, fmt.Errorf("this program has no function for the event %q", c.Event)
	}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	type decision struct {
		workflows.Action
		error
	}
	decided := make(chan decision, 1)
	go func() {
		var d decision
		defer func() {
			if fault := recover(); fault != nil {
				s.Log.Error("function for callback panicked", "event", c.Event, "appid", c.AppID, "panic", fault, "stack", string(debug.Stack()))
				d = decision{error: fmt.Errorf("the function for the event %q panicked: %v", c.Event, fault)}
			}
			decided <- d
		}()
		d.Action, d.error = f(ctx, *c)
	}()
	select {
	case d := <-decided:
		if d.error == nil {
			d.error = checkAction(d.Action)
		}
		return d.Action, d.error
	case <-ctx.Done():
		return workflows.Action{}, fmt.Errorf("the function for the event %q has not returned: %w", c.Event, context.Cause(ctx))
	}
}

// checkAction returns an error if an action is invalid.
func checkAction(a workflows.Action) error {
	switch {
	case a == (workflows.Action{}):
		return nil
	case a.WorkflowID == "":
		return errors.New("the action has no WorkflowID")
	case (a.Workflow != nil) == (a.Signal != ""):
		return errors.New("the action has both or none of Workflow and Signal, want one")
	case a.Workflow != nil && strings.HasPrefix(a.WorkflowID, session.WorkflowIDPrefix):
		return fmt.Errorf("the action starts %s, and Workflow IDs that begin with %s are reserved for sessions", a.WorkflowID, session.WorkflowIDPrefix)
	}
	return nil
}

// act does the action that the function for a callback decided on.
func (s *Starter) act(ctx context.Context, item Item, overdue bool) (outcome string, err error) {
	c, action := item.Callback, item.action
	if action == nil {
		decided, err := s.decide(ctx, c)
		if err != nil {
			return "", undecided(err, overdue)
		}
		action = &decided
	}
	switch {
	case action.Workflow != nil:
		started, err := s.Start(ctx, Request{Workflow: action.Workflow, Input: action.Input, AppID: c.AppID, Options: client.StartWorkflowOptions{
			ID: action.WorkflowID, TaskQueue: s.TaskQueue,
			WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
			WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
			WorkflowExecutionErrorWhenAlreadyStarted: true,
			Priority:                                 temporal.Priority{FairnessKey: strconv.FormatUint(uint64(c.AppID), 10)},
		}})
		if err == nil && !started {
			return Duplicate, nil
		}
		return Started, err
	case action.Signal != "":
		err := s.signal(ctx, c, action)
		if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
			err = undecided(fmt.Errorf("signal %q to %s: %w", action.Signal, action.WorkflowID, err), overdue)
		}
		return Signaled, err
	}
	return string(webhook.Ignored), nil
}

// signal sends a Signal. Its request ID makes repeated Signals count once.
func (s *Starter) signal(ctx context.Context, c *workflows.Callback, action *workflows.Action) error {
	var input *common.Payloads
	if action.Input != nil {
		var err error
		if input, err = s.Data.ToPayloads(action.Input); err != nil {
			return &undecidedError{fmt.Errorf("encode the input of signal %q: %w", action.Signal, err), delivery.Refused}
		}
	}
	sum := identify(c, cmp.Or(action.Key, c.Digest))
	_, err := s.Signaler.SignalWorkflowExecution(ctx, &workflowservice.SignalWorkflowExecutionRequest{
		Namespace: s.Namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: action.WorkflowID},
		SignalName: action.Signal, Input: input, RequestId: uuid.NewSHA1(uuid.Nil, sum[:]).String(), Identity: "closeout",
	})
	return err
}
