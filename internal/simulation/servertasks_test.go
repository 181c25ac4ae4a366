package simulation

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/command/v1"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/protocol/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/update/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// taskTimeout is Temporal's default timeout of a Workflow Task.
const taskTimeout = 10 * time.Second

// maxEvents bounds a history.
const maxEvents = 1000

// schedule schedules a Workflow Task, unless there is one.
func (r *serverRun) schedule() {
	if r.task.scheduled > 0 || r.status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return
	}
	r.task.scheduled = r.add(&historypb.WorkflowTaskScheduledEventAttributes{TaskQueue: r.start.TaskQueue, StartToCloseTimeout: durationpb.New(taskTimeout), Attempt: r.task.attempt}).EventId
	r.s.tasks = append(r.s.tasks, r)
	r.s.wake()
}

// giveTask returns the next Workflow Task of a Task Queue, or nil.
func (s *server) giveTask(queue string) *workflowservice.PollWorkflowTaskQueueResponse {
	i := slices.IndexFunc(s.tasks, func(r *serverRun) bool { return r.start.TaskQueue.Name == queue })
	if i < 0 {
		return nil
	}
	r := s.tasks[i]
	s.tasks = slices.Delete(s.tasks, i, i+1)
	return r.startTask()
}

func (r *serverRun) startTask() *workflowservice.PollWorkflowTaskQueueResponse {
	if len(r.events) >= maxEvents {
		r.s.broken("%s has %d events, which end with:\n%s", r.id, len(r.events), r.story())
	}
	r.task.started = r.add(&historypb.WorkflowTaskStartedEventAttributes{ScheduledEventId: r.task.scheduled, RequestId: fmt.Sprint(r.s.started)}).EventId
	r.task.token = r.s.token(r)
	token := r.task.token
	r.task.timeout = time.AfterFunc(taskTimeout, r.s.locked(func() {
		if r.task.token == token {
			r.endTask(&historypb.WorkflowTaskTimedOutEventAttributes{ScheduledEventId: r.task.scheduled, StartedEventId: r.task.started, TimeoutType: enums.TIMEOUT_TYPE_START_TO_CLOSE})
			r.task.attempt++
			r.schedule()
		}
	}))
	answer := &workflowservice.PollWorkflowTaskQueueResponse{
		TaskToken: []byte(token), WorkflowExecution: &common.WorkflowExecution{WorkflowId: r.id, RunId: r.runID}, WorkflowType: r.start.WorkflowType,
		PreviousStartedEventId: r.task.completed, StartedEventId: r.task.started, Attempt: r.task.attempt,
		History: &historypb.History{Events: slices.Clone(r.events)}, WorkflowExecutionTaskQueue: r.start.TaskQueue,
		ScheduledTime: timestamppb.Now(), StartedTime: timestamppb.Now()}
	for _, u := range r.updates {
		if u.sent || u.done {
			continue
		}
		u.sent = true
		body, err := anypb.New(u.request)
		if err != nil {
			panic(err)
		}
		id := u.request.Meta.UpdateId
		answer.Messages = append(answer.Messages, &protocol.Message{Id: id + "/request", ProtocolInstanceId: id, Body: body,
			SequencingId: &protocol.Message_EventId{EventId: r.task.started - 1}})
	}
	return answer
}

// endTask ends the Workflow Task with an event.
func (r *serverRun) endTask(event proto.Message) int64 {
	r.task.timeout.Stop()
	id := r.add(event).EventId
	delete(r.s.tokens, r.task.token)
	r.task.scheduled, r.task.started, r.task.token = 0, 0, ""
	for _, u := range r.updates {
		u.sent = u.done
	}
	return id
}

// flush adds the events that arrived during the Workflow Task.
func (r *serverRun) flush() {
	arrived := r.buffered
	r.buffered = nil
	for _, add := range arrived {
		add()
	}
	if len(arrived) > 0 || slices.ContainsFunc(r.updates, func(u *updateState) bool { return !u.sent && !u.done }) {
		r.schedule()
	}
}

func (s *server) taskCompleted(request *workflowservice.RespondWorkflowTaskCompletedRequest) (*workflowservice.RespondWorkflowTaskCompletedResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	r, ok := s.tokens[string(request.TaskToken)].(*serverRun)
	if !ok || r.status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil, serviceerror.NewNotFound("simulated: no such workflow task")
	}
	scheduled, started := r.task.scheduled, r.task.started
	closes := slices.ContainsFunc(request.Commands, func(c *command.Command) bool {
		return c.CommandType == enums.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION || c.CommandType == enums.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION
	})
	if closes && len(r.buffered) > 0 { // the Workflow must see these events first
		r.endTask(&historypb.WorkflowTaskFailedEventAttributes{ScheduledEventId: scheduled, StartedEventId: started, Cause: enums.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND})
		r.flush()
		return nil, serviceerror.NewInvalidArgument("UnhandledCommand")
	}
	by := r.endTask(&historypb.WorkflowTaskCompletedEventAttributes{ScheduledEventId: scheduled, StartedEventId: started, Identity: request.Identity, SdkMetadata: request.SdkMetadata})
	r.task.completed, r.task.attempt = started, 1
	messages := map[string]*protocol.Message{}
	for _, m := range request.Messages {
		messages[m.Id] = m
	}
	for _, c := range request.Commands {
		if c.CommandType == enums.COMMAND_TYPE_PROTOCOL_MESSAGE {
			id := c.GetProtocolMessageCommandAttributes().MessageId
			r.message(messages[id], by)
			delete(messages, id)
			continue
		}
		if e := r.command(c, by); e != nil {
			e.UserMetadata = c.UserMetadata
		}
	}
	for _, m := range request.Messages {
		if messages[m.Id] != nil {
			r.message(m, by)
		}
	}
	r.flush()
	answer := &workflowservice.RespondWorkflowTaskCompletedResponse{}
	if request.ForceCreateNewWorkflowTask {
		r.schedule()
		if i := slices.Index(s.tasks, r); i >= 0 && request.ReturnNewWorkflowTask {
			s.tasks = slices.Delete(s.tasks, i, i+1)
			answer.WorkflowTask = r.startTask()
		}
	}
	return answer, nil
}

// taskFailed reports a Workflow Task that failed: code of Workflows isn't deterministic, or panics.
func (s *server) taskFailed(request *workflowservice.RespondWorkflowTaskFailedRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.tokens[string(request.TaskToken)].(*serverRun)
	if !ok {
		return serviceerror.NewNotFound("simulated: no such workflow task")
	}
	s.broken("a workflow task of %s failed: %s", r.id, request.Failure.GetMessage())
	r.endTask(&historypb.WorkflowTaskFailedEventAttributes{ScheduledEventId: r.task.scheduled, StartedEventId: r.task.started, Cause: request.Cause, Failure: request.Failure})
	r.close(enums.WORKFLOW_EXECUTION_STATUS_FAILED)
	return nil
}

// command performs a command of a Workflow and returns its event, or nil.
func (r *serverRun) command(c *command.Command, by int64) *historypb.HistoryEvent {
	switch c.CommandType {
	case enums.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK:
		a := c.GetScheduleActivityTaskCommandAttributes()
		e := r.add(&historypb.ActivityTaskScheduledEventAttributes{ActivityId: a.ActivityId, ActivityType: a.ActivityType, TaskQueue: a.TaskQueue, Header: a.Header, Input: a.Input,
			ScheduleToCloseTimeout: a.ScheduleToCloseTimeout, StartToCloseTimeout: a.StartToCloseTimeout, HeartbeatTimeout: a.HeartbeatTimeout, RetryPolicy: a.RetryPolicy, WorkflowTaskCompletedEventId: by})
		r.scheduleActivity(e.EventId, a)
		return e
	case enums.COMMAND_TYPE_START_TIMER:
		a := c.GetStartTimerCommandAttributes()
		e := r.add(&historypb.TimerStartedEventAttributes{TimerId: a.TimerId, StartToFireTimeout: a.StartToFireTimeout, WorkflowTaskCompletedEventId: by})
		t := &timer{started: e.EventId}
		r.timers[a.TimerId] = t
		t.Timer = time.AfterFunc(a.StartToFireTimeout.AsDuration(), r.s.locked(func() {
			if r.timers[a.TimerId] == t {
				delete(r.timers, a.TimerId)
				r.arrive(func() { r.add(&historypb.TimerFiredEventAttributes{TimerId: a.TimerId, StartedEventId: t.started}) })
			}
		}))
		return e
	case enums.COMMAND_TYPE_CANCEL_TIMER:
		id := c.GetCancelTimerCommandAttributes().TimerId
		if t := r.timers[id]; t != nil {
			t.Stop()
			delete(r.timers, id)
			return r.add(&historypb.TimerCanceledEventAttributes{TimerId: id, StartedEventId: t.started, WorkflowTaskCompletedEventId: by})
		}
	case enums.COMMAND_TYPE_RECORD_MARKER:
		a := c.GetRecordMarkerCommandAttributes()
		return r.add(&historypb.MarkerRecordedEventAttributes{MarkerName: a.MarkerName, Details: a.Details, Header: a.Header, Failure: a.Failure, WorkflowTaskCompletedEventId: by})
	case enums.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
		a := c.GetUpsertWorkflowSearchAttributesCommandAttributes()
		r.upsert(a.SearchAttributes)
		return r.add(&historypb.UpsertWorkflowSearchAttributesEventAttributes{SearchAttributes: a.SearchAttributes, WorkflowTaskCompletedEventId: by})
	case enums.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION:
		r.close(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		return r.add(&historypb.WorkflowExecutionCompletedEventAttributes{Result: c.GetCompleteWorkflowExecutionCommandAttributes().Result, WorkflowTaskCompletedEventId: by})
	case enums.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION:
		a := c.GetFailWorkflowExecutionCommandAttributes()
		r.s.broken("%s failed: %s", r.id, a.Failure.GetMessage())
		r.close(enums.WORKFLOW_EXECUTION_STATUS_FAILED)
		return r.add(&historypb.WorkflowExecutionFailedEventAttributes{Failure: a.Failure, WorkflowTaskCompletedEventId: by})
	default:
		r.s.broken("%s sent the command %v, which the simulated server doesn't know", r.id, c.CommandType)
	}
	return nil
}

func (r *serverRun) close(status enums.WorkflowExecutionStatus) {
	r.status = status
	for _, a := range r.activities {
		a.stop()
	}
	for _, t := range r.timers {
		t.Stop()
	}
}

// message handles a Workflow's message about an Update.
func (r *serverRun) message(m *protocol.Message, by int64) {
	body, err := m.GetBody().UnmarshalNew()
	if err != nil {
		r.s.broken("%s: message %s: %v", r.id, m.GetId(), err)
		return
	}
	u := r.updateOf(m.ProtocolInstanceId)
	switch b := body.(type) {
	case *update.Acceptance:
		u.done, u.sent = true, true
		r.add(&historypb.WorkflowExecutionUpdateAcceptedEventAttributes{ProtocolInstanceId: m.ProtocolInstanceId, AcceptedRequestMessageId: b.AcceptedRequestMessageId,
			AcceptedRequestSequencingEventId: b.AcceptedRequestSequencingEventId, AcceptedRequest: u.request})
	case *update.Response:
		u.outcome = b.Outcome
		r.add(&historypb.WorkflowExecutionUpdateCompletedEventAttributes{Meta: b.Meta, Outcome: b.Outcome})
	case *update.Rejection:
		u.done, u.sent = true, true
		u.outcome = &update.Outcome{Value: &update.Outcome_Failure{Failure: b.Failure}}
	}
}
