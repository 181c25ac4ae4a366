package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"gocloud.dev/blob"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/send"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Send returns the command that plays ZEGO.
func Send() *cli.Command {
	return &cli.Command{
		Name:  "send",
		Usage: "play ZEGO: sign a room's callbacks and post them",
		Description: "Posts the callbacks of one room as ZEGO does: its creation, users and a stream that come and go, a recording,\n" +
			"and its end. Signs with the first secret of the app in CLOSEOUT_APPS. Without a 2xx, retries after 2, 4, 8, 16\n" +
			"and 32 s. Fails if a callback is not acknowledged.\n\n" +
			"The recording is a file of one second. It is first written to CLOSEOUT_RECORDINGS_URL if that is an existing\n" +
			"folder and the webhook is on this machine.\n\n" +
			"With --replay, sends saved bodies of callbacks instead, with a new timestamp, nonce and signature.\n\n" +
			"    CLOSEOUT_APPS='1=secret' closeout send --room lobby\n" +
			"    CLOSEOUT_APPS='1=secret' closeout send --room lobby --session 858012925204410417 --only room_close\n" +
			"    CLOSEOUT_APPS='1234567890=secret' closeout send --replay callback.json",
		Flags: append(Flags("APPS", "LISTEN", "CALLBACK_TOKEN", "DATA", "RECORDINGS_URL", "UI_URL"),
			&cli.StringFlag{Name: "url", Usage: "address of the webhook (default: " + webhook.Path + " at CLOSEOUT_LISTEN on this machine)"},
			&cli.Uint32Flag{Name: "app", Usage: "appid (default: the lowest in CLOSEOUT_APPS)"},
			&cli.StringFlag{Name: "room", Value: "lobby", Usage: "room_id"},
			&cli.StringFlag{Name: "session", Usage: "room_session_id (default: a random one)"},
			&cli.StringFlag{Name: "reason", Value: string(zego.CloseNormal), Usage: "close_reason: 0 normal, 1 heartbeat timed out, 2 offline, 3 kicked out"},
			&cli.TimestampFlag{Name: "closed-at", Usage: "room_close_time (default: now)", Config: cli.TimestampConfig{Layouts: []string{time.RFC3339Nano}}},
			&cli.IntFlag{Name: "participants", Value: 2, Usage: "number of users in the room"},
			&cli.BoolFlag{Name: "recording", Usage: "write a recording to CLOSEOUT_RECORDINGS_URL, wherever that is; --recording=false: send none"},
			&cli.StringFlag{Name: "only", Usage: "send only the callbacks of this event, such as room_close"},
			&cli.StringFlag{Name: "replay", Usage: "send the callbacks in this file, JSON objects, with new signatures", TakesFile: true},
			&cli.IntFlag{Name: "count", Value: 1, Usage: "number of sessions, one after the other, with consecutive IDs"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long to wait for an answer"},
			&cli.BoolFlag{Name: "once", Usage: "do not retry"},
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
	out := cmd.Root().Writer
	p := &send.Sender{URL: cmd.String("url"), Secret: c.Apps[closed.AppID][0], Timeout: cmd.Duration("timeout"), Once: cmd.Bool("once"),
		Report: func(name, line string) { fmt.Fprintf(out, "  %-13s  %s\n", name, line) }}
	if p.URL == "" {
		if p.URL, err = ownURL(c); err != nil {
			return err
		}
	}
	if err := send.CheckURL(p.URL); err != nil {
		return usagef("--url: %w", err)
	}
	if file := cmd.String("replay"); file != "" {
		err = replay(ctx, p, file, c)
	} else {
		err = sendRooms(ctx, p, cmd, c, closed)
	}
	if err == nil && p.Lost > 0 {
		err = fmt.Errorf("%d of %d callbacks were not acknowledged", p.Lost, p.Sent)
		if p.NoAnswer {
			err = unreachableError{err}
		}
	}
	return err
}

// sendRooms sends as many rooms as the flags say.
func sendRooms(ctx context.Context, p *send.Sender, cmd *cli.Command, c *config.Config, closed zego.RoomClose) error {
	bucket, err := recordingsBucket(ctx, cmd, c, p.URL)
	if err != nil {
		return fmt.Errorf("CLOSEOUT_RECORDINGS_URL: %w", err)
	}
	if bucket != nil {
		defer bucket.Close()
	}
	only := cmd.String("only")
	for n := range cmd.Int("count") {
		if n > 0 {
			closed.RoomSessionID = max(closed.RoomSessionID+1, 1) // 0 is no session
		}
		var recording *zego.Recording
		if bucket != nil && (only == "" || only == zego.EventRecording) {
			if recording, err = send.Record(ctx, bucket, closed); err != nil {
				return fmt.Errorf("write the sample recording: %w", err)
			}
		}
		events := send.Events(closed, cmd.Int("participants"), recording)
		if only != "" {
			var names []string
			for _, e := range events {
				names = slices.Compact(append(names, e.Head().Event))
			}
			events = slices.DeleteFunc(events, func(e zego.Event) bool { return e.Head().Event != only })
			if len(events) == 0 {
				return usagef("--only: found %q, want one of %s", only, strings.Join(names, ", "))
			}
		}
		fmt.Fprintf(cmd.Root().Writer, "room_session_id %d\n", closed.RoomSessionID)
		for _, event := range events {
			if err := p.Send(ctx, event); err != nil {
				return err
			}
		}
	}
	if only == "" && cmd.Int("count") == 1 && p.Lost == 0 {
		printNext(cmd, c, closed)
	}
	return nil
}

// printNext prints what to look at after a room was sent.
func printNext(cmd *cli.Command, c *config.Config, closed zego.RoomClose) {
	program := cmd.Root().Name
	fmt.Fprintf(cmd.Root().Writer, `
Look at its run and its bill:
  %s
  %s status --wait 5m %d
  %s bill show %d
Send the same again with --session %d --closed-at %s
`, runURL(c, session.Of(&closed).WorkflowID(), ""), program, closed.RoomSessionID, program, closed.RoomSessionID,
		closed.RoomSessionID, closed.RoomCloseTime.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

// recordingsBucket returns the bucket that a sample recording goes to; nil if there is none. A webhook elsewhere may
// have another, in which a run would wait for the file.
func recordingsBucket(ctx context.Context, cmd *cli.Command, c *config.Config, webhook string) (*blob.Bucket, error) {
	if cmd.IsSet("recording") {
		if !cmd.Bool("recording") {
			return nil, nil
		}
		return archive.OpenBucket(ctx, c.RecordingsURL)
	}
	u, err := url.Parse(webhook)
	if err != nil || u.Hostname() != "localhost" && !net.ParseIP(u.Hostname()).IsLoopback() || !strings.HasPrefix(c.RecordingsURL, "file:") {
		return nil, err
	}
	bucket, err := archive.OpenExisting(ctx, c.RecordingsURL)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return bucket, err
}

// replay sends the bodies in a file again, all of them or none.
func replay(ctx context.Context, p *send.Sender, name string, c *config.Config) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return usagef("--replay: %w", err)
	}
	bodies, err := send.Bodies(text)
	for n := range bodies {
		if err != nil {
			break
		}
		if bodies[n], err = send.Resign(bodies[n], func(appID uint32) (string, error) {
			if len(c.Apps[appID]) == 0 {
				return "", fmt.Errorf("CLOSEOUT_APPS has no secret for its app %d", appID)
			}
			return c.Apps[appID][0], nil
		}); err != nil {
			err = fmt.Errorf("callback %d: %w", n+1, err)
		}
	}
	if err != nil {
		return usagef("--replay: %s: %w", name, err)
	}
	for n, body := range bodies {
		if err := p.Post(ctx, fmt.Sprint("callback ", n+1), body); err != nil {
			return err
		}
	}
	return nil
}

// roomToClose returns the callback that the flags describe.
func roomToClose(cmd *cli.Command, c *config.Config) (closed zego.RoomClose, err error) {
	closed = zego.RoomClose{RoomID: cmd.String("room"), CloseReason: zego.Code(cmd.String("reason")), RoomSessionID: max(rand.Uint64(), 1)}
	closed.AppID = slices.Min(slices.Collect(maps.Keys(c.Apps)))
	if cmd.IsSet("app") {
		closed.AppID = cmd.Uint32("app")
	}
	if closed.RoomCloseTime = cmd.Timestamp("closed-at"); closed.RoomCloseTime.IsZero() {
		closed.RoomCloseTime = time.Now()
	}
	if s := cmd.String("session"); s != "" {
		if closed.RoomSessionID, err = strconv.ParseUint(s, 10, 64); err != nil {
			return closed, usagef("--session: found %q, want an integer from 0 to 18446744073709551615", s)
		}
	}
	switch {
	case len(c.Apps[closed.AppID]) == 0:
		err = usagef("--app: CLOSEOUT_APPS has no secret for app %d", closed.AppID)
	case closed.RoomID == "":
		err = usagef("--room: found an empty name, want at least a character")
	case cmd.Int("count") < 1:
		err = usagef("--count: found %d, want at least 1", cmd.Int("count"))
	case cmd.Int("participants") < 0 || cmd.Int("participants") > maxParticipants:
		err = usagef("--participants: found %d, want 0 to %d", cmd.Int("participants"), maxParticipants)
	case cmd.Duration("timeout") <= 0:
		err = usagef("--timeout: found %v, want more than 0s", cmd.Duration("timeout"))
	}
	return closed, err
}

// maxParticipants bounds the users of a room, which is made in memory.
const maxParticipants = 100_000

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
