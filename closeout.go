// Package closeout builds a program from Closeout and your own Workflows and steps:
//
//	func main() {
//		closeout.Main(closeout.Service{
//			Workflows:  []workflows.Workflow{CloseShow},
//			Route:      route,
//			Activities: []any{&Wallet{}},
//		})
//	}
//
// The program has Closeout's commands, from serve to audit, and its settings.
// Write Workflows with package workflows and steps with package activities, and
// test both with package closeouttest.
package closeout

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Service holds your program's additions to Closeout. The zero value adds nothing.
type Service struct {
	// Name is the default of CLOSEOUT_TASK_QUEUE, and ./data/<Name> the default of
	// CLOSEOUT_DATA, so that programs do not run each other's Workflows. If Name is empty,
	// the defaults are Closeout's own.
	Name string
	// Workflows are post-close Workflows besides [workflows.RoomClose]. Each is a named
	// function, and its name is its type in Temporal.
	Workflows []workflows.Workflow
	// Immediate lists the Workflows that start as soon as the room closes. All others
	// start CLOSEOUT_SETTLING later, so that callbacks ZEGO is still retrying are included.
	// The later start saves a Workflow Task.
	Immediate []workflows.Workflow
	// Route returns the Workflow that closes out a session, one of Workflows. If Route
	// is nil or returns nil, [workflows.RoomClose] does.
	Route func(session.Session) workflows.Workflow
	// Events maps names of events that Closeout doesn't handle itself, such as an AI
	// agent's AgentInstanceDeleted, to functions that decide which Workflow each callback
	// starts or signals. [workflows.OtherEvents] stands for all other names. A callback is
	// acknowledged once Temporal has the start or the Signal, or the disk has the callback.
	Events map[string]workflows.CallbackFunc
	// Exclude, if set, returns the reason why a user is not a participant, or "" for a
	// participant. It is called for users whom CLOSEOUT_EXCLUDE does not exclude. It must
	// be a pure function.
	Exclude func(session.Session, session.Participant) string
	// Price, if set, prices sessions instead of CLOSEOUT_PRICES. Test it with
	// closeouttest.Price.
	Price pricing.Func
	// Activities are pointers to structs. Each exported method is an Activity of that
	// name. The steps of [activities.Standard] need not be listed.
	Activities []any
	// Register, if set, registers everything else with the worker: child Workflows,
	// Workflows with other inputs, Activities under other names.
	Register func(worker.Registry)
	// Worker, if set, changes the worker's options.
	Worker func(*worker.Options)
	// Init, if set, is called once before serve, webhook or worker begins, to read
	// settings and open the resources of Activities. Its error ends the program. The
	// closer may be nil; it is closed after everything has stopped.
	Init func(context.Context) (io.Closer, error)
	// Hooks, if set, returns the handler of the paths below [webhook.HooksPath] on the
	// listener for callbacks. Other systems report results of steps there. The handler must
	// authenticate its callers, and passes results to runs with [workflows.Signal].
	Hooks func(client.Client) http.Handler
}

// Check returns an error if a worker could not run the service: because a Workflow has no
// name, two have the same name, or a method isn't an Activity.
func (s Service) Check() error { return service.Extension(s).Check() }

// Main runs the command line and exits. The first SIGINT or SIGTERM stops the command in
// order, the second kills it.
func Main(s Service) {
	ctx, stop := cli.Interruptible()
	code := Run(ctx, s, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs the command line until ctx ends and returns the exit code: 0, or 1, 2 or 3
// after an error, which it writes to stderr. args[0] is the program's name. docs/cli.md
// explains the codes.
func Run(ctx context.Context, s Service, args []string, stdout, stderr io.Writer) int {
	return cli.Main(ctx, service.Extension(s), args, stdout, stderr)
}

// AssignRecording assigns a recording task to a session. Call it where your app starts the
// task, with the task ID from ZEGO's answer to StartRecord. The session's run then waits
// for the task's files and ignores their room and time. The databaseURL has the form of
// CLOSEOUT_DATABASE_URL. A RoomSessionID of 0 assigns the task to no session. A repeated
// call changes nothing.
func AssignRecording(ctx context.Context, databaseURL string, s session.ID, taskID string) error {
	books, err := ledger.Open(databaseURL)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer books.Close()
	return books.AnnounceRecording(ctx, s, taskID)
}
