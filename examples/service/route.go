package main

import (
	"strings"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// route returns the Workflow of a session. All other sessions get workflows.RoomClose.
func (c *settings) route(s session.Session) workflows.Workflow {
	switch {
	case c.supportApp != 0 && s.AppID == c.supportApp:
		return CloseSupportCall
	case strings.HasPrefix(s.RoomID, "live-"):
		return CloseLiveShow
	}
	return nil
}
