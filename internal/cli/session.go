package cli

import (
	"strconv"

	"github.com/closeouthq/closeout/session"
)

// How commands name sessions.
const (
	sessionArgs    = "ROOM-SESSION-ID|WORKFLOW-ID..."
	exampleSession = "858012925204410417"
)

// parseSession parses an argument that names a session: its Workflow ID, or its room_session_id, for which the app is 0.
func parseSession(arg string) (id session.ID, err error) {
	if id, err = session.ParseWorkflowID(arg); err == nil {
		return id, nil
	}
	if id.RoomSessionID, err = strconv.ParseUint(arg, 10, 64); err != nil {
		return id, usagef("want a room_session_id, or a Workflow ID as in room-close-1-858012925204410417")
	}
	return id, nil
}
