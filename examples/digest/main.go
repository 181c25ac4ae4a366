// Command digest is a Closeout that sends one e-mail about an event of several
// rooms when the last of them has closed.
package main

import (
	"os"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service(os.Getenv)) }

func service(getenv func(string) string) closeout.Service {
	steps := &Steps{}
	return closeout.Service{
		Workflows: []workflows.Workflow{CloseShowRoom, Digest},
		Route:     steps.route,
		Steps:     []any{steps},
		Init:      func() error { return steps.load(getenv) },
	}
}
