package simulation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/update/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// server is a Temporal server in memory for the SDK's clients and workers. It keeps histories,
// runs timers, hands out tasks, and retries them after Temporal's timeouts. It has no sticky
// Task Queues: each Workflow Task has the whole history, and the worker replays it.
type server struct {
	// broken is called if a worker breaks Temporal's protocol, or a Workflow fails.
	broken func(format string, args ...any)

	mu         sync.Mutex
	all        []*serverRun          // the oldest first
	latest     map[string]*serverRun // by Workflow ID
	tasks      []*serverRun          // queue of Workflow Tasks
	activities []*activityTask       // queue of Activity Tasks
	tokens     map[string]any        // the *serverRun or *activityTask of each started task
	started    int                   // number of started tasks
	changed    chan struct{}         // closed when there is a task or an outcome of an Update
}

func newServer(broken func(string, ...any)) *server {
	return &server{broken: broken, latest: map[string]*serverRun{}, tokens: map[string]any{}, changed: make(chan struct{})}
}

// serverRun is a run of a Workflow.
type serverRun struct {
	s          *server
	id, runID  string
	start      *workflowservice.StartWorkflowExecutionRequest
	events     []*historypb.HistoryEvent
	status     enums.WorkflowExecutionStatus
	attributes map[string]*common.Payload // Search Attributes
	activities map[int64]*activityTask    // open ones, by the ID of their first event
	timers     map[string]*timer          // by timer ID
	updates    []*updateState

	task struct { // the Workflow Task
		scheduled, started int64 // event IDs, or 0
		completed          int64 // ID of the started event of the last completed one
		attempt            int32
		token              string
		timeout            *time.Timer
	}
	buffered []func() // add the events that arrived during the Workflow Task
}

type timer struct {
	*time.Timer
	started int64 // event ID
}

// updateState is an Update and its outcome.
type updateState struct {
	request *update.Request
	sent    bool // with the current Workflow Task
	done    bool
	outcome *update.Outcome
}

// connect returns a client whose calls go through call.
func connect(log tlog.Logger, call func(ctx context.Context, request any) (proto.Message, error)) (client.Client, error) {
	intercept := func(ctx context.Context, _ string, request, reply any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
		answer, err := call(ctx, request)
		if err != nil {
			return serviceerror.ToStatus(err).Err()
		}
		proto.Merge(reply.(proto.Message), answer)
		return nil
	}
	return client.NewLazyClient(client.Options{Logger: log, Identity: "worker",
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)}}})
}

// call answers a request.
func (s *server) call(ctx context.Context, request any) (proto.Message, error) {
	switch r := request.(type) {
	case *workflowservice.GetSystemInfoRequest:
		return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{
			SignalAndQueryHeader: true, InternalErrorDifferentiation: true, ActivityFailureIncludeHeartbeat: true,
			EncodedFailureAttributes: true, UpsertMemo: true, SdkMetadata: true}}, nil
	case *workflowservice.DescribeNamespaceRequest:
		return &workflowservice.DescribeNamespaceResponse{NamespaceInfo: &namespace.NamespaceInfo{Name: r.GetNamespace(), State: enums.NAMESPACE_STATE_REGISTERED}}, nil
	case *workflowservice.ShutdownWorkerRequest:
		return &workflowservice.ShutdownWorkerResponse{}, nil
	case *workflowservice.StartWorkflowExecutionRequest:
		return s.startRun(r)
	case *workflowservice.PollWorkflowTaskQueueRequest:
		return poll(ctx, s, func() *workflowservice.PollWorkflowTaskQueueResponse { return s.giveTask(r.TaskQueue.Name) })
	case *workflowservice.PollActivityTaskQueueRequest:
		return poll(ctx, s, func() *workflowservice.PollActivityTaskQueueResponse { return s.giveActivity(r.TaskQueue.Name) })
	case *workflowservice.RespondWorkflowTaskCompletedRequest:
		return s.taskCompleted(r)
	case *workflowservice.RespondWorkflowTaskFailedRequest:
		return &workflowservice.RespondWorkflowTaskFailedResponse{}, s.taskFailed(r)
	case *workflowservice.RespondActivityTaskCompletedRequest:
		return &workflowservice.RespondActivityTaskCompletedResponse{}, s.respond(string(r.TaskToken), func(a *activityTask) { a.completed(r.Result) })
	case *workflowservice.RespondActivityTaskFailedRequest:
		return &workflowservice.RespondActivityTaskFailedResponse{}, s.respond(string(r.TaskToken), func(a *activityTask) { a.failed(r.Failure) })
	case *workflowservice.RespondActivityTaskCanceledRequest: // the worker stops
		return &workflowservice.RespondActivityTaskCanceledResponse{}, nil
	case *workflowservice.RecordActivityTaskHeartbeatRequest:
		return &workflowservice.RecordActivityTaskHeartbeatResponse{}, s.respond(string(r.TaskToken), func(a *activityTask) { a.heartbeat(r.Details) })
	case *workflowservice.SignalWorkflowExecutionRequest:
		return &workflowservice.SignalWorkflowExecutionResponse{}, s.signal(r)
	case *workflowservice.UpdateWorkflowExecutionRequest:
		return s.update(ctx, r)
	}
	return nil, serviceerror.NewUnimplemented(fmt.Sprintf("simulated: %T", request))
}

// pollFor is the time after which a poll returns without a task.
const pollFor = time.Minute

// poll waits until give returns a task.
func poll[T any](ctx context.Context, s *server, give func() *T) (*T, error) {
	end := time.NewTimer(pollFor)
	defer end.Stop()
	for {
		s.mu.Lock()
		task, changed := give(), s.changed
		s.mu.Unlock()
		if task != nil {
			return task, nil
		}
		select {
		case <-changed:
		case <-end.C:
			return new(T), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// wake wakes polls and callers of Updates, which look again at what has changed.
func (s *server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// token returns a new task token.
func (s *server) token(of any) string {
	s.started++
	token := strconv.Itoa(s.started)
	s.tokens[token] = of
	return token
}

// open returns the open runs, the oldest first.
func (s *server) open() (all []*serverRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		if r.status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			all = append(all, r)
		}
	}
	return all
}

// forget deletes the closed run of a Workflow ID, as Temporal does after its retention.
func (s *server) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.latest, id)
}

func (s *server) startRun(request *workflowservice.StartWorkflowExecutionRequest) (*workflowservice.StartWorkflowExecutionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.latest[request.WorkflowId]; old != nil {
		open := old.status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
		switch {
		case old.start.RequestId == request.RequestId: // sent again
			return &workflowservice.StartWorkflowExecutionResponse{RunId: old.runID, Started: true}, nil
		case open && request.WorkflowIdConflictPolicy != enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
			!open && request.WorkflowIdReusePolicy != enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE:
			return nil, serviceerror.NewWorkflowExecutionAlreadyStarted("simulated", old.start.RequestId, old.runID)
		case open:
			s.broken("the start of %s would terminate a run", request.WorkflowId)
		}
	}
	r := &serverRun{s: s, id: request.WorkflowId, runID: fmt.Sprint(request.WorkflowId, "-", len(s.all)), start: request, status: enums.WORKFLOW_EXECUTION_STATUS_RUNNING,
		attributes: map[string]*common.Payload{}, activities: map[int64]*activityTask{}, timers: map[string]*timer{}}
	r.task.attempt = 1
	s.all, s.latest[r.id] = append(s.all, r), r
	r.upsert(request.SearchAttributes)
	started := r.add(&historypb.WorkflowExecutionStartedEventAttributes{
		WorkflowType: request.WorkflowType, TaskQueue: request.TaskQueue, Input: request.Input, WorkflowTaskTimeout: durationpb.New(taskTimeout),
		OriginalExecutionRunId: r.runID, FirstExecutionRunId: r.runID, Attempt: 1, Memo: request.Memo, SearchAttributes: request.SearchAttributes,
		FirstWorkflowTaskBackoff: request.WorkflowStartDelay, Header: request.Header, Priority: request.Priority, WorkflowId: r.id})
	started.UserMetadata = request.UserMetadata
	time.AfterFunc(request.WorkflowStartDelay.AsDuration(), s.locked(r.schedule))
	return &workflowservice.StartWorkflowExecutionResponse{RunId: r.runID, Started: true}, nil
}

// locked returns a function that calls f with s.mu locked.
func (s *server) locked(f func()) func() {
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		f()
	}
}

// add adds an event to the history. The type of its attributes determines its own.
func (r *serverRun) add(attributes proto.Message) *historypb.HistoryEvent {
	e := &historypb.HistoryEvent{EventId: int64(len(r.events) + 1), EventTime: timestamppb.Now()}
	m := e.ProtoReflect()
	all := m.Descriptor().Oneofs().ByName("attributes").Fields()
	for i := range all.Len() {
		if f := all.Get(i); f.Message().FullName() == attributes.ProtoReflect().Descriptor().FullName() {
			m.Set(f, protoreflect.ValueOfMessage(attributes.ProtoReflect()))
			name := strings.ToUpper(strings.TrimSuffix(string(f.Name()), "_event_attributes"))
			e.EventType = enums.EventType(enums.EventType_value["EVENT_TYPE_"+name])
		}
	}
	r.events = append(r.events, e)
	return e
}

// story returns the last events of the history.
func (r *serverRun) story() string {
	var b strings.Builder
	for _, e := range r.events[max(0, len(r.events)-40):] {
		fmt.Fprintf(&b, "%8d %v %v", e.EventId, e.EventTime.AsTime().Sub(r.events[0].EventTime.AsTime()), e.EventType)
		switch {
		case e.GetActivityTaskScheduledEventAttributes() != nil:
			fmt.Fprint(&b, " ", e.GetActivityTaskScheduledEventAttributes().ActivityType.Name)
		case e.GetActivityTaskFailedEventAttributes() != nil:
			fmt.Fprint(&b, " ", e.GetActivityTaskFailedEventAttributes().Failure.Message)
		case e.GetActivityTaskTimedOutEventAttributes() != nil:
			fmt.Fprint(&b, " ", e.GetActivityTaskTimedOutEventAttributes().Failure.Message)
		case e.GetMarkerRecordedEventAttributes() != nil:
			fmt.Fprint(&b, " ", e.GetMarkerRecordedEventAttributes().Failure.GetMessage())
		case e.GetWorkflowExecutionUpdateAcceptedEventAttributes() != nil:
			fmt.Fprint(&b, " ", e.GetWorkflowExecutionUpdateAcceptedEventAttributes().AcceptedRequest.Input.Name)
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// arrive calls add to add events from outside of the Workflow: now, or after the current
// Workflow Task.
func (r *serverRun) arrive(add func()) {
	switch {
	case r.status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
	case r.task.started > 0:
		r.buffered = append(r.buffered, add)
	default:
		add()
		r.schedule()
	}
}

func (r *serverRun) upsert(attributes *common.SearchAttributes) {
	for name, value := range attributes.GetIndexedFields() {
		if r.attributes[name] = value; len(value.GetData()) == 0 || string(value.GetData()) == "null" || string(value.GetData()) == "[]" {
			delete(r.attributes, name)
		}
	}
}

func (s *server) signal(request *workflowservice.SignalWorkflowExecutionRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.latest[request.WorkflowExecution.WorkflowId]
	if r == nil || r.status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return serviceerror.NewNotFound("simulated: no open run")
	}
	r.arrive(func() {
		r.add(&historypb.WorkflowExecutionSignaledEventAttributes{SignalName: request.SignalName, Input: request.Input, Header: request.Header})
	})
	return nil
}

// update waits for the outcome of an Update.
func (s *server) update(ctx context.Context, request *workflowservice.UpdateWorkflowExecutionRequest) (*workflowservice.UpdateWorkflowExecutionResponse, error) {
	s.mu.Lock()
	r, id := s.latest[request.WorkflowExecution.WorkflowId], request.Request.Meta.UpdateId
	if r == nil {
		s.mu.Unlock()
		return nil, serviceerror.NewNotFound("simulated: no run")
	}
	u := r.updateOf(id)
	if u == nil {
		u = &updateState{request: request.Request}
		r.updates = append(r.updates, u)
		if r.task.started == 0 {
			r.schedule()
		}
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		changed, open := s.changed, r.status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
		outcome := u.outcome
		s.mu.Unlock()
		switch {
		case outcome != nil:
			return &workflowservice.UpdateWorkflowExecutionResponse{Outcome: outcome, Stage: enums.UPDATE_WORKFLOW_EXECUTION_LIFECYCLE_STAGE_COMPLETED,
				UpdateRef: &update.UpdateRef{WorkflowExecution: request.WorkflowExecution, UpdateId: id}}, nil
		case !open:
			return nil, serviceerror.NewNotFound("simulated: the run is closed")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *serverRun) updateOf(id string) *updateState {
	for _, u := range r.updates {
		if u.request.Meta.UpdateId == id {
			return u
		}
	}
	return nil
}
