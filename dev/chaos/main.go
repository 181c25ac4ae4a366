//go:build linux

// Command chaos tests Closeout's guarantees by breaking everything. It sends callbacks,
// many of them twice. At random moments it kills the webhook and the worker, stops
// Temporal, and fills the webhook's disk. All parts are real: the binary, Temporal, the
// ledger, the archive. In the end an audit must find exactly one run, one bill and one
// manifest for each acknowledged session.
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
		Usage: "kill processes, stop Temporal and fill the disk while callbacks arrive, then audit",
		Description: "In the long variant, outages of Temporal last longer than ZEGO retries. To fill the webhook's disk, the\n" +
			"test mounts a small file system, which needs root on Linux.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "sessions", Value: long.Sessions, Usage: "number of sessions"},
			&cli.FloatFlag{Name: "rate", Value: long.Rate, Usage: "sessions a second"},
			&cli.DurationFlag{Name: "outage", Value: long.Outage, Usage: "duration of an outage of Temporal; each is up to half as long again"},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of all random choices (default: a random seed)"},
			&cli.StringFlag{Name: "dir", Usage: "new folder for all files, which is kept (default: a folder that is removed after success)"},
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

// The variants of the test.
var (
	long  = Options{Sessions: 20_000, Rate: 60, Outage: 70 * time.Second, Pause: 20 * time.Second}
	short = Options{Sessions: 2000, Rate: 60, Outage: 4 * time.Second, Pause: 3 * time.Second}
)
