// Command load plays ZEGO under load: many rooms at a rate, with duplicates, disorder and forgeries.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/audit"
	command "github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

func main() {
	ctx, stop := command.Interruptible()
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, &cli.Command{
		Name:  "load",
		Usage: "play ZEGO under load: sign callbacks of many rooms and post them",
		Description: "Retries after 2, 4, 8, 16 and 32 s without a 2xx, as ZEGO does. With --rate, callbacks are sent when they\n" +
			"are due, however slow the answers are, and latency counts from then. For example, send 20,000 sessions, 500\n" +
			"a second and 1,000 at once every 10 s, some twice, out of order, and with forgeries:\n\n" +
			"    go run -C dev ./load --count 20000 --rate 500 --burst 1000 --burst-every 10s \\\n" +
			"      --duplicates 0.3 --spread 5s --bad-signatures 0.01 --journal sent.jsonl\n\n" +
			"With --participants, users come, go and come back in each session. The journal has their stays, so that\n" +
			"`closeout audit` can compare the bills.\n\n" +
			"Fails if a genuine callback is not acknowledged, or if a badly signed one is.",
		Flags: append(command.Flags("APPS", "LISTEN", "CALLBACK_TOKEN"),
			&cli.StringFlag{Name: "url", Usage: "address to post to (default: " + webhook.Path + " at CLOSEOUT_LISTEN on this machine)"},
			&cli.Uint32Flag{Name: "app", Usage: "appid (default: the lowest in CLOSEOUT_APPS)"},
			&cli.StringFlag{Name: "room", Value: "lobby", Usage: "room_id"},
			&cli.IntFlag{Name: "rooms", Value: 1, Usage: "number of rooms, which the sessions use in turn; with several, -1, -2 ... is appended to --room"},
			&cli.StringFlag{Name: "session", Usage: "room_session_id of the first session, the next ones count up (default: drawn from the seed)"},
			&cli.StringFlag{Name: "reason", Value: string(zego.CloseNormal), Usage: "close_reason: 0 normal, 1 heartbeat timed out, 2 offline, 3 kicked out"},
			&cli.TimestampFlag{Name: "closed-at", Usage: "room_close_time (default: when a session's callback is first sent)", Config: cli.TimestampConfig{Layouts: []string{time.RFC3339Nano}}},
			&cli.IntFlag{Name: "count", Value: 1, Usage: "number of sessions"},
			&cli.FloatFlag{Name: "rate", Usage: "sessions to offer a second, whatever the answers; 0 offers the next when a connection is free"},
			&cli.IntFlag{Name: "burst", Usage: "sessions to offer at one instant, at the start and then every --burst-every"},
			&cli.DurationFlag{Name: "burst-every", Usage: "time from one burst to the next"},
			&cli.DurationFlag{Name: "spread", Usage: "maximum random delay of each delivery, which changes their order"},
			&cli.FloatFlag{Name: "duplicates", Usage: "share of sessions with a callback delivered twice, 0 to 1"},
			&cli.IntFlag{Name: "participants", Usage: "users of each session; adds room_create, room_login and room_logout to room_close"},
			&cli.FloatFlag{Name: "missing", Usage: "with --participants, share of those callbacks that are never sent, 0 to 1"},
			&cli.FloatFlag{Name: "bad-signatures", Usage: "share of sessions with an additional, badly signed callback, 0 to 1"},
			&cli.FloatFlag{Name: "resign", Value: 0.5, Usage: "share of sessions with a new timestamp, nonce and signature in each further delivery, 0 to 1"},
			&cli.Uint64Flag{Name: "seed", DefaultText: "a random one", Usage: "seed of all random choices, which repeats a run"},
			&cli.IntFlag{Name: "parallel", DefaultText: "16, and 512 with --rate or --burst", Usage: "maximum number of parallel attempts"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for an answer"},
			&cli.BoolFlag{Name: "once", Usage: "don't retry"},
			&cli.BoolFlag{Name: "verbose", Usage: "print a line about each attempt, even for more than 20 sessions"},
			&cli.StringFlag{Name: "json", Usage: "write the report as JSON to this file, or to stdout if it is -"},
			&cli.StringFlag{Name: "journal", Usage: "write the outcome of each session to this file, as JSON Lines"},
		),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, _, err := command.Load(cmd, true)
			if err != nil {
				return err
			}
			o, err := sendOptions(cmd, c)
			if err != nil {
				return err
			}
			return sendAll(ctx, cmd, o)
		},
	}, args, stdout, stderr)
}

// sendAll sends the callbacks, and writes the report and the journal.
func sendAll(ctx context.Context, cmd *cli.Command, o load.Options) (err error) {
	out, reportTo := cmd.Root().Writer, io.Writer(nil)
	switch path := cmd.String("json"); path {
	case "":
	case "-":
		out, reportTo = cmd.Root().ErrWriter, out
	default:
		// Open the file first, so that a mistake is found before the run.
		f, createErr := os.Create(path)
		if createErr != nil {
			return fmt.Errorf("--json: %w", createErr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		reportTo = f
	}
	o.Progress = cmd.Root().ErrWriter
	if path := cmd.String("journal"); path != "" {
		f, createErr := os.Create(path)
		if createErr != nil {
			return fmt.Errorf("--journal: %w", createErr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		stoppable, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		ctx = stoppable
		// Write each line at once, so that it isn't lost if the program is killed.
		journal := json.NewEncoder(f)
		o.Journal = func(e audit.Entry) {
			if err := journal.Encode(e); err != nil {
				stop(fmt.Errorf("--journal: %w", err))
			}
		}
	}

	report, err := load.Run(ctx, o, out)
	if report == nil {
		return err
	}
	if err != nil {
		err = fmt.Errorf("stopped before all was sent: %w", err)
	}
	// A single callback's line says everything.
	if o.Count > 1 || o.Duplicates > 0 || o.BadSignatures > 0 || o.Participants > 0 || reportTo != nil {
		err = errors.Join(err, report.WriteText(out))
	}
	if reportTo != nil {
		enc := json.NewEncoder(reportTo)
		enc.SetIndent("", "  ")
		if encodeErr := enc.Encode(report); encodeErr != nil {
			err = errors.Join(err, fmt.Errorf("--json: %w", encodeErr))
		}
	}
	if report.Lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d callbacks were not acknowledged", report.Lost, o.Count))
	}
	if u := report.Events; u != nil && u.Lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d callbacks of participants were not acknowledged", u.Lost, u.Callbacks))
	}
	if accepted := report.BadlySigned.Accepted; accepted > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d badly signed callbacks were accepted", accepted, report.BadlySigned.Sent))
	}
	return err
}

func sendOptions(cmd *cli.Command, c *config.Config) (load.Options, error) {
	o := load.Options{
		URL:           cmd.String("url"),
		AppID:         cmd.Uint32("app"),
		RoomID:        cmd.String("room"),
		Rooms:         cmd.Int("rooms"),
		CloseReason:   zego.Code(cmd.String("reason")),
		RoomCloseTime: cmd.Timestamp("closed-at"),
		Count:         cmd.Int("count"),
		Rate:          cmd.Float("rate"),
		Burst:         cmd.Int("burst"),
		BurstEvery:    cmd.Duration("burst-every"),
		Spread:        cmd.Duration("spread"),
		Duplicates:    cmd.Float("duplicates"),
		BadSignatures: cmd.Float("bad-signatures"),
		Participants:  cmd.Int("participants"),
		Missing:       cmd.Float("missing"),
		Resign:        cmd.Float("resign"),
		Seed:          rand.Uint64(),
		Parallel:      cmd.Int("parallel"),
		Timeout:       cmd.Duration("timeout"),
		Once:          cmd.Bool("once"),
		Verbose:       cmd.Bool("verbose"),
	}
	if o.URL == "" {
		host, port, err := net.SplitHostPort(c.Listen)
		if err != nil {
			return o, fmt.Errorf("CLOSEOUT_LISTEN: %w", err)
		}
		o.URL = "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + webhook.Path
		if c.CallbackToken != "" {
			o.URL += "/" + c.CallbackToken
		}
	}
	if !cmd.IsSet("app") {
		o.AppID = slices.Min(slices.Collect(maps.Keys(c.Apps)))
	}
	secrets, ok := c.Apps[o.AppID]
	if !ok {
		return o, fmt.Errorf("--app: CLOSEOUT_APPS has no secret for app %d", o.AppID)
	}
	o.Secret = secrets[0]
	if cmd.IsSet("seed") {
		o.Seed = cmd.Uint64("seed")
	}
	if s := cmd.String("session"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return o, fmt.Errorf("--session: found %q, want an integer from 0 to 18446744073709551615", s)
		}
		o.RoomSessionID = n
	} else {
		// Draw it from another stream than the run, which the same seed determines.
		o.RoomSessionID = rand.New(rand.NewPCG(o.Seed, 1)).Uint64()
	}
	// In the options, 0 means the default. Refuse an explicit 0.
	for _, name := range []string{"rooms", "parallel"} {
		if cmd.IsSet(name) && cmd.Int(name) < 1 {
			return o, fmt.Errorf("--%s: found %d, want at least 1", name, cmd.Int(name))
		}
	}
	return o, o.Validate()
}
