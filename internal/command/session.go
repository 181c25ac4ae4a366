package command

import (
	"errors"
	"strconv"

	"github.com/closeouthq/closeout/workflows"
)

// How commands name sessions.
const (
	sessionArgs    = "ROOM-SESSION-ID|WORKFLOW-ID..."
	exampleSession = "858012925204410417"
)

// parseSession parses an argument that names a session: its workflow ID, or its room_session_id, for which app is 0.
func parseSession(arg string) (app uint32, session uint64, err error) {
	if app, session, err = workflows.ParseWorkflowID(arg); err == nil {
		return app, session, nil
	}
	if session, err = strconv.ParseUint(arg, 10, 64); err != nil {
		return 0, 0, errors.New("want a room_session_id, or a Workflow ID as in room-close-1-858012925204410417")
	}
	return 0, session, nil
}
