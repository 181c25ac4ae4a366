// Command my-rooms closes out voice rooms with Closeout and a step of its own.
package main

import (
	"os"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service()) }

// service returns what this program adds to Closeout.
func service() closeout.Service {
	return closeout.Service{
		Name:       "my-rooms",
		Workflows:  []workflows.Workflow{CloseRoom},
		Route:      func(session.Session) workflows.Workflow { return CloseRoom },
		Activities: []any{&Notifier{API: activities.Endpoint{Name: "the notified API", URL: os.Getenv("NOTIFY_URL")}}},
	}
}
