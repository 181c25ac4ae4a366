// Command service is a program to start from: copy the folder. It has Workflows for two
// kinds of rooms, steps that call two services, and settings.
package main

import (
	"context"
	"io"
	"os"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service(os.Getenv)) }

// service returns what this program adds to Closeout.
func service(getenv func(string) string) closeout.Service {
	c := &settings{}
	return closeout.Service{
		Name:       "service",
		Workflows:  []workflows.Workflow{CloseLiveShow, CloseSupportCall},
		Route:      c.route,
		Activities: []any{&c.studio, &c.helpDesk},
		Init:       func(context.Context) (io.Closer, error) { return nil, c.load(getenv) },
	}
}
