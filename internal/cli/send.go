package cli

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

// Send returns the command that plays ZEGO.
func Send() *cli.Command {
	return &cli.Command{
		Name:  "send",
		Usage: "play ZEGO: sign a room's callbacks and post them",
		Description: "Posts the room_close of one room. Signs with the first secret of the app in CLOSEOUT_APPS, and retries\n" +
			"after 2, 4, 8, 16 and 32 s without a 2XX, as ZEGO does. Fails if a callback is not acknowledged.\n\n" +
			"    CLOSEOUT_APPS='1=secret' closeout send --room lobby --session 858012925204410417\n" +
			"    CLOSEOUT_APPS='1=secret' closeout send --room lobby --participants 2",
		Flags: append(Flags("APPS", "LISTEN", "CALLBACK_TOKEN"),
			&cli.StringFlag{Name: "url", Usage: "address of the webhook (default: " + webhook.Path + " at CLOSEOUT_LISTEN on this machine)"},
			&cli.Uint32Flag{Name: "app", Usage: "appid (default: the lowest in CLOSEOUT_APPS)"},
			&cli.StringFlag{Name: "room", Value: "lobby", Usage: "room_id"},
			&cli.StringFlag{Name: "session", Usage: "room_session_id (default: a random one)"},
			&cli.Uint32Flag{Name: "reason", Usage: "close_reason: 0 normal, 1 heartbeat timed out, 2 offline, 3 kicked out"},
			&cli.TimestampFlag{Name: "closed-at", Usage: "room_close_time (default: now)", Config: cli.TimestampConfig{Layouts: []string{time.RFC3339Nano}}},
			&cli.IntFlag{Name: "participants", Usage: "first play a room of so many users: its creation, logins, a stream and logouts"},
			&cli.IntFlag{Name: "count", Value: 1, Usage: "number of sessions, one after the other, with consecutive IDs"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for an answer"},
			&cli.BoolFlag{Name: "once", Usage: "don't retry"},
		),
		Action: sendCallbacks,
	}
}

func sendCallbacks(ctx context.Context, cmd *cli.Command) error {
	c, _, err := Load(cmd, true)
	if err != nil {
		return err
	}
	closed, err := roomToClose(cmd, c)
	if err != nil {
		return err
	}
	sender := &send.Sender{URL: cmd.String("url"), Secret: c.Apps[closed.AppID][0], Timeout: cmd.Duration("timeout"), Once: cmd.Bool("once")}
	if sender.URL == "" {
		if sender.URL, err = ownURL(c); err != nil {
			return err
		}
	}
	if err := send.CheckURL(sender.URL); err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	sent, lost := 0, 0
	for range cmd.Int("count") {
		for _, event := range send.Events(closed, cmd.Int("participants")) {
			about := fmt.Sprintf("room_session_id %d, ", closed.RoomSessionID)
			if name := event.Head().Event; name != zego.EventRoomClose {
				about += name + ", "
			}
			ok, err := sender.Send(ctx, event, func(line string) { fmt.Fprintln(cmd.Root().Writer, about+line) })
			if err != nil {
				return fmt.Errorf("stopped before all was sent: %w", err)
			}
			if sent++; !ok {
				lost++
			}
		}
		closed.RoomSessionID = max(closed.RoomSessionID+1, 1) // 0 is no session
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d callbacks were not acknowledged", lost, sent)
	}
	return nil
}

// roomToClose returns the callback that the flags describe.
func roomToClose(cmd *cli.Command, c *config.Config) (closed zego.RoomClose, err error) {
	closed = zego.RoomClose{RoomID: cmd.String("room"), CloseReason: zego.CloseReason(cmd.Uint32("reason")), RoomSessionID: rand.Uint64()}
	closed.AppID = slices.Min(slices.Collect(maps.Keys(c.Apps)))
	if cmd.IsSet("app") {
		closed.AppID = cmd.Uint32("app")
	}
	if closed.RoomCloseTime = cmd.Timestamp("closed-at"); closed.RoomCloseTime.IsZero() {
		closed.RoomCloseTime = time.Now()
	}
	if s := cmd.String("session"); s != "" {
		if closed.RoomSessionID, err = strconv.ParseUint(s, 10, 64); err != nil {
			return closed, fmt.Errorf("--session: found %q, want an integer from 0 to 18446744073709551615", s)
		}
	}
	switch {
	case len(c.Apps[closed.AppID]) == 0:
		err = fmt.Errorf("--app: CLOSEOUT_APPS has no secret for app %d", closed.AppID)
	case closed.RoomID == "":
		err = fmt.Errorf("--room: found an empty name, want at least a character")
	case cmd.Int("count") < 1:
		err = fmt.Errorf("--count: found %d, want at least 1", cmd.Int("count"))
	case cmd.Int("participants") < 0:
		err = fmt.Errorf("--participants: found %d, want 0 or more", cmd.Int("participants"))
	case cmd.Duration("timeout") <= 0:
		err = fmt.Errorf("--timeout: found %v, want more than 0s", cmd.Duration("timeout"))
	}
	return closed, err
}

// ownURL returns the address of a webhook on this machine that has these settings.
func ownURL(c *config.Config) (string, error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", fmt.Errorf("CLOSEOUT_LISTEN: %w", err)
	}
	u := "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + webhook.Path
	if c.CallbackToken != "" {
		u += "/" + c.CallbackToken
	}
	return u, nil
}
