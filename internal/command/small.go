package command

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
)

func setup() *cli.Command {
	return &cli.Command{
		Name:        "setup",
		Usage:       "make the namespace, its search attributes, the ledger's tables and, if wanted, the buckets",
		Description: "Makes what is missing and leaves alone what is there, so it may be run any number of times.",
		Flags: append(Flags("DATA", "DATABASE_URL", "RECORDINGS_URL", "ARCHIVE_URL", "MAKE_BUCKETS", "RETENTION", "TASK_QUEUE", "RECONCILE_INTERVAL", "LOG_LEVEL", "LOG_FORMAT"),
			&cli.DurationFlag{Name: "wait", Value: 2 * time.Minute, Usage: "how long to wait for Temporal, the database and the buckets"}),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, log, err := Load(cmd, false)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, cmd.Duration("wait"))
			defer cancel()
			return service.Setup(ctx, c, log)
		},
	}
}

func health() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask a running process whether it is ready",
		Description: "Asks /readyz at CLOSEOUT_ADMIN_LISTEN, and fails with what is wrong. For health checks in\n" +
			"containers, which have no other program to ask with.",
		Flags: Flags("ADMIN_LISTEN"),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, _, err := Load(cmd, false)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
			defer cancel()
			ready, state, err := askReady(ctx, c)
			if err != nil {
				return err
			}
			if !ready {
				return fmt.Errorf("not ready: %s", state)
			}
			// "ok", or what is less than that.
			fmt.Fprintln(cmd.Root().Writer, state)
			return nil
		},
	}
}

// askReady asks the process at the admin address whether it is ready, and how it
// says that it is.
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
