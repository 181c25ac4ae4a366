// Package closeout makes a program of Closeout and your Workflows and steps:
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

// Service is what your program adds to Closeout. The zero value is Closeout itself.
type Service struct {
	// Name is the default of CLOSEOUT_TASK_QUEUE, and a folder of that name in ./data the
	// default of CLOSEOUT_DATA, so that programs do not run each other's Workflows. If it is
	// empty, the defaults are Closeout's own.
	Name string
	// Workflows are post-close Workflows besides [workflows.RoomClose]. Each is a named
	// function, and its name is its type in Temporal.
	Workflows []workflows.Workflow
	// Immediate lists those of Workflows that start when the room closes. The others
	// start CLOSEOUT_SETTLING later, when the callbacks that ZEGO still retries are in,
	// which takes one Workflow Task less.
	Immediate []workflows.Workflow
	// Route returns the Workflow that closes out a session, one of Workflows. If Route
	// is nil or returns nil, it is [workflows.RoomClose].
	Route func(session.Session) workflows.Workflow
	// Events decide what callbacks lead to that Closeout has no use for itself, such as an
	// AI agent's AgentInstanceDeleted: each by the name of its event, and those without
	// one by [workflows.OtherEvents]. A callback is acknowledged once Temporal or the disk
	// has what was decided.
	Events map[string]workflows.CallbackFunc
	// Exclude, if set, returns why a user of a room is no participant, and empty for a
	// participant. It is asked about those whom CLOSEOUT_EXCLUDE does not exclude. It must
	// return the same whenever it is called, and do nothing else.
	Exclude func(session.Session, session.Participant) string
	// Price, if set, prices sessions instead of CLOSEOUT_PRICES. Test it with
	// closeouttest.Price.
	Price pricing.Func
	// Activities are pointers to structs. Each exported method is an Activity of that
	// name. The steps of [activities.Standard] are registered anyway.
	Activities []any
	// Register, if set, registers what the fields above can't: child Workflows,
	// Workflows with an input of their own, Activities under other names.
	Register func(worker.Registry)
	// Worker, if set, changes the worker's options.
	Worker func(*worker.Options)
	// Init, if set, is called once before serve, webhook or worker begins, to read
	// settings and open what Activities need. Its error ends the program. The closer
	// may be nil; it is closed after everything has stopped.
	Init func(context.Context) (io.Closer, error)
	// Hooks, if set, returns what serves the paths below [webhook.HooksPath] on the
	// listener for callbacks, for systems that report back to a step. It must
	// authenticate its callers. Pass a result to the run with [workflows.Signal].
	Hooks func(client.Client) http.Handler
}

// Check reports what would keep a worker from running the service: a Workflow
// without a name, two of one name, a method that isn't an Activity.
func (s Service) Check() error { return service.Extension(s).Check() }

// Main runs the command line and exits. SIGINT and SIGTERM stop what runs, a second
// one kills.
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

// AssignRecording assigns a recording task to a session, for the app that started the task
// and has its ID from ZEGO's answer to StartRecord. The session's run waits for the task's
// files, whatever room and time they have. The databaseURL is that of
// CLOSEOUT_DATABASE_URL; a RoomSessionID of 0 assigns the task to no session. A repeated
// call changes nothing.
func AssignRecording(ctx context.Context, databaseURL string, s session.ID, taskID string) error {
	books, err := ledger.Open(databaseURL)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer books.Close()
	return books.AnnounceRecording(ctx, s.AppID, taskID, s.RoomSessionID)
}
