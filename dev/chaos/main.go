//go:build linux

// Command chaos proves Closeout's promises by breaking everything. Callbacks
// come in, many of them twice, while at random moments the webhook and the
// worker are killed, Temporal is stopped, and the webhook's disk is full. All of
// it is real: the binary, Temporal, the ledger, the archive. In the end an audit
// has to find one run, one bill and one manifest for every session that was
// acknowledged, and nothing else.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/urfave/cli/v3"

	command "github.com/closeouthq/closeout/internal/cli"
)

func main() {
	ctx, stop := command.Interruptible()
	if played, code := playTemporal(ctx); played {
		os.Exit(code)
	}
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, &cli.Command{
		Name:  "chaos",
		Usage: "kill, stop and fill up everything while callbacks come in, and audit what became of them",
		Description: "The long variant has outages of Temporal that are longer than ZEGO tries. The webhook's disk is made\n" +
			"full on a small file system, which has to be mounted and so needs root on Linux.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "sessions", Value: long.Sessions, Usage: "how many sessions are offered"},
			&cli.FloatFlag{Name: "rate", Value: long.Rate, Usage: "how many a second"},
			&cli.DurationFlag{Name: "outage", Value: long.Outage, Usage: "how long the outages of Temporal are, up to half as much again"},
			&cli.Uint64Flag{Name: "seed", Usage: "of all that is random (default: a random one)"},
			&cli.StringFlag{Name: "dir", Usage: "a new folder for everything, which is kept (default: one that is removed if all went well)"},
			&cli.BoolFlag{Name: "short", Usage: "the variant that CI runs"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			o := long
			if cmd.Bool("short") {
				o = short
			}
			if cmd.IsSet("sessions") {
				o.Sessions = cmd.Int("sessions")
			}
			if cmd.IsSet("rate") {
				o.Rate = cmd.Float("rate")
			}
			if cmd.IsSet("outage") {
				o.Outage = cmd.Duration("outage")
			}
			o.Seed, o.Dir = cmd.Uint64("seed"), cmd.String("dir")
			if !cmd.IsSet("seed") {
				o.Seed = rand.Uint64()
			}
			if o.Sessions < 1 || o.Rate <= 0 || o.Outage <= 0 {
				return fmt.Errorf("--sessions, --rate and --outage: found %d, %v and %v, want more than 0 each", o.Sessions, o.Rate, o.Outage)
			}
			return Run(ctx, o, cmd.Root().Writer)
		},
	}, args, stdout, stderr)
}

// The variants.
var (
	long  = Options{Sessions: 20_000, Rate: 60, Outage: 70 * time.Second, Pause: 20 * time.Second}
	short = Options{Sessions: 2000, Rate: 60, Outage: 4 * time.Second, Pause: 3 * time.Second}
)
