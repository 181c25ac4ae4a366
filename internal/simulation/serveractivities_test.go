package simulation

import (
	"slices"
	"time"

	"go.temporal.io/api/command/v1"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// activityTask is an Activity Execution.
type activityTask struct {
	r         *serverRun
	scheduled int64 // event ID
	*command.ScheduleActivityTaskCommandAttributes
	attempt int32
	token   string // of the attempt that runs, or empty
	expires time.Time
	last    *failure.Failure
	details *common.Payloads // of the last heartbeat
	timers  []*time.Timer    // of the attempt
	expiry  *time.Timer
	beat    *time.Timer
}

func (r *serverRun) scheduleActivity(scheduled int64, attributes *command.ScheduleActivityTaskCommandAttributes) {
	a := &activityTask{r: r, scheduled: scheduled, ScheduleActivityTaskCommandAttributes: attributes, attempt: 1}
	a.expires = time.Now().Add(attributes.ScheduleToCloseTimeout.AsDuration())
	a.expiry = time.AfterFunc(time.Until(a.expires), r.s.locked(func() {
		if r.activities[scheduled] == a {
			a.end(timeout(enums.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, a), enums.RETRY_STATE_TIMEOUT)
		}
	}))
	r.activities[scheduled] = a
	r.s.activities = append(r.s.activities, a)
	r.s.wake()
}

func (s *server) giveActivity(queue string) *workflowservice.PollActivityTaskQueueResponse {
	i := slices.IndexFunc(s.activities, func(a *activityTask) bool { return a.TaskQueue.Name == queue })
	if i < 0 {
		return nil
	}
	a := s.activities[i]
	s.activities = slices.Delete(s.activities, i, i+1)
	a.token = s.token(a)
	token := a.token
	lapse := func(after *durationpb.Duration, kind enums.TimeoutType) *time.Timer {
		return time.AfterFunc(after.AsDuration(), s.locked(func() {
			if a.token == token {
				a.failed(timeout(kind, a))
			}
		}))
	}
	a.timers = []*time.Timer{lapse(a.StartToCloseTimeout, enums.TIMEOUT_TYPE_START_TO_CLOSE)}
	if a.HeartbeatTimeout.AsDuration() > 0 {
		a.beat = lapse(a.HeartbeatTimeout, enums.TIMEOUT_TYPE_HEARTBEAT)
		a.timers = append(a.timers, a.beat)
	}
	return &workflowservice.PollActivityTaskQueueResponse{
		TaskToken: []byte(token), WorkflowNamespace: "default", WorkflowType: a.r.start.WorkflowType, WorkflowExecution: &common.WorkflowExecution{WorkflowId: a.r.id, RunId: a.r.runID},
		ActivityType: a.ActivityType, ActivityId: a.ActivityId, Header: a.Header, Input: a.Input, HeartbeatDetails: a.details, Attempt: a.attempt,
		ScheduledTime: timestamppb.Now(), CurrentAttemptScheduledTime: timestamppb.Now(), StartedTime: timestamppb.Now(),
		ScheduleToCloseTimeout: a.ScheduleToCloseTimeout, StartToCloseTimeout: a.StartToCloseTimeout, HeartbeatTimeout: a.HeartbeatTimeout, RetryPolicy: a.RetryPolicy}
}

// timeout returns the failure of an Activity that timed out.
func timeout(kind enums.TimeoutType, a *activityTask) *failure.Failure {
	return &failure.Failure{Message: "activity timeout", Source: "Server", Cause: a.last,
		FailureInfo: &failure.Failure_TimeoutFailureInfo{TimeoutFailureInfo: &failure.TimeoutFailureInfo{TimeoutType: kind, LastHeartbeatDetails: a.details}}}
}

// respond calls do with the Activity whose current attempt has the token.
func (s *server) respond(token string, do func(*activityTask)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.tokens[token].(*activityTask)
	if !ok || a.token != token || a.r.activities[a.scheduled] != a {
		return serviceerror.NewNotFound("simulated: no such activity task")
	}
	do(a)
	return nil
}

func (a *activityTask) heartbeat(details *common.Payloads) {
	a.details = details
	if a.beat != nil {
		a.beat.Reset(a.HeartbeatTimeout.AsDuration())
	}
}

// stop ends the current attempt.
func (a *activityTask) stop() {
	for _, t := range a.timers {
		t.Stop()
	}
	delete(a.r.s.tokens, a.token)
	a.token, a.timers, a.beat = "", nil, nil
	a.r.s.activities = slices.DeleteFunc(a.r.s.activities, func(other *activityTask) bool { return other == a })
}

// remove removes the Activity from the open ones.
func (a *activityTask) remove() {
	a.stop()
	a.expiry.Stop()
	delete(a.r.activities, a.scheduled)
}

// arrive adds the started event of the last attempt, and the event that after returns.
func (a *activityTask) arrive(after func(started int64) proto.Message) {
	a.r.arrive(func() {
		started := a.r.add(&historypb.ActivityTaskStartedEventAttributes{ScheduledEventId: a.scheduled, Attempt: a.attempt, LastFailure: a.last})
		a.r.add(after(started.EventId))
	})
}

func (a *activityTask) completed(result *common.Payloads) {
	a.remove()
	a.arrive(func(started int64) proto.Message {
		return &historypb.ActivityTaskCompletedEventAttributes{ScheduledEventId: a.scheduled, StartedEventId: started, Result: result}
	})
}

// failed ends an attempt, and retries the Activity if its policy says so.
func (a *activityTask) failed(f *failure.Failure) {
	policy, app := a.RetryPolicy, f.GetApplicationFailureInfo()
	pause := time.Duration(float64(policy.InitialInterval.AsDuration()))
	for range a.attempt - 1 {
		pause = min(time.Duration(float64(pause)*policy.BackoffCoefficient), policy.MaximumInterval.AsDuration())
	}
	if app.GetNextRetryDelay() != nil {
		pause = app.NextRetryDelay.AsDuration()
	}
	switch {
	case app.GetNonRetryable() || slices.Contains(policy.NonRetryableErrorTypes, app.GetType()):
		a.end(f, enums.RETRY_STATE_NON_RETRYABLE_FAILURE)
	case policy.MaximumAttempts > 0 && a.attempt >= policy.MaximumAttempts:
		a.end(f, enums.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)
	case time.Now().Add(pause).After(a.expires):
		a.end(f, enums.RETRY_STATE_TIMEOUT)
	default:
		a.stop()
		a.attempt++
		a.last = f
		time.AfterFunc(pause, a.r.s.locked(func() {
			if a.r.activities[a.scheduled] == a && a.r.status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
				a.r.s.activities = append(a.r.s.activities, a)
				a.r.s.wake()
			}
		}))
	}
}

// end ends the Activity with a failure.
func (a *activityTask) end(f *failure.Failure, state enums.RetryState) {
	a.remove()
	a.arrive(func(started int64) proto.Message {
		if f.GetTimeoutFailureInfo() != nil {
			return &historypb.ActivityTaskTimedOutEventAttributes{Failure: f, ScheduledEventId: a.scheduled, StartedEventId: started, RetryState: state}
		}
		return &historypb.ActivityTaskFailedEventAttributes{Failure: f, ScheduledEventId: a.scheduled, StartedEventId: started, RetryState: state}
	})
}
