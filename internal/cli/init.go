package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/scaffold"
)

// initialize returns the command that writes a program of one's own.
func initialize() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "write a program of your own: a Workflow, a step, tests, a Dockerfile, a compose file",
		Description: "Writes a Go module to a new or empty folder, and names it after the folder. See docs/workflows.md.\n\n" +
			"    closeout init my-rooms && cd my-rooms && go mod tidy && go test ./...",
		ArgsUsage: "DIR",
		Flags:     []cli.Flag{&cli.StringFlag{Name: "checkout", Usage: "folder of a Closeout checkout, which go.mod then replaces Closeout with (default: the latest release)"}},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if cmd.NArg() != 1 {
				return withHint(usagef("want one folder"), "for example: %s my-rooms", cmd.FullName())
			}
			dir := cmd.Args().First()
			if err := scaffold.Write(dir, cmd.String("checkout")); err != nil {
				return fmt.Errorf("write a module to %s: %w", dir, err)
			}
			fmt.Fprintf(cmd.Root().Writer, "Wrote a module to %s. Next:\n  cd %[1]s\n  go mod tidy\n  go test ./...\nIts README.md shows how to run it.\n", dir)
			return nil
		},
	}
}
