package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
)

// Recording is the command about recordings that no session has taken.
func Recording() *cli.Command {
	return &cli.Command{
		Name:  "recording",
		Usage: "list recordings that no session has taken, and say whose they are",
		Description: "Nothing in a recording names its session. Where several may be meant, say which, and retry the step:\n\n" +
			"    closeout recording list\n" +
			"    closeout recording assign --app 1234567890 --session 858012925204410417 YZ4joOE4IwmFAAAT\n" +
			"    closeout blocked retry --step recordings --reason 'assigned' room-close-1234567890-858012925204410417\n\n" +
			"With --session 0 it is of none: nobody waits for it.",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list recording tasks that have files and weren't archived, the oldest first",
				Flags: append(Flags("DATA", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT"),
					&cli.DurationFlag{Name: "older", Usage: "only those of which nothing was heard for so long", Value: 10 * time.Minute},
					&cli.IntFlag{Name: "limit", Usage: "at most so many", Value: 100}),
				Action: listRecordings},
			{Name: "assign", Usage: "say which session a recording task is of", ArgsUsage: "TASK-ID...",
				Flags: append(Flags("DATA", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT"),
					&cli.Uint32Flag{Name: "app", Usage: "ZEGO's appid", Required: true},
					&cli.StringFlag{Name: "session", Usage: "the room_session_id; 0: of none", Required: true}),
				Action: assignRecording},
		},
	}
}

func listRecordings(ctx context.Context, cmd *cli.Command) error {
	return withLedger(ctx, cmd, func(books *ledger.Ledger) error { return writeLeftRecordings(ctx, cmd, books) })
}

func writeLeftRecordings(ctx context.Context, cmd *cli.Command, books *ledger.Ledger) error {
	tasks, err := books.LeftRecordings(ctx, time.Now().Add(-cmd.Duration("older")), cmd.Int("limit"))
	if err != nil {
		return err
	}
	out := cmd.Root().Writer
	if len(tasks) == 0 {
		fmt.Fprintln(out, "every recording was archived, or is waited for")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "APP\tTASK\tROOM\tFILES\tBEGINS\tLAST HEARD\tASSIGNED TO")
	for _, t := range tasks {
		begins, assigned, contradicted := "", "", 0
		for _, f := range t.Files {
			if f.Contradicted != 0 {
				contradicted++
			}
			if b := f.Begin.Format(time.RFC3339); !f.Begin.IsZero() && (begins == "" || b < begins) {
				begins = b
			}
		}
		if t.Assigned {
			assigned = strconv.FormatUint(t.RoomSessionID, 10)
		}
		files := strconv.Itoa(len(t.Files))
		if contradicted > 0 {
			files += fmt.Sprintf(" (%d contradicted)", contradicted)
		}
		fmt.Fprintf(w, "%d\t%s\t%q\t%s\t%s\t%s\t%s\n", t.AppID, printable.Line(t.TaskID), t.RoomID, files, begins, t.Last.Format(time.RFC3339), assigned)
	}
	return w.Flush()
}

func assignRecording(ctx context.Context, cmd *cli.Command) error {
	session, err := strconv.ParseUint(cmd.String("session"), 10, 64)
	if err != nil {
		return fmt.Errorf("--session: found %q, want a room_session_id, or 0", cmd.String("session"))
	}
	if cmd.NArg() == 0 {
		return errors.New("no task ID, want one as in: closeout recording assign --app 1 --session 858012925204410417 YZ4joOE4IwmFAAAT")
	}
	return withLedger(ctx, cmd, func(books *ledger.Ledger) error {
		var faults []error
		for _, task := range cmd.Args().Slice() {
			if err := books.AssignRecording(ctx, cmd.Uint32("app"), task, session); err != nil {
				faults = append(faults, err)
				continue
			}
			fmt.Fprintf(cmd.Root().Writer, "%s is of session %d; retry the step of the run that waits for it\n", printable.Line(task), session)
		}
		return errors.Join(faults...)
	})
}
