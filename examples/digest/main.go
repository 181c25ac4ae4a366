// Command digest is a Closeout that sends one e-mail about all rooms of a show after the
// last one has closed.
package main

import (
	"context"
	"io"
	"os"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service(os.Getenv)) }

func service(getenv func(string) string) closeout.Service {
	steps := &Steps{}
	return closeout.Service{
		Name:       "digest",
		Workflows:  []workflows.Workflow{CloseShowRoom, Digest},
		Route:      steps.route,
		Activities: []any{steps},
		Init:       func(context.Context) (io.Closer, error) { return nil, steps.load(getenv) },
	}
}
