package workflows

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/closeouthq/closeout/activities"
)

// Register tells a worker of the workflows that it runs. A new one gets a line
// here and another in [Route].
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflow(RoomClose)
}

// Route chooses the workflow that closes a session out.
func Route(activities.Session) any {
	return RoomClose
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
	return client.StartWorkflowOptions{
		ID:        WorkflowID(s),
		TaskQueue: taskQueue,
		// Closed runs count as well as running ones, and a refusal is to be told
		// from a start.
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
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
		StaticSummary: fmt.Sprintf("Room %s closed: %v", code(clip(s.RoomID, 80)), s.CloseReason),
		StaticDetails: fmt.Sprintf("Session %d of room %s of app %d closed at %s: %v.", s.RoomSessionID, code(s.RoomID), s.AppID, closed, s.CloseReason),
	}
}

// clip shortens a room's name: Temporal's SQL stores index 255 characters, and
// its limit for a summary is 400 bytes.
func clip(roomID string, most int) string {
	if r := []rune(roomID); len(r) > most {
		return string(r[:most])
	}
	return roomID
}
