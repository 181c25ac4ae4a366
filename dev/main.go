// Command dev runs all of Closeout in one process, without an installation: a real
// Temporal server on a SQLite file, its Web UI, the webhook and a worker.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v3"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/dev/server"
	command "github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/webhook"
)

func main() {
	// Catch signals before the server starts, so that no part of it is interrupted.
	ctx, stop := command.Interruptible()
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// All commands use the same app, so that the first callback needs no flags.
	if os.Getenv("CLOSEOUT_APPS") == "" && os.Getenv("CLOSEOUT_APPS_FILE") == "" {
		_ = os.Setenv("CLOSEOUT_APPS", "1=secret")
	}
	// Nobody wants to wait in a first run.
	if os.Getenv("CLOSEOUT_SETTLING") == "" {
		_ = os.Setenv("CLOSEOUT_SETTLING", "3s")
	}
	// Set a price, so that a bill has an amount.
	if os.Getenv("CLOSEOUT_PRICES") == "" {
		_ = os.Setenv("CLOSEOUT_PRICES", "*=EUR 2")
	}
	if port := os.Getenv("CLOSEOUT_DEV_UI_PORT"); port != "" && os.Getenv("CLOSEOUT_UI_URL") == "" {
		_ = os.Setenv("CLOSEOUT_UI_URL", "http://localhost:"+port)
	}
	if port := os.Getenv("CLOSEOUT_DEV_TEMPORAL_PORT"); port != "" && os.Getenv("TEMPORAL_ADDRESS") == "" {
		_ = os.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:"+port)
	}
	return command.Run(ctx, &cli.Command{
		Name:  "go run -C dev .",
		Usage: "run Temporal, its Web UI, the webhook and a worker in one process",
		Description: "CLOSEOUT_DATA keeps all state, which survives a restart. Ctrl-C stops everything. Unless you set\n" +
			"CLOSEOUT_APPS, CLOSEOUT_SETTLING and CLOSEOUT_PRICES, there is one app, 1 with the secret `secret`,\n" +
			"a run starts 3 s after its callback, and a minute costs 2 cents.",
		Flags:    append(command.Flags(), devFlags()...),
		Commands: []*cli.Command{alone(), command.Send(), command.Blocked(), command.Inbox(), command.Status(), command.Bill(service.Extension{}), command.Audit(), command.Repair(service.Extension{}), command.Archive(), command.Recording(), command.Doctor(), command.History()},
		Action:   dev,
	}, args, stdout, stderr)
}

func devFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "temporal-port", Value: 7233, Usage: "port of Temporal", Sources: cli.EnvVars("CLOSEOUT_DEV_TEMPORAL_PORT")},
		&cli.IntFlag{Name: "ui-port", Value: 8233, Usage: "port of Temporal's Web UI", Sources: cli.EnvVars("CLOSEOUT_DEV_UI_PORT")},
		&cli.BoolFlag{Name: "encrypt", Usage: "encrypt Temporal's payloads, and decrypt them for the Web UI; without CLOSEOUT_PAYLOAD_KEYS with a new key in the data folder"},
	}
}

func dev(ctx context.Context, cmd *cli.Command) error {
	return withTemporal(ctx, cmd, func(c *config.Config, temporal *server.Server, log *slog.Logger) error {
		return service.Run(ctx, c, service.Parts{Webhook: true, Worker: true, Started: func(callbacks net.Addr) {
			fmt.Fprint(cmd.Root().Writer, welcome(cmd, c, temporal, callbacks.(*net.TCPAddr).Port))
			fmt.Fprint(cmd.Root().Writer, aboutKeys(cmd, c))
		}}, log)
	})
}

// alone is the command that runs Temporal without webhook and worker, for your own
// program.
func alone() *cli.Command {
	return &cli.Command{
		Name:  "temporal",
		Usage: "run only Temporal and its Web UI, for your own program",
		Description: "Creates the Namespace, its Search Attributes and the ledger's tables, as setup does. CLOSEOUT_DATA\n" +
			"keeps all state, which survives a restart. Ctrl-C stops Temporal.",
		Flags: append(command.Flags("DATA", "DATABASE_URL", "PAYLOAD_KEYS", "CODEC_LISTEN", "LOG_LEVEL", "LOG_FORMAT"), devFlags()...),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			return withTemporal(ctx, cmd, func(c *config.Config, temporal *server.Server, _ *slog.Logger) error {
				fmt.Fprintf(cmd.Root().Writer, `
Temporal is running.

  Temporal Web UI  %s
  Temporal         %s, namespace %s

Run your program with

  export TEMPORAL_ADDRESS='%s' TEMPORAL_NAMESPACE='%s'
  export CLOSEOUT_APPS='1=secret'   # or your own apps

Ctrl-C stops Temporal.

`, temporal.UIURL(), temporal.Address(), c.Temporal.Namespace, temporal.Address(), c.Temporal.Namespace)
				fmt.Fprint(cmd.Root().Writer, aboutKeys(cmd, c))
				<-ctx.Done()
				return nil
			})
		},
	}
}

// withTemporal runs Temporal with everything that Closeout needs, until then returns.
func withTemporal(ctx context.Context, cmd *cli.Command, then func(*config.Config, *server.Server, *slog.Logger) error) (err error) {
	c, log, err := command.Load(cmd, true)
	if err != nil {
		return err
	}
	endpoint, decrypt, err := encrypt(ctx, cmd, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, decrypt.Close()) }()
	fmt.Fprintln(cmd.Root().Writer, "starting Temporal ...")
	temporal, err := server.Start(ctx, server.Options{
		Dir:       filepath.Join(c.Data, "temporal"),
		Port:      cmd.Int("temporal-port"),
		UIPort:    cmd.Int("ui-port"),
		Namespace: c.Temporal.Namespace,
		Logger:    log,

		CodecEndpoint: endpoint,
	})
	if err != nil {
		return fmt.Errorf("%w (--temporal-port and --ui-port choose other ports, --data another folder)", err)
	}
	defer func() { err = errors.Join(err, temporal.Stop()) }()

	decrypt.serve(temporal.UIURL())

	// Ignore the settings of any other Temporal in the environment.
	c.Temporal = client.Options{HostPort: temporal.Address(), Namespace: c.Temporal.Namespace}
	if err := service.Setup(ctx, c, log); err != nil {
		return err
	}
	return then(c, temporal, log)
}

// welcome prints all addresses, and how to send a callback.
func welcome(cmd *cli.Command, c *config.Config, temporal *server.Server, port int) string {
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://localhost:%d%s", scheme, port, callbackPath(c))
	appID := slices.Min(slices.Collect(maps.Keys(c.Apps)))
	secret := "$SECRET" // don't print a secret of the user
	if secrets := c.Apps[appID]; len(secrets) == 1 && secrets[0] == "secret" {
		secret = "secret"
	}
	elsewhere := ""
	if port != 8080 || scheme != "http" {
		elsewhere = " --url " + url
	}
	if cmd.IsSet("data") {
		elsewhere += " --data " + c.Data
	}
	return fmt.Sprintf(`
Closeout is running.

  Temporal Web UI  %s
  Temporal         %s
  callbacks        %s
  health, metrics  http://%s/readyz, /metrics
  bills            %s
  recordings       %s
  archive          %s

Close a room from another terminal, in the same folder:

  go run -C dev . send%s --room lobby

Its bill is made %v later. Or by hand:

  ts=$(date +%%s) nonce=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
  sig=$(printf '%%s\n' "%s" "$ts" "$nonce" | LC_ALL=C sort | tr -d '\n' | sha1sum | cut -c1-40)
  curl -i "%s" -d '{"event":"room_close","appid":%d,"timestamp":'$ts',"nonce":"'$nonce'","signature":"'$sig'","room_id":"by-hand","room_session_id":'$ts',"close_reason":0,"room_close_time":"'$ts'000"}'

Ctrl-C stops everything.

`, temporal.UIURL(), temporal.Address(), url, c.AdminListen, config.Where(c.DatabaseURL), config.Where(c.RecordingsURL), config.Where(c.ArchiveURL),
		elsewhere, c.Settling, secret, url, appID)
}

// callbackPath returns the path of callbacks, with the token as a shell variable.
func callbackPath(c *config.Config) string {
	if c.CallbackToken == "" {
		return webhook.Path
	}
	return webhook.Path + "/$CLOSEOUT_CALLBACK_TOKEN"
}
