package workflows

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
)

// Workflow is what can close a session out. Its name, by which Temporal knows it,
// is that of the function.
type Workflow func(workflow.Context, activities.Session) (Result, error)

// All gives the workflows that a worker runs. A new one gets a line here and, in
// [Route], the sessions that it is for.
func All() []Workflow {
	return []Workflow{
		RoomClose,
	}
}

// Route chooses the workflow that closes a session out. It is asked for a session
// whenever its callback is about to be started; the first start counts.
func Route(activities.Session) Workflow {
	return RoomClose
}

// Name is the workflow's name.
func Name(w Workflow) string {
	full := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	return strings.TrimSuffix(full[strings.LastIndexByte(full, '.')+1:], "-fm") // of a method's value
}

// The search attributes of a run, by which the Web UI finds it.
var (
	// RoomID is the room's name.
	RoomID = temporal.NewSearchAttributeKeyKeyword("RoomId")
	// RoomSessionID is the session; a keyword, as an Int ends at 63 bits.
	RoomSessionID = temporal.NewSearchAttributeKeyKeyword("RoomSessionId")
	// AppID is ZEGO's appid.
	AppID = temporal.NewSearchAttributeKeyInt64("AppId")
	// CloseReason is ZEGO's close_reason.
	CloseReason = temporal.NewSearchAttributeKeyInt64("CloseReason")
	// CloseoutState is a [State].
	CloseoutState = temporal.NewSearchAttributeKeyKeyword("CloseoutState")
)

// SearchAttributes are the search attributes that a namespace needs.
func SearchAttributes() []temporal.SearchAttributeKey {
	return []temporal.SearchAttributeKey{RoomID, RoomSessionID, AppID, CloseReason, CloseoutState}
}

// ReportedProblems is a search attribute of Temporal's own: why a run's workflow
// tasks fail again and again, if they do. Older servers lack it.
const ReportedProblems = "TemporalReportedProblems"

// BlockedQuery finds the runs that wait for a person.
func BlockedQuery() string {
	return fmt.Sprintf("%s = '%s' AND ExecutionStatus = 'Running'", CloseoutState.GetName(), StateBlocked)
}

const workflowIDPrefix = "room-close-"

// WorkflowID is the ID of the session's workflow, "room-close-<appid>-<room_session_id>".
// As Temporal takes an ID once, there is one workflow for a session.
func WorkflowID(s activities.Session) string {
	return workflowIDPrefix + s.Key()
}

// ParseWorkflowID is the inverse of [WorkflowID].
func ParseWorkflowID(id string) (appID uint32, roomSessionID uint64, err error) {
	key, prefixed := strings.CutPrefix(id, workflowIDPrefix)
	app, session, _ := strings.Cut(key, "-")
	a, appErr := strconv.ParseUint(app, 10, 32)
	roomSessionID, err = strconv.ParseUint(session, 10, 64)
	if !prefixed || appErr != nil || err != nil {
		return 0, 0, fmt.Errorf("workflow ID %q: want %s<appid>-<room_session_id>", id, workflowIDPrefix)
	}
	return uint32(a), roomSessionID, nil
}

// StartOptions says how the session's workflow is started: once for ever, and
// so that people find it and read what it is about.
func StartOptions(s activities.Session, taskQueue string) client.StartWorkflowOptions {
	closed := s.RoomCloseTime.UTC().Format(time.RFC3339Nano)
	reason := s.CloseReason.String()
	if s.Reconciled {
		reason = "found gone without a room_close"
	}
	return client.StartWorkflowOptions{
		ID:        WorkflowID(s),
		TaskQueue: taskQueue,
		// Closed runs count as well as running ones, and a refusal is to be told
		// from a start.
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		// Where task queues are fair, a burst of one app doesn't hold up the others.
		// Steps inherit it. Servers that don't know it pass over it.
		Priority: temporal.Priority{FairnessKey: strconv.FormatUint(uint64(s.AppID), 10)},
		TypedSearchAttributes: temporal.NewSearchAttributes(
			RoomID.ValueSet(clip(s.RoomID, 255)),
			RoomSessionID.ValueSet(strconv.FormatUint(s.RoomSessionID, 10)),
			AppID.ValueSet(int64(s.AppID)),
			CloseReason.ValueSet(int64(s.CloseReason)),
			CloseoutState.ValueSet(string(StateRunning)),
		),
		Memo: map[string]any{
			"room_id":         s.RoomID,
			"close_reason":    s.CloseReason.String(),
			"room_close_time": closed,
		},
		StaticSummary: fmt.Sprintf("Room %s closed: %s", code(clip(s.RoomID, 80)), reason),
		StaticDetails: fmt.Sprintf("Session %d of room %s of app %d closed at %s: %s.", s.RoomSessionID, code(s.RoomID), s.AppID, closed, reason),
	}
}

// Signal sends a run the result of a step that it awaits: see [Await]. The error
// wraps a [go.temporal.io/api/serviceerror.NotFound] if no such run is under way.
func Signal(ctx context.Context, temporal client.Client, workflowID, step string, result any) error {
	if err := temporal.SignalWorkflow(ctx, workflowID, "", step, result); err != nil {
		return fmt.Errorf("signal %q to %s: %w", step, workflowID, err)
	}
	return nil
}

// clip shortens a room's name: Temporal's SQL stores index 255 characters, and
// its limit for a summary is 400 bytes.
func clip(roomID string, most int) string {
	if r := []rune(roomID); len(r) > most {
		return string(r[:most])
	}
	return roomID
}

// keyspace is the namespace of the UUIDs that are idempotency keys.
var keyspace = uuid.MustParse("dae2ee15-f6ee-579e-bf43-12098b064d47")

// IdempotencyKey is the key of a step's effects for a session, a UUIDv5. It
// depends on nothing else, so that also a run started by hand has it.
func IdempotencyKey(session activities.Session, step string) uuid.UUID {
	return uuid.NewSHA1(keyspace, []byte(WorkflowID(session)+"/"+step))
}
