// Package command is Closeout's command line.
package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/telemetry"
)

// Main runs the command line of a program with that extension until ctx ends. It
// returns the exit code: 0, or 1 after an error, which it writes to stderr.
func Main(ctx context.Context, extension service.Extension, args []string, stdout, stderr io.Writer) int {
	return Run(ctx, Root(extension, filepath.Base(args[0])), args, stdout, stderr)
}

// Root returns the command tree of a program with that extension and name.
func Root(extension service.Extension, name string) *cli.Command {
	all := Flags()
	root := &cli.Command{
		Name:    name,
		Usage:   "close out the voice rooms that ZEGO has destroyed",
		Version: buildinfo.Read().String(),
		Description: "Takes ZEGO's room_close callbacks and runs a Temporal workflow for each session, once.\n\n" +
			"Every setting is an environment variable and a flag. Temporal's own are those of its SDKs:\n" +
			"TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS_*, TEMPORAL_API_KEY, TEMPORAL_PROFILE.\n\n" +
			"A first start, with Temporal on localhost:7233:\n\n" +
			"    export CLOSEOUT_APPS='1=secret'\n    " + name + " setup\n    " + name + " serve",
		EnableShellCompletion: true,
		Action:                func(_ context.Context, cmd *cli.Command) error { return cli.ShowRootCommandHelp(cmd) },
		Commands: []*cli.Command{
			run("serve", "take callbacks and run workflows, in one process", service.Parts{Webhook: true, Worker: true, Extension: extension}, all),
			run("webhook", "take callbacks", service.Parts{Webhook: true, Extension: extension}, Flags("APPS", "LISTEN", "TLS_CERT", "TLS_KEY", "ADMIN_LISTEN", "CALLBACK_TOKEN", "CALLBACK_WINDOW", "DATA", "DATABASE_URL", "USAGE",
				"TASK_QUEUE", "APP_WEIGHTS", "PAYLOAD_KEYS", "STOP_TIMEOUT", "DRAIN_TIMEOUT", "LOG_LEVEL", "LOG_FORMAT")),
			run("worker", "run workflows", service.Parts{Worker: true, Extension: extension}, Flags("ADMIN_LISTEN", "DATA", "DATABASE_URL", "USAGE", "RECORDINGS_URL", "ARCHIVE_URL", "ARCHIVE_TRANSFERS", "ARCHIVE_CLASS",
				"ARCHIVE_ENCRYPTION", "ARCHIVE_TAGS", "RECORDINGS_DELETE", "RECORDINGS", "RECORDINGS_PREFIX", "RECORDINGS_HOSTS", "RECORDINGS_GRACE",
				"RECORDINGS_STABLE", "RECORDINGS_DEADLINE", "RECORDINGS_POLL", "BILLING_URL", "BILLING_TOKEN", "PRICES", "SETTLING",
				"SERVER_SECRETS", "SERVER_API_URL", "OVERDUE_AFTER", "RECONCILE_INTERVAL", "TASK_QUEUE", "PAYLOAD_KEYS",
				"TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID", "STOP_TIMEOUT", "LOG_LEVEL", "LOG_FORMAT")),
			setup(), Send(), Blocked(), Recording(), Inbox(), Status(), Bill(), Audit(), Repair(extension), Archive(), Doctor(), History(), codecServer(), health(), version(),
		},
	}
	for _, c := range root.Commands {
		rename(c, name)
	}
	return root
}

// rename has the help of a command, and of those below it, call the program by its
// name.
func rename(cmd *cli.Command, name string) {
	for _, text := range []*string{&cmd.Usage, &cmd.Description} {
		*text = strings.ReplaceAll(*text, "closeout ", name+" ")
	}
	for _, c := range cmd.Commands {
		rename(c, name)
	}
}

// Interruptible gives a context that ends with the first SIGINT or SIGTERM. The
// second one kills.
func Interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Run runs a command line and returns its exit code.
func Run(ctx context.Context, root *cli.Command, args []string, stdout, stderr io.Writer) int {
	// Whatever a command prints, it may have text of others in it.
	out, faults := printable.NewWriter(stdout), printable.NewWriter(stderr)
	defer out.Flush()
	defer faults.Flush()
	root.Writer, root.ErrWriter = out, faults
	root.ExitErrHandler = func(context.Context, *cli.Command, error) {} // it would exit by itself
	strict(root)
	if err := root.Run(ctx, args); err != nil {
		lines := strings.Split(err.Error(), "\n")
		for i, line := range lines {
			lines[i] = printable.Line(line)
		}
		fmt.Fprintln(faults, "error:", strings.Join(lines, "\n  ")) // foreign text starts no line
		return 1
	}
	return 0
}

// strict makes a command, and those below it, say in a line what is wrong with
// how it was called.
func strict(cmd *cli.Command) {
	hint := func(cmd *cli.Command) string { return cmd.FullName() + " --help" }
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return fmt.Errorf("%w; see: %s", err, hint(cmd))
	}
	if action := cmd.Action; action != nil && cmd.ArgsUsage == "" {
		cmd.Action = func(ctx context.Context, cmd *cli.Command) error {
			if cmd.Args().Present() {
				return fmt.Errorf("unexpected argument %q; see: %s", cmd.Args().First(), hint(cmd))
			}
			return action(ctx, cmd)
		}
	}
	for _, c := range cmd.Commands {
		strict(c)
	}
}

// Flags are the flags of the settings with these names, or of all. What a command
// has no use for is still read from the environment, and checked.
func Flags(names ...string) []cli.Flag {
	var flags []cli.Flag
	for _, s := range config.Settings() {
		if len(names) > 0 && !slices.Contains(names, strings.TrimPrefix(s.Env, "CLOSEOUT_")) {
			continue
		}
		// No source: the environment is read by package config, so that a secret in
		// it is not shown as a default.
		usage := s.Usage + " [$" + s.Env + "]"
		flags = append(flags, &cli.StringFlag{Name: s.Flag(), Usage: usage, DefaultText: s.Default})
		if s.Secret {
			flags = append(flags, &cli.StringFlag{Name: s.Flag() + "-file", Usage: "file with the above [$" + s.Env + "_FILE]"})
		}
	}
	return flags
}

// Load reads the settings that the command was given.
func Load(cmd *cli.Command, apps bool) (*config.Config, *slog.Logger, error) {
	c, err := config.Load(func(name string) (string, bool) { return cmd.String(name), cmd.IsSet(name) }, apps)
	if err != nil {
		return nil, nil, fmt.Errorf("settings:\n%w", err)
	}
	log := telemetry.NewLogger(cmd.Root().ErrWriter, c.LogLevel, c.LogJSON)
	telemetry.AdoptLibraries(log)
	return c, log, nil
}

// GCPercent is how much garbage there may be for what is in use, unless GOGC says
// otherwise. A callback leaves little behind, and what a burst makes of garbage
// is memory that a container would have to be made for.
const GCPercent = 50

func run(name, usage string, parts service.Parts, flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Flags: flags,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			c, _, err := Load(cmd, parts.Webhook)
			if err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(GCPercent)
			}
			// Neither a reader of the log that stops nor one that goes away holds up a
			// callback or ends the process.
			signal.Ignore(syscall.SIGPIPE)
			buffer := telemetry.NewBuffer(cmd.Root().ErrWriter)
			defer buffer.Flush()
			log := telemetry.NewLogger(buffer, c.LogLevel, c.LogJSON)
			telemetry.AdoptLibraries(log) // and steps and hooks that log by slog's default
			parts := parts
			parts.LogDropped = buffer.Dropped
			return service.Run(ctx, c, parts, log)
		},
	}
}
