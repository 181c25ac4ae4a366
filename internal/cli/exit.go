package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/serviceerror"

	"github.com/closeouthq/closeout/internal/probe"
)

// Exit codes besides 0, for scripts. docs/cli.md lists them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// usageError is an error about what was typed or set.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// unreachableError is an error about a store or a process that did not answer.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)), errors.As(err, new(cli.ExitCoder)): // `help` of an unknown command
		return exitUsage
	case isUnreachable(err):
		return exitUnreachable
	}
	return exitFailed
}

func isUnreachable(err error) bool {
	op := new(net.OpError)
	return errors.As(err, new(unreachableError)) || errors.As(err, &op) && op.Op == "dial" || errors.As(err, new(*net.DNSError)) ||
		errors.As(err, new(*serviceerror.Unavailable)) || errors.As(err, new(*serviceerror.DeadlineExceeded)) ||
		errors.Is(err, probe.ErrNoAnswer) || errors.Is(err, context.DeadlineExceeded)
}

// strict makes a command, and those below it, report wrong flags and arguments in a line, with what may have been meant.
func strict(cmd *cli.Command) {
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		meant := ""
		if name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
			err = fmt.Errorf("found no flag --%s", name)
			meant = alike(name, cli.SuggestFlag(cmd.Flags, name, true))
		} else {
			err = errors.New(strings.Replace(err.Error(), " for flag -", " for flag --", 1))
		}
		return see(cmd, err, meant)
	}
	group := len(cmd.Commands) > 0 // later each has a help command
	if action := cmd.Action; (action == nil || cmd.ArgsUsage == "") && !cmd.SkipFlagParsing {
		cmd.Action = func(ctx context.Context, cmd *cli.Command) error {
			switch name := cmd.Args().First(); {
			case name != "" && group:
				return see(cmd, fmt.Errorf("found no command %q", name), alike(name, cli.SuggestCommand(cmd.Commands, name)))
			case name != "":
				return see(cmd, fmt.Errorf("unexpected argument %q", name), "")
			case action == nil:
				return cli.ShowSubcommandHelp(cmd)
			}
			return action(ctx, cmd)
		}
	}
	for _, c := range cmd.Commands {
		strict(c)
	}
}

// see returns a usage error with a hint.
func see(cmd *cli.Command, err error, meant string) error {
	if meant != "" {
		return withHint(usageError{err}, "did you mean %s? See %s --help", meant, cmd.FullName())
	}
	return withHint(usageError{err}, "see %s --help", cmd.FullName())
}

// alike returns the suggestion for what was typed, or "" if they have little in common.
func alike(typed, suggested string) string {
	if name := strings.TrimLeft(suggested, "-"); name == "" || typed == "" || name[0] != typed[0] {
		return ""
	}
	return suggested
}
