package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/telemetry"
)

// GCPercent is the garbage collector's target unless GOGC is set. A callback leaves little behind, and a burst's garbage
// is memory that a container would need.
const GCPercent = 50

func process(name, usage string, parts service.Parts, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: flags,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, err := loadSettings(cmd, parts.Webhook)
			if err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(GCPercent)
			}
			// A reader of the log that stops, or is gone, neither delays a callback nor ends the process.
			signal.Ignore(syscall.SIGPIPE)
			buffer := telemetry.NewBuffer(cmd.Root().ErrWriter)
			defer buffer.Flush()
			parts := parts
			parts.LogDropped = buffer.Dropped
			return service.Run(ctx, c, parts, newLogger(buffer, c))
		},
	}
}

func setup() *cli.Command {
	return &cli.Command{
		Name:        "setup",
		Usage:       "create the Namespace, Search Attributes, tables and, if wanted, buckets",
		Description: "Creates what is missing and keeps what exists, so it can run at any time.",
		Flags: append(flagsFor("setup"),
			&cli.DurationFlag{Name: "wait", Value: 2 * time.Minute, Usage: "how long to wait for Temporal, the database and the buckets"}),
		Action: operate(func(ctx context.Context, op *operation) error {
			ctx, cancel := context.WithTimeout(ctx, op.Duration("wait"))
			defer cancel()
			return service.Setup(ctx, op.config, op.log)
		}),
	}
}

func codecServer() *cli.Command {
	return &cli.Command{
		Name:  "codec",
		Usage: "decrypt payloads for Temporal's Web UI and command line",
		Description: "Runs a codec server for payloads that CLOSEOUT_PAYLOAD_KEYS encrypts. Set its address in the Web UI, or as\n" +
			"--codec-endpoint of `temporal`. Only pages of CLOSEOUT_UI_URL may call it. On any address other than the\n" +
			"loopback address, it requires CLOSEOUT_CODEC_TOKEN.",
		Flags:  flagsFor("codec"),
		Action: operate(func(ctx context.Context, op *operation) error { return service.RunCodec(ctx, op.config, op.log) }),
	}
}

func health() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask a running process whether it is ready",
		Description: "Requests /readyz at CLOSEOUT_ADMIN_LISTEN. If the process is not ready, fails and says why. For health checks\n" +
			"in containers.",
		Flags: Flags("ADMIN_LISTEN"),
		Action: operate(func(ctx context.Context, op *operation) error {
			ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
			defer cancel()
			ready, state, err := askReady(ctx, op.config)
			if err == nil && !ready {
				err = fmt.Errorf("not ready: %s", state)
			}
			if err == nil {
				fmt.Fprintln(op.out, state)
			}
			return err
		}),
	}
}

// askReady asks the process at the admin address whether it is ready, and for its state: "ok", or what is degraded.
func askReady(ctx context.Context, c *config.Config) (ready bool, state string, err error) {
	host, port, err := net.SplitHostPort(c.AdminListen)
	if err != nil {
		return false, "", fmt.Errorf("CLOSEOUT_ADMIN_LISTEN: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return false, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return resp.StatusCode == http.StatusOK, strings.TrimSpace(string(text)), err
}

func version() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print version, commit and date of this build",
		Action: func(_ context.Context, cmd *cli.Command) error {
			fmt.Fprintln(cmd.Root().Writer, cmd.Root().Name, buildinfo.Read())
			return nil
		},
	}
}
