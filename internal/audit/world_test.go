package audit_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

const (
	running    = enums.WORKFLOW_EXECUTION_STATUS_RUNNING
	completed  = enums.WORKFLOW_EXECUTION_STATUS_COMPLETED
	terminated = enums.WORKFLOW_EXECUTION_STATUS_TERMINATED
)

// execution is a run in fakeTemporal.
type execution struct {
	id, runID, first string
	workflow         string
	session          session.Session
	status           enums.WorkflowExecutionStatus
	state            workflows.State
	problems         []string
	start            time.Time
	result           any
	returned         map[string]any // results of Activities, by name
	bare             bool           // has no memo and no Search Attributes

	listed  bool                          // is in visibility, which may lag behind
	visible enums.WorkflowExecutionStatus // status in visibility
}

// fakeTemporal stores runs. It lists those in its visibility store, two to a page.
type fakeTemporal struct {
	client.Client
	mu   sync.Mutex
	runs []*execution
	page int
	// describing, if set, is called before a run is described.
	describing func(id string)
	fail       error
	described  int
}

func (f *fakeTemporal) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	matches := func(e *execution) bool { return strings.HasPrefix(e.id, "room-close-") }
	if strings.HasPrefix(r.Query, "WorkflowId STARTS_WITH 'bill-adjustment-' AND ExecutionStatus = 'Completed'") {
		matches = func(e *execution) bool { return strings.HasPrefix(e.id, "bill-adjustment-") && e.status == completed }
	} else if id, ok := strings.CutPrefix(r.Query, "WorkflowId = '"); ok {
		matches = func(e *execution) bool { return e.id+"'" == id }
	} else if _, since, ok := strings.Cut(r.Query, " AND StartTime >= "); ok {
		t, err := time.Parse("'"+time.RFC3339Nano+"'", since)
		if err != nil {
			return nil, serviceerror.NewInvalidArgument(err.Error())
		}
		matches = func(e *execution) bool { return strings.HasPrefix(e.id, "room-close-") && !e.start.Before(t) }
	} else if r.Query != "WorkflowId STARTS_WITH 'room-close-'" {
		return nil, serviceerror.NewInvalidArgument("query: " + r.Query)
	}
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	at, _ := strconv.Atoi(string(r.NextPageToken))
	for ; at < len(f.runs) && len(answer.Executions) < f.page; at++ {
		if e := f.runs[at]; e.listed && matches(e) {
			answer.Executions = append(answer.Executions, e.info(e.visible))
		}
	}
	if at < len(f.runs) {
		answer.NextPageToken = []byte(strconv.Itoa(at))
	}
	return answer, nil
}

func (f *fakeTemporal) DescribeWorkflowExecution(_ context.Context, id, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if f.describing != nil {
		f.describing(id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.described++
	e := f.find(id, runID)
	if e == nil {
		return nil, serviceerror.NewNotFound("workflow execution not found")
	}
	info := e.info(e.status)
	info.FirstRunId = e.first // visibility lacks it
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: info}, nil
}

// find returns the run with the ID and run ID, or the latest one if runID is empty.
func (f *fakeTemporal) find(id, runID string) *execution {
	for _, e := range slices.Backward(f.runs) {
		if e.id == id && (runID == "" || e.runID == runID) {
			return e
		}
	}
	return nil
}

func (f *fakeTemporal) GetWorkflow(_ context.Context, id, runID string) client.WorkflowRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	return outcome{f.find(id, runID)}
}

// GetWorkflowHistory returns a history with the results of the run's Activities.
func (f *fakeTemporal) GetWorkflowHistory(_ context.Context, id, runID string, _ bool, _ enums.HistoryEventFilterType) client.HistoryEventIterator {
	f.mu.Lock()
	defer f.mu.Unlock()
	events := &events{}
	if e := f.find(id, runID); e != nil {
		for name, returned := range e.returned {
			n := int64(len(events.left) + 1)
			events.left = append(events.left,
				&history.HistoryEvent{EventId: n, EventTime: timestamppb.New(e.start), Attributes: &history.HistoryEvent_ActivityTaskScheduledEventAttributes{
					ActivityTaskScheduledEventAttributes: &history.ActivityTaskScheduledEventAttributes{ActivityType: &common.ActivityType{Name: name}}}},
				&history.HistoryEvent{EventId: n + 1, EventTime: timestamppb.New(e.start), Attributes: &history.HistoryEvent_ActivityTaskCompletedEventAttributes{
					ActivityTaskCompletedEventAttributes: &history.ActivityTaskCompletedEventAttributes{ScheduledEventId: n, Result: &common.Payloads{Payloads: []*common.Payload{payload(returned)}}}}})
		}
	}
	return events
}

// events iterates over the events of a history.
type events struct{ left []*history.HistoryEvent }

func (e *events) HasNext() bool { return len(e.left) > 0 }

func (e *events) Next() (next *history.HistoryEvent, _ error) {
	next, e.left = e.left[0], e.left[1:]
	return next, nil
}

// deleted is the result of a run that Temporal deletes before its result is read.
const deleted = "deleted"

// outcome is the client's handle of a run.
type outcome struct{ *execution }

func (o outcome) GetID() string { return o.id }

func (o outcome) GetRunID() string { return o.runID }

func (o outcome) GetFirstExecutionRunID() string { return o.first }

func (o outcome) Get(_ context.Context, to any) error {
	if o.execution == nil || o.status != completed || o.result == deleted {
		return serviceerror.NewNotFound("no completed run")
	}
	if o.result == nil {
		return nil
	}
	return converter.GetDefaultDataConverter().FromPayload(payload(o.result), to)
}

func (o outcome) GetWithOptions(ctx context.Context, to any, _ client.WorkflowRunGetOptions) error {
	return o.Get(ctx, to)
}

func payload(v any) *common.Payload {
	p, err := converter.GetDefaultDataConverter().ToPayload(v)
	if err != nil {
		panic(err)
	}
	return p
}

// info returns Temporal's description of a run that Closeout started.
func (e *execution) info(status enums.WorkflowExecutionStatus) *workflow.WorkflowExecutionInfo {
	info := &workflow.WorkflowExecutionInfo{
		Execution: &common.WorkflowExecution{WorkflowId: e.id, RunId: e.runID},
		Type:      &common.WorkflowType{Name: e.workflow},
		Status:    status, StartTime: timestamppb.New(e.start),
		Memo: &common.Memo{Fields: map[string]*common.Payload{}}, SearchAttributes: &common.SearchAttributes{},
	}
	if !e.bare {
		for name, value := range workflows.StartOptions(e.session, "q").Memo {
			info.Memo.Fields[name] = payload(value)
		}
		info.SearchAttributes.IndexedFields = map[string]*common.Payload{workflows.CloseoutState.GetName(): payload(string(e.state)), workflows.RoomID.GetName(): payload(e.session.RoomID)}
		if e.problems != nil {
			info.SearchAttributes.IndexedFields["TemporalReportedProblems"] = payload(e.problems)
		}
	}
	return info
}

// fakeInbox is an inbox in memory.
type fakeInbox struct {
	mu      sync.Mutex
	entries []inbox.Entry
	// reading, if set, is called before each read, with the number of earlier reads.
	reading func(before int)
	reads   int
	fail    error
}

func (f *fakeInbox) all(context.Context) iter.Seq2[inbox.Entry, error] {
	return func(yield func(inbox.Entry, error) bool) {
		if f.reading != nil {
			f.reading(f.reads)
		}
		f.mu.Lock()
		f.reads++
		entries := slices.Clone(f.entries)
		f.mu.Unlock()
		for _, w := range entries {
			if !yield(w, nil) {
				return
			}
		}
		if f.fail != nil {
			yield(inbox.Entry{}, f.fail)
		}
	}
}

func (f *fakeInbox) add(s session.Session, deadLetter bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := inbox.Entry{Key: s.WorkflowID()}
	if deadLetter {
		e.DeadAt, e.Reason = time.Now(), "too\nbig"
	}
	f.entries = append(f.entries, e)
}

func (f *fakeInbox) remove(s session.Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = slices.DeleteFunc(f.entries, func(e inbox.Entry) bool { return e.Key == s.WorkflowID() })
}

// fakeJournal is a journal that can change while it is read.
type fakeJournal struct {
	mu    sync.Mutex
	lines []audit.Entry
	// reading, if set, is called before each read, with the number of earlier reads.
	reading func(before int)
	reads   int
	fail    error
}

func (f *fakeJournal) add(s session.Session, acknowledged bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, audit.Entry{ID: s.ID, Acknowledged: acknowledged})
}

func (f *fakeJournal) all(yield func(audit.Entry, error) bool) {
	if f.reading != nil {
		f.reading(f.reads)
	}
	f.mu.Lock()
	f.reads++
	lines := slices.Clone(f.lines)
	f.mu.Unlock()
	for _, o := range lines {
		if !yield(o, nil) {
			return
		}
	}
	if f.fail != nil {
		yield(audit.Entry{}, f.fail)
	}
}

// world has the stores that an audit reads. All but the ledger and the archive are fakes.
type world struct {
	t        testing.TB
	temporal *fakeTemporal
	ledger   *ledger.Ledger
	archive  *blob.Bucket
	inbox    *fakeInbox
	journal  *fakeJournal
	options  audit.Options
	next     uint64
}

func newWorld(t testing.TB, databaseURL string) *world {
	t.Helper()
	books, err := ledger.Open(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() })
	w := &world{t: t, temporal: &fakeTemporal{page: 2}, ledger: books, archive: memblob.OpenBucket(nil), inbox: &fakeInbox{}, journal: &fakeJournal{}}
	t.Cleanup(func() { _ = w.archive.Close() })
	w.options = audit.Options{
		Temporal: w.temporal, Ledger: w.ledger, Archive: w.archive, Inbox: w.inbox.all, Journal: w.journal.all, Complete: true, Retention: 720 * time.Hour,
	}
	return w
}

// worlds runs a test with both databases.
func worlds(t *testing.T, test func(t *testing.T, w *world)) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) { test(t, newWorld(t, databaseURL)) })
}

// session returns a new session of one of two apps. Some of their numbers exceed an int64.
func (w *world) session() session.Session {
	w.next++
	return session.Session{ID: session.ID{AppID: 1 + uint32(w.next%2), RoomSessionID: w.next%3<<63 | w.next}, RoomID: "lobby", CloseReason: []zego.Code{"kicked", "", "2"}[w.next%3], RoomCloseTime: time.UnixMilli(1499676989909).UTC()}
}

// offered returns a new session with a line in the journal.
func (w *world) offered(acknowledged bool) session.Session {
	s := w.session()
	w.journal.add(s, acknowledged)
	return s
}

// run starts a run of the session that visibility has.
func (w *world) run(s session.Session, status enums.WorkflowExecutionStatus) *execution {
	return w.start(s, status, true)
}

func (w *world) start(s session.Session, status enums.WorkflowExecutionStatus, listed bool) *execution {
	e := &execution{
		id: s.WorkflowID(), runID: uuid.NewString(), workflow: "RoomClose", session: s, status: status, state: workflows.StateRunning,
		start: time.Now(), result: result("done", "done"), listed: listed, visible: status,
	}
	e.first = e.runID
	w.temporal.mu.Lock()
	defer w.temporal.mu.Unlock()
	w.temporal.runs = append(w.temporal.runs, e)
	return e
}

// result returns the result of a run with these states of its steps.
func result(billing, recordings workflows.State) workflows.Result {
	return workflows.Result{Steps: []workflows.StepResult{{Step: "billing", State: billing}, {Step: "recordings", State: recordings}}}
}

func (w *world) bill(s session.Session) {
	w.t.Helper()
	if _, _, err := w.ledger.Finalize(context.Background(), ledger.Bill{
		ID: s.IdempotencyKey("billing"), Session: session.Session{ID: s.ID, RoomID: s.RoomID, CloseReason: s.CloseReason, RoomCloseTime: s.RoomCloseTime},
	}); err != nil {
		w.t.Error(err)
	}
}

// closed records in the ledger that the session has closed.
func (w *world) closed(s session.Session) {
	w.t.Helper()
	if err := w.ledger.Record(context.Background(), []ledger.Event{{ID: s.ID, RoomID: s.RoomID,
		Event: zego.EventRoomCreate, Create: s.RoomCloseTime, SeenAt: time.Now()}}); err != nil {
		w.t.Error(err)
	}
	if err := w.ledger.Closed(context.Background(), s.ID); err != nil {
		w.t.Error(err)
	}
}

func (w *world) manifest(s session.Session) {
	w.t.Helper()
	if err := w.archive.WriteAll(context.Background(), s.Folder()+"manifest.json", []byte("{}"), nil); err != nil {
		w.t.Error(err)
	}
}

// closedOut returns a new session without a fault, and its run.
func (w *world) closedOut() (session.Session, *execution) {
	w.t.Helper()
	s := w.offered(true)
	w.bill(s)
	w.manifest(s)
	return s, w.run(s, completed)
}

// audit runs an audit. An error fails the test.
func (w *world) audit() audit.Report {
	w.t.Helper()
	r, err := audit.Run(context.Background(), w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// expect runs an audit and checks that it finds exactly these faults, each given as "kind
// workflow-ID".
func (w *world) expect(want ...string) audit.Report {
	w.t.Helper()
	r := w.audit()
	var got []string
	for _, f := range r.Faults {
		got = append(got, fmt.Sprintf("%s %s", f.Kind, f.WorkflowID))
		if f.ID.WorkflowID() != f.WorkflowID || strings.ContainsAny(f.Problem+f.Remedy, "\n") {
			w.t.Errorf("fault %+v", f)
		}
		for _, sentence := range []string{f.Problem, f.Remedy} {
			if len(sentence) < 20 || strings.Contains(sentence, "%!") {
				w.t.Errorf("%s: said %q", f.Kind, sentence)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || r.OK() != (len(want) == 0) || r.Count() != int64(len(want)) {
		w.t.Errorf("found %q, %d, OK %v; want %q\n%+v", got, r.Count(), r.OK(), want, r.Faults)
	}
	return r
}
