package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
)

// Inbox is the command that looks after what was acknowledged and isn't in
// Temporal yet.
func Inbox() *cli.Command {
	return &cli.Command{
		Name:  "inbox",
		Usage: "look after the callbacks that wait on the disk for Temporal",
		Description: "Works beside a running process, on the same CLOSEOUT_DATA. What waits is started as soon as Temporal\n" +
			"takes it. What Temporal refuses is set aside: mend the cause and retry it.\n\n" +
			"    closeout inbox list --set-aside\n" +
			"    closeout inbox retry room-close-1-858012925204410417",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list the callbacks, the oldest first", Action: listInbox, Flags: append(Flags("DATA"),
				&cli.BoolFlag{Name: "set-aside", Usage: "only those that were set aside"},
				&cli.IntFlag{Name: "limit", Value: 100, Usage: "how many at most; 0 lists all"})},
			{Name: "show", Usage: "show a callback as JSON", ArgsUsage: "WORKFLOW-ID...", Flags: Flags("DATA"), Action: showInbox},
			{Name: "retry", Usage: "give what was set aside its turn again", ArgsUsage: "[WORKFLOW-ID...]", Action: retryInbox,
				Flags: append(Flags("DATA"), &cli.BoolFlag{Name: "all", Usage: "all that were set aside"})},
			{Name: "drop", Usage: "remove a callback for good; its session is never closed out", ArgsUsage: "WORKFLOW-ID...",
				Flags: Flags("DATA"), Action: dropInbox},
		},
	}
}

// withInbox opens the inbox for f. Where none was made yet, nothing is in it.
func withInbox(ctx context.Context, cmd *cli.Command, f func(*inbox.Store) error) error {
	c, _, err := Load(cmd, false)
	if err != nil {
		return err
	}
	store, err := openInbox(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	return f(store)
}

// openInbox opens the inbox in the data folder. The error wraps [os.ErrNotExist]
// where none was made yet.
func openInbox(ctx context.Context, c *config.Config) (*inbox.Store, error) {
	store, err := inbox.Attach(ctx, c.Inbox())
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("no webhook has run in %s; --data or CLOSEOUT_DATA choose another folder: %w", c.Data, os.ErrNotExist)
	}
	return store, err
}

// each does something about every workflow ID in the arguments.
func each(ctx context.Context, cmd *cli.Command, f func(context.Context, *inbox.Store, string) error) error {
	if cmd.NArg() == 0 {
		return fmt.Errorf("no workflow ID, want one as in: %s room-close-1-858012925204410417", cmd.FullName())
	}
	return withInbox(ctx, cmd, func(store *inbox.Store) error {
		var faults []error
		for _, id := range cmd.Args().Slice() {
			faults = append(faults, f(ctx, store, id))
		}
		return errors.Join(faults...)
	})
}

func listInbox(ctx context.Context, cmd *cli.Command) error {
	return withInbox(ctx, cmd, func(store *inbox.Store) error {
		out, limit := cmd.Root().Writer, cmd.Int("limit")
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "WORKFLOW ID\tQUEUED\tSTATE\tROOM\tREASON")
		entries, n := store.All(ctx), 0
		if cmd.Bool("set-aside") {
			entries = store.SetAside(ctx)
		}
		for e, err := range entries {
			if err != nil {
				return err
			}
			if n++; limit > 0 && n > limit {
				break
			}
			state := "waiting"
			if !e.SetAsideAt.IsZero() {
				state = "set aside"
			}
			var s activities.Session // stays empty for what isn't one; `show` shows it as it is
			_ = json.Unmarshal(e.Body, &s)
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", e.Key, e.QueuedAt.Format(time.RFC3339), state, s.RoomID, e.Reason)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		stats, err := store.Stats(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d waiting, %d set aside", stats.Waiting, stats.SetAside)
		if limit > 0 && n > limit {
			fmt.Fprintf(out, "; --limit 0 lists them all")
		}
		fmt.Fprintln(out)
		return nil
	})
}

func showInbox(ctx context.Context, cmd *cli.Command) error {
	return each(ctx, cmd, func(ctx context.Context, store *inbox.Store, id string) error {
		e, err := store.Get(ctx, id)
		if err != nil {
			return err
		}
		return writeEntry(cmd, e)
	})
}

// writeEntry writes all there is to know of an entry, as JSON.
func writeEntry(cmd *cli.Command, e inbox.Entry) error {
	shown := struct {
		WorkflowID string     `json:"workflow_id"`
		QueuedAt   time.Time  `json:"queued_at"`
		SetAsideAt *time.Time `json:"set_aside_at,omitempty"`
		Reason     string     `json:"reason,omitempty"`
		Session    any        `json:"session"`
	}{WorkflowID: e.Key, QueuedAt: e.QueuedAt, Reason: e.Reason, Session: json.RawMessage(e.Body)}
	if !e.SetAsideAt.IsZero() {
		shown.SetAsideAt = &e.SetAsideAt
	}
	if !json.Valid(e.Body) {
		shown.Session = string(e.Body)
	}
	enc := json.NewEncoder(cmd.Root().Writer)
	enc.SetIndent("", "  ")
	return enc.Encode(shown)
}

func retryInbox(ctx context.Context, cmd *cli.Command) error {
	retry := func(ctx context.Context, store *inbox.Store, id string) error {
		if err := store.Retry(ctx, id); err != nil {
			return err
		}
		fmt.Fprintf(cmd.Root().Writer, "%s: is tried again within seconds\n", id)
		return nil
	}
	if !cmd.Bool("all") {
		return each(ctx, cmd, retry)
	}
	if cmd.Args().Present() {
		return errors.New("--all: found workflow IDs beside it, want one of the two")
	}
	return withInbox(ctx, cmd, func(store *inbox.Store) error {
		for e, err := range store.SetAside(ctx) {
			if err != nil {
				return err
			}
			if err := retry(ctx, store, e.Key); err != nil {
				return err
			}
		}
		return nil
	})
}

func dropInbox(ctx context.Context, cmd *cli.Command) error {
	return each(ctx, cmd, func(ctx context.Context, store *inbox.Store, id string) error {
		e, err := store.Get(ctx, id)
		if err != nil {
			return err
		}
		// What is lost by it stays readable.
		if err := writeEntry(cmd, e); err != nil {
			return err
		}
		if err := store.Drop(ctx, id); err != nil {
			return err
		}
		fmt.Fprintf(cmd.Root().Writer, "%s: dropped\n", id)
		return nil
	})
}
