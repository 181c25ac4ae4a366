//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"github.com/closeouthq/closeout/activities"
	command "github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/telemetry"
)

// taskQueue is the Task Queue of the workers of all handlers.
const taskQueue = "bench"

// noSteps are steps that do nothing, so that only the rest is measured.
type noSteps struct{}

// FinalizeBill does nothing.
func (*noSteps) FinalizeBill(_ context.Context, t activities.Task) (activities.Bill, error) {
	return activities.Bill{}, nil
}

// ArchiveRecordings does nothing.

func (*noSteps) ArchiveRecordings(_ context.Context, t activities.Task) (activities.Archived, error) {
	return activities.Archived{}, nil
}

// handlerFlags are the flags of the handlers that use Temporal.
func handlerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "temporal"}, &cli.StringFlag{Name: "dir"}, &cli.StringFlag{Name: "admin", Value: "127.0.0.1:0"},
		&cli.BoolFlag{Name: "worker"}, &cli.BoolFlag{Name: "findable"},
	}
}

// closeoutCommand runs `closeout serve` with steps that do nothing.
func closeoutCommand() *cli.Command {
	return &cli.Command{Name: "closeout", Hidden: true, Flags: handlerFlags(), Action: func(ctx context.Context, cmd *cli.Command) error {
		c, err := settings(cmd)
		if err != nil {
			return err
		}
		// Log each callback, as in production.
		log := telemetry.NewLogger(os.Stderr, slog.LevelInfo, false)
		debug.SetGCPercent(command.GCPercent)
		return service.Run(ctx, c, service.Parts{
			Webhook: true, Worker: true, Activities: &noSteps{},
			Started: func(a net.Addr) { fmt.Fprintln(cmd.Root().Writer, a) },
		}, log)
	}}
}

func settings(cmd *cli.Command) (*config.Config, error) {
	flags := map[string]string{
		"apps": "1=" + secret, "listen": "127.0.0.1:0", "admin-listen": cmd.String("admin"), "data": cmd.String("dir"), "task-queue": taskQueue, "settling": "0s",
	}
	c, err := config.Load(func(name string) (string, bool) { v, ok := flags[name]; return v, ok }, true)
	if err != nil {
		return nil, err
	}
	c.Temporal = client.Options{HostPort: cmd.String("temporal"), Namespace: client.DefaultNamespace}
	return c, nil
}

// naiveCommand runs the naive handler.
func naiveCommand() *cli.Command {
	return &cli.Command{Name: "naive", Hidden: true, Flags: handlerFlags(), Action: func(ctx context.Context, cmd *cli.Command) error {
		temporal, err := client.Dial(client.Options{HostPort: cmd.String("temporal"), Logger: silent})
		if err != nil {
			return err
		}
		defer temporal.Close()
		if cmd.Bool("worker") {
			w := worker.New(temporal, taskQueue, worker.Options{})
			w.RegisterWorkflow(naiveWorkflow)
			w.RegisterActivity(naiveBill)
			w.RegisterActivity(naiveArchive)
			if err := w.Start(); err != nil {
				return err
			}
			defer w.Stop()
		}
		return serve(ctx, cmd, naiveHandler(temporal, cmd.Bool("findable")))
	}}
}

var silent = tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))

// setUp creates the search attributes on a new server.
func setUp(ctx context.Context, address, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	flags := map[string]string{"data": dir}
	c, err := config.Load(func(name string) (string, bool) { v, ok := flags[name]; return v, ok }, false)
	if err != nil {
		return err
	}
	c.Temporal = client.Options{HostPort: address, Namespace: client.DefaultNamespace}
	return service.Setup(ctx, c, slog.New(slog.DiscardHandler))
}

// loadCommand runs the closed loop alone, to profile a handler.
func loadCommand() *cli.Command {
	return &cli.Command{
		Name: "load", Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "address", Value: "127.0.0.1:8080"}, &cli.IntFlag{Name: "connections", Value: 64},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second},
			&cli.BoolFlag{Name: "events"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			next := newCallback
			if cmd.Bool("events") {
				next = newLogout
			}
			l, err := closedLoopOf(ctx, cmd.String("address"), cmd.Int("connections"), cmd.Duration("duration"), next)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.Root().Writer, "%.0f/s, p50 %v, p99 %v, %v\n", l.rate(), l.quantile(.5), l.quantile(.99), l.statuses)
			return err
		},
	}
}
