package closeout_test

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// In a test, Check finds what would keep the program from running.
func ExampleService_Check() {
	literal := func(ctx workflow.Context, s session.Session) (workflows.Result, error) {
		return workflows.Begin(ctx, s).Finish()
	}
	fmt.Println(closeout.Service{Workflows: []workflows.Workflow{literal}}.Check())
	// Output:
	// workflow "func1": want an exported function, not a literal, as Temporal knows a workflow by its name
}
