// Package closeout runs Closeout as a program of your own, with your workflows
// and steps in it. A main is a dozen lines:
//
//	func main() {
//		closeout.Main(closeout.Service{
//			Workflows: []workflows.Workflow{CloseShow},
//			Route:     route,
//			Steps:     []any{&Wallet{}},
//		})
//	}
//
// The program then has the commands of Closeout, from serve to audit, and its
// settings. The other packages are made to be used with it: package workflows to
// write workflows, activities to write steps, closeouttest to test both, and
// zego and webhook to take ZEGO's callbacks elsewhere.
package closeout

import (
	"io"
	"os"

	"github.com/gorilla/mux"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/command"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// Service is what a program adds to Closeout. The zero value is Closeout itself.
type Service struct {
	// Workflows are run besides those of package workflows. Each is a function with
	// a name, and no two have the same.
	Workflows []workflows.Workflow
	// Immediate lists those of Workflows that start as soon as the room closes. The
	// others start CLOSEOUT_SETTLING later, when the callbacks that ZEGO was still
	// retrying are in; that takes one Workflow Task less.
	Immediate []workflows.Workflow
	// Route returns the Workflow that closes out a session. If Route is nil or returns
	// nil, that is [workflows.RoomClose]. What it returns must be among Workflows, or
	// its runs wait until a worker has it.
	Route func(activities.Session) workflows.Workflow
	// Steps are pointers to structs, of which each exported method is an activity of
	// its own name. The standard ones of [activities.Steps] are there already.
	Steps []any
	// Init, if set, is called once before serve, webhook or worker begins: to read
	// the settings of the steps, and to open what they need. Its error ends the
	// program.
	Init func() error
	// Hooks, if set, adds endpoints to the listener for callbacks, below
	// [webhook.HooksPath]: for services that a step has started and that report
	// back. They have to authenticate whom they hear from. Use [workflows.Signal] to
	// tell the session's run.
	Hooks func(hooks *mux.Router, temporal client.Client)
}

// Check tells what is wrong with the service, which no command would run then: a
// workflow without a name, two of one name, a method that is no activity.
func (s Service) Check() error { return service.Extension(s).Check() }

// Main runs the command line and exits.
func Main(s Service) {
	os.Exit(Run(s, os.Args, os.Stdout, os.Stderr))
}

// Run runs the command line, of which args[0] is the program's name, and returns
// the exit code: 0, or 1 after an error that it has written to stderr. SIGINT and
// SIGTERM stop what runs; a second one kills.
func Run(s Service, args []string, stdout, stderr io.Writer) int {
	return command.Main(service.Extension(s), args, stdout, stderr)
}
