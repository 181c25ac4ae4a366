// Package cli is Closeout's command line.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
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

// Main runs the command line of a program with that extension until ctx ends, and returns the exit code. It prints errors
// to stderr.
func Main(ctx context.Context, extension service.Extension, args []string, stdout, stderr io.Writer) int {
	return Run(ctx, Root(extension, filepath.Base(args[0])), args, stdout, stderr)
}

// Root returns the command tree of a program with that extension and name.
func Root(extension service.Extension, name string) *cli.Command {
	return &cli.Command{
		Name:    name,
		Usage:   "close out voice rooms that ZEGO has destroyed",
		Version: buildinfo.Read().String(),
		Description: "Receives ZEGO's room_close callbacks and runs one Temporal Workflow for each room session.\n\n" +
			"Every setting is an environment variable and a flag. Temporal's settings are those of its SDKs:\n" +
			"TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_TLS_*, TEMPORAL_API_KEY, TEMPORAL_PROFILE.\n\n" +
			"To start, with Temporal on localhost:7233:\n\n" +
			"    export CLOSEOUT_APPS='1=secret'\n    " + name + " setup\n    " + name + " serve",
		EnableShellCompletion:           true,
		ConfigureShellCompletionCommand: showCompletion,
		Metadata:                        map[string]any{programName: extension.Name},
		Action:                          func(_ context.Context, cmd *cli.Command) error { return cli.ShowRootCommandHelp(cmd) },
		Commands: []*cli.Command{
			process("serve", "receive callbacks and run Workflows, in one process", service.Parts{Webhook: true, Worker: true, Extension: extension}, Flags()),
			process("webhook", "receive callbacks", service.Parts{Webhook: true, Extension: extension}, flagsFor("webhook")),
			process("worker", "run Workflows", service.Parts{Worker: true, Extension: extension}, flagsFor("worker")),
			setup(), initialize(), Send(), Blocked(), Recording(), Inbox(), Status(), Bill(extension), Audit(), Reconcile(), Repair(extension), Archive(), Doctor(), History(), codecServer(), health(), version(),
		},
	}
}

// rename makes the help of a command, and of those below it, call the program by its name, and show its defaults.
func rename(cmd, root *cli.Command) {
	for _, text := range []*string{&cmd.Usage, &cmd.Description} {
		*text = strings.ReplaceAll(*text, "closeout ", root.Name+" ")
	}
	for _, flag := range cmd.Flags {
		if f, ok := flag.(*cli.StringFlag); ok {
			f.DefaultText = cmp.Or(programDefault(root, f.Name), f.DefaultText)
		}
	}
	for _, c := range cmd.Commands {
		rename(c, root)
	}
}

// Interruptible returns a context that the first SIGINT or SIGTERM cancels. The second one kills.
func Interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Run runs a command line and returns its exit code. What commands print may hold foreign text, which [printable.Writer]
// makes harmless.
func Run(ctx context.Context, root *cli.Command, args []string, stdout, stderr io.Writer) int {
	out, errOut := printable.NewWriter(stdout), printable.NewWriter(stderr)
	defer out.Flush()
	defer errOut.Flush()
	root.Writer, root.ErrWriter = out, errOut
	root.ExitErrHandler = func(context.Context, *cli.Command, error) {} // it would exit
	for _, c := range root.Commands {
		rename(c, root)
	}
	strict(root)
	err := root.Run(ctx, args)
	if err == nil {
		return 0
	}
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = printable.Line(strings.TrimLeft(line, "\t")) // pgx indents
	}
	fmt.Fprintln(errOut, "error:", strings.Join(lines, "\n  ")) // foreign text starts no line
	if h := new(hint); errors.As(err, &h) {
		fmt.Fprintln(errOut, "hint:", printable.Line(h.advice))
	}
	if isUnreachable(err) && !errors.As(err, new(*hint)) {
		fmt.Fprintf(errOut, "hint: %s doctor checks all connections\n", root.Name)
	}
	return exitCode(err)
}

// Flags returns the flags of the settings with these names, without CLOSEOUT_, or of all settings. It panics if there is
// no such setting. Settings without a flag are still read from the environment, and checked.
func Flags(names ...string) []cli.Flag {
	left := slices.Clone(names)
	flags := settingFlags(func(s config.Setting) bool {
		name := strings.TrimPrefix(s.Env, "CLOSEOUT_")
		left = slices.DeleteFunc(left, func(wanted string) bool { return wanted == name })
		return len(names) == 0 || slices.Contains(names, name)
	})
	if len(left) > 0 {
		panic(fmt.Sprintf("no setting is named %q", left))
	}
	return flags
}

// flagsFor returns the flags of the settings that a command uses.
func flagsFor(command string) []cli.Flag {
	return settingFlags(func(s config.Setting) bool { return s.For(command) })
}

// settingFlags returns flags without sources: package config reads the environment, so that help shows no secret as a
// default.
func settingFlags(wanted func(config.Setting) bool) (flags []cli.Flag) {
	for _, s := range config.Settings() {
		if !wanted(s) {
			continue
		}
		flags = append(flags, &cli.StringFlag{Name: s.Flag(), Usage: s.Usage + " [$" + s.Env + "]", DefaultText: s.Default})
		if s.Secret {
			flags = append(flags, &cli.StringFlag{Name: s.Flag() + "-file", Usage: "file with the above [$" + s.Env + "_FILE]"})
		}
	}
	return flags
}

// Load reads the settings of a command, and returns them with its log.
func Load(cmd *cli.Command, apps bool) (*config.Config, *slog.Logger, error) {
	c, err := loadSettings(cmd, apps)
	if err != nil {
		return nil, nil, err
	}
	return c, newLogger(cmd.Root().ErrWriter, c), nil
}

func loadSettings(cmd *cli.Command, apps bool) (*config.Config, error) {
	c, err := config.Load(func(name string) (string, bool) {
		env := "CLOSEOUT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if value := programDefault(cmd.Root(), name); value != "" && !cmd.IsSet(name) && os.Getenv(env) == "" {
			return value, true
		}
		return cmd.String(name), cmd.IsSet(name)
	}, apps)
	if err != nil {
		return nil, usagef("settings:\n%w", err)
	}
	return c, nil
}

// programName is the key of a program's own name in the metadata of its root command.
const programName = "name"

// programDefault returns the default that a program with a name of its own has for the setting with this flag, or "". Two
// programs must not run each other's Workflows, nor write into one inbox.
func programDefault(root *cli.Command, flag string) string {
	name, _ := root.Metadata[programName].(string)
	switch {
	case name == "":
	case flag == "task-queue":
		return name
	case flag == "data":
		return "./data/" + name
	}
	return ""
}

func newLogger(w io.Writer, c *config.Config) *slog.Logger {
	log := telemetry.NewLogger(w, c.LogLevel, c.LogFormat == "json")
	telemetry.AdoptLibraries(log) // and steps and hooks that log by slog's default
	return log
}
