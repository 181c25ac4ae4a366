package command

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Send is the command that plays ZEGO.
func Send() *cli.Command {
	return &cli.Command{
		Name:  "send",
		Usage: "play ZEGO: sign room_close callbacks and post them",
		Description: "Tries again after 2, 4, 8, 16 and 32 s where it gets no 2XX, as ZEGO does. Signs with the first\n" +
			"secret of the app in CLOSEOUT_APPS. For example\n\n" +
			"    CLOSEOUT_APPS='1=secret' closeout send --room lobby --session 858012925204410417",
		Flags: append(Flags("APPS", "LISTEN", "CALLBACK_TOKEN"),
			&cli.StringFlag{Name: "url", Usage: "where to post (default: " + webhook.Path + " at CLOSEOUT_LISTEN on this machine)"},
			&cli.Uint32Flag{Name: "app", Usage: "appid (default: the lowest in CLOSEOUT_APPS)"},
			&cli.StringFlag{Name: "room", Value: "lobby", Usage: "room_id"},
			&cli.StringFlag{Name: "session", Usage: "room_session_id of the first callback, each further one has the next (default: a random one)"},
			&cli.Uint32Flag{Name: "reason", Usage: "close_reason: 0 normal, 1 heartbeat timed out, 2 offline, 3 kicked out"},
			&cli.TimestampFlag{Name: "closed-at", Usage: "room_close_time (default: now)", Config: cli.TimestampConfig{Layouts: []string{time.RFC3339Nano}}},
			&cli.IntFlag{Name: "count", Value: 1, Usage: "how many callbacks to send"},
			&cli.IntFlag{Name: "parallel", Value: 16, Usage: "how many to have under way at once"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for an answer"},
			&cli.BoolFlag{Name: "once", Usage: "don't try again"},
		),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, _, err := Load(cmd, true)
			if err != nil {
				return err
			}
			o, err := sendOptions(cmd, c)
			if err != nil {
				return err
			}
			report, err := send.Run(ctx, o, cmd.Root().Writer)
			if o.Count > 1 {
				fmt.Fprintf(cmd.Root().Writer, "%d acknowledged, %d lost\n", report.Acknowledged, report.Lost)
			}
			if err == nil && report.Lost > 0 {
				err = fmt.Errorf("%d of %d callbacks were not acknowledged", report.Lost, o.Count)
			}
			return err
		},
	}
}

func sendOptions(cmd *cli.Command, c *config.Config) (send.Options, error) {
	o := send.Options{
		URL:           cmd.String("url"),
		AppID:         cmd.Uint32("app"),
		RoomID:        cmd.String("room"),
		RoomSessionID: rand.Uint64(),
		CloseReason:   zego.CloseReason(cmd.Uint32("reason")),
		RoomCloseTime: cmp.Or(cmd.Timestamp("closed-at"), time.Now()),
		Count:         cmd.Int("count"),
		Parallel:      cmd.Int("parallel"),
		Timeout:       cmd.Duration("timeout"),
		Once:          cmd.Bool("once"),
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
	if s := cmd.String("session"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return o, fmt.Errorf("--session: found %q, want an integer from 0 to 18446744073709551615", s)
		}
		o.RoomSessionID = n
	}
	if o.Count < 1 || o.Parallel < 1 {
		return o, fmt.Errorf("--count and --parallel: found %d and %d, want at least 1 each", o.Count, o.Parallel)
	}
	return o, nil
}
