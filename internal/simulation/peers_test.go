package simulation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

// The answers of peers. All but slow are failures for the caller. With lost and late, the
// request took effect.
const (
	away          = "away"
	lost          = "took effect, answer lost"
	late          = "took effect, no answer"
	hangs         = "no effect, no answer"
	slow          = "slow"
	limited       = "resource exhausted"
	noNamespace   = "namespace not found"
	noAttributes  = "search attributes missing"
	serialization = "serialization failure"
	readOnly      = "read-only"
)

var (
	temporalAnswers = []string{away, lost, lost, late, hangs, slow, limited, noNamespace, noAttributes}
	ledgerAnswers   = []string{away, lost, lost, late, hangs, slow, serialization, readOnly}
)

// execution is a Workflow Execution.
type execution struct {
	options client.StartWorkflowOptions
	input   session.Session
	began   time.Time
}

// temporal is a fake Temporal server with faults. It keeps Temporal's guarantees about
// Workflow IDs.
type temporal struct {
	w     *world
	runs  map[string][]*execution // by Workflow ID: all runs ever started
	calls map[string]int
	now   int // calls in flight
}

// temporalOf is a process's client of temporal.
type temporalOf struct{ *process }

func (t temporalOf) ExecuteWorkflow(ctx context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	w, s := t.w, t.w.temporal
	input, ok := args[0].(session.Session)
	if !ok {
		return nil, fmt.Errorf("found input %T, want a session", args[0])
	}
	number := sessionOf(input.RoomSessionID)
	w.mu.Lock()
	s.calls[o.ID]++
	n := s.calls[o.ID]
	if s.now++; s.now > maxStarts || int64(s.now)<<10 > w.limits.memory {
		w.failf("%d starts at once, want at most %d and %d bytes", s.now, maxStarts, w.limits.memory)
	}
	w.mu.Unlock()
	var older []string
	if o.TypedSearchAttributes.Size() > 0 { // otherwise it is the second request of an attempt
		older = t.untried(o.ID)
	}
	defer func() { w.mu.Lock(); s.now--; w.mu.Unlock() }()

	answer := w.fault(temporalCall, temporalAway, func(a action) bool {
		return a.session == number && (a.nth == n || a.nth == 0 && w.isNow(a))
	})
	chance := w.chance("start", number, n)
	took := between(chance, time.Millisecond, 30*time.Millisecond)
	if answer == slow {
		took = between(chance, 100*time.Millisecond, 4*time.Second)
	}
	if !t.wait(ctx, took, chance.IntN(2) == 0) { // the request may arrive although its sender died
		return nil, t.gone(ctx)
	}
	t.checkOrder(o.ID, older)
	if w.refuses(o.ID) {
		t.note("temporal", "start", o.ID, "refused")
		return nil, serviceerror.NewInvalidArgument("simulated: this one never")
	}
	switch answer {
	case away:
		t.note("temporal", "start", o.ID, answer)
		return nil, serviceerror.NewUnavailable("simulated: away")
	case limited:
		t.note("temporal", "start", o.ID, answer)
		return nil, serviceerror.NewResourceExhausted(enums.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "simulated")
	case noNamespace:
		t.note("temporal", "start", o.ID, answer)
		return nil, serviceerror.NewNamespaceNotFound("simulated")
	case noAttributes:
		if o.TypedSearchAttributes.Size() > 0 {
			t.checkOverdue(o.ID)
			t.note("temporal", "start", o.ID, answer)
			return nil, serviceerror.NewInvalidArgument("simulated: no such search attribute")
		}
	case hangs:
		t.note("temporal", "start", o.ID, answer)
		t.wait(ctx, time.Hour, false)
		return nil, t.gone(ctx)
	}
	err := s.start(o, input)
	switch answer {
	case lost:
		t.note("temporal", "start", o.ID, answer)
		return nil, serviceerror.NewUnavailable("simulated: connection reset")
	case late:
		t.note("temporal", "start", o.ID, answer)
		t.wait(ctx, time.Hour, false)
		return nil, t.gone(ctx)
	}
	if !t.wait(ctx, between(chance, time.Millisecond, 10*time.Millisecond), false) {
		return nil, t.gone(ctx)
	}
	if err != nil {
		t.note("temporal", "start", o.ID, "already started")
	} else {
		t.note("temporal", "start", o.ID, "started")
	}
	return nil, err
}

// start starts a run, if the policies of the options allow it.
func (s *temporal) start(o client.StartWorkflowOptions, input session.Session) error {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := s.runs[o.ID]; len(old) > 0 {
		open := time.Since(old[len(old)-1].began) < settling+time.Minute
		switch {
		case open && o.WorkflowIDConflictPolicy == enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING:
		case open && o.WorkflowIDConflictPolicy == enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
			return nil
		case !open && o.WorkflowIDReusePolicy == enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE:
		case o.WorkflowExecutionErrorWhenAlreadyStarted:
			return serviceerror.NewWorkflowExecutionAlreadyStarted("simulated", "", "")
		default:
			return nil // the SDK returns the existing run
		}
	}
	if first := w.began.Add(w.firstAt[o.ID]); o.TypedSearchAttributes.Size() == 0 && time.Since(first) < idle && !w.refused[o.ID] && !w.diskFaults() {
		w.failf("%s was started without search attributes %v after it came", o.ID, time.Since(first))
	}
	e := &execution{o, input, time.Now()}
	s.runs[o.ID] = append(s.runs[o.ID], e)
	if w.worker != nil {
		w.worker.start(e)
	}
	return nil
}

func (t temporalOf) DescribeWorkflowExecution(ctx context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if !t.wait(ctx, between(t.w.chance("describe"+id), time.Millisecond, 20*time.Millisecond), false) {
		return nil, t.gone(ctx)
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	runs := t.w.temporal.runs[id]
	if len(runs) == 0 {
		return nil, serviceerror.NewNotFound("simulated")
	}
	memo := &common.Memo{Fields: map[string]*common.Payload{}}
	for name, v := range runs[len(runs)-1].options.Memo {
		p, err := converter.GetDefaultDataConverter().ToPayload(v)
		if err != nil {
			return nil, err
		}
		memo.Fields[name] = p
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflow.WorkflowExecutionInfo{
		Status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING, Memo: memo,
	}}, nil
}

// books is a fake ledger with faults. It may store an event although its answer is an error.
type books struct {
	w      *world
	store  eventsink.Store // the real ledger, or nil
	stored map[string]int  // by key
	calls  int
}

// booksOf is a process's client of books.
type booksOf struct{ *process }

func (b booksOf) Record(ctx context.Context, events []ledger.Event) error {
	w, s := b.w, b.w.books
	w.mu.Lock()
	s.calls++
	n := s.calls
	w.mu.Unlock()
	if len(events) > w.limits.batch {
		w.failf("%d events in a transaction, want at most %d", len(events), w.limits.batch)
	}
	answer := w.fault(ledgerCall, ledgerAway, func(a action) bool { return a.nth == n })
	chance := w.chance("record", n)
	took := between(chance, time.Millisecond, 20*time.Millisecond)
	if answer == slow {
		took = between(chance, 100*time.Millisecond, 4*time.Second)
	}
	if !b.wait(ctx, took, chance.IntN(2) == 0) {
		return b.gone(ctx)
	}
	note := func(outcome string) { b.note("ledger", "record", fmt.Sprint(len(events)), outcome) }
	switch answer {
	case away:
		note(answer)
		return errors.New("simulated: connection refused")
	case serialization:
		note(answer)
		return &pgconn.PgError{Code: "40001"}
	case readOnly:
		note(answer)
		return &pgconn.PgError{Code: "25006"}
	case hangs:
		note(answer)
		b.wait(ctx, time.Hour, false)
		return b.gone(ctx)
	}
	for _, e := range events {
		if w.refuses(factsOf(e)) {
			note("refused")
			return &pgconn.PgError{Code: "22001"}
		}
	}
	if err := s.record(events); err != nil {
		return err
	}
	switch answer {
	case lost:
		note(answer)
		return errors.New("commit: simulated: connection reset")
	case late:
		note(answer)
		b.wait(ctx, time.Hour, false)
		return b.gone(ctx)
	}
	note("stored")
	return nil
}

func (s *books) record(events []ledger.Event) error {
	if s.store != nil {
		if err := s.store.Record(context.Background(), events); err != nil {
			return err
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for _, e := range events {
		s.stored[factsOf(e)]++
	}
	return nil
}

func (b booksOf) Probe(ctx context.Context) error {
	if !b.wait(ctx, between(b.w.chance("probe"), time.Millisecond, 10*time.Millisecond), false) {
		return b.gone(ctx)
	}
	if b.w.fault(ledgerCall, ledgerAway, func(action) bool { return false }) != "" {
		return errors.New("simulated: away")
	}
	return nil
}

var _ eventsink.Store = booksOf{}
