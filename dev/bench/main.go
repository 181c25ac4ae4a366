//go:build linux

// Command bench compares Closeout with the bare SDK, with a naive handler, and with bare
// handlers that only verify and store, side by side on the same real Temporal server.
// `make bench` runs all of it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	command "github.com/closeouthq/closeout/internal/cli"
)

func main() {
	ctx, stop := command.Interruptible()
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	measures := []measure{
		{"parse", "the cost of one callback", measureParse},
		{"knee", "starts a second, by the number in flight", measureKnee},
		{"healthy", "starts through to Temporal, against the SDK alone and the naive handler", measureHealthy},
		{"burst", "callbacks acknowledged with Temporal down, against handlers that only verify and store", measureBurst},
		{"events", "callbacks of participants acknowledged, against a bare batched INSERT", measureEvents},
		{"outage", "callbacks lost while Temporal is down for 90 s, against the naive handler", measureOutage},
		{"backlog", "the cost of a million callbacks in the inbox", measureBacklog},
		{"finishing", "runs completed, against the naive handler", measureFinishing},
		{"cost", "the cost of a closed session and of an idle day for Temporal, against the naive handler", measureCost},
		{"closing", "sessions closed out by serve, against another binary", measureClosing},
		{"drain", "the rate at which a backlog is started, and its effect on new callbacks", measureDrain},
		{"attack", "the latency of genuine callbacks beside slow clients, forgers and large bodies", measureAttack},
		{"archive", "recordings moved to a folder and to S3, against rclone", measureArchive},
	}
	// Hide the commands that the benchmarks run as processes.
	commands := []*cli.Command{temporalCommand(), bareCommand(), closeoutCommand(), naiveCommand(), loadCommand(), attackCommand()}
	for _, m := range measures {
		commands = append(commands, &cli.Command{Name: m.name, Usage: m.usage, Action: func(ctx context.Context, cmd *cli.Command) error {
			return take(ctx, cmd, m)
		}})
	}
	return command.Run(ctx, &cli.Command{
		Name:     "bench",
		Usage:    "measure Closeout against its baselines; all of it, or one of the commands",
		Commands: commands,
		Action:   func(ctx context.Context, cmd *cli.Command) error { return take(ctx, cmd, measures...) },
	}, args, stdout, stderr)
}

// measure is one benchmark.
type measure struct {
	name, usage string
	take        func(context.Context, *bench) error
}

func take(ctx context.Context, cmd *cli.Command, measures ...measure) error {
	b, err := newBench(ctx, cmd.Root().Writer, cmd.Root().ErrWriter)
	if err != nil {
		return err
	}
	defer b.close()
	for _, m := range measures {
		if err := m.take(ctx, b); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	return nil
}
