// Command agent reports each AI agent that left a voice room to an API of your own.
package main

import (
	"context"
	"io"

	"go.temporal.io/sdk/worker"

	"github.com/closeouthq/closeout"
	"github.com/closeouthq/closeout/workflows"
)

func main() { closeout.Main(service()) }

// service returns what this program adds to Closeout.
func service() closeout.Service {
	agents := new(Agents)
	return closeout.Service{
		Name:       "agent",
		Events:     map[string]workflows.CallbackFunc{"AgentInstanceDeleted": agentDeleted},
		Activities: []any{agents},
		Register:   func(r worker.Registry) { r.RegisterWorkflow(ReportAgent) },
		Init:       func(context.Context) (io.Closer, error) { return nil, agents.load() },
	}
}
