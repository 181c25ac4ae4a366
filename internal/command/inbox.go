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

	"github.com/closeouthq/closeout/internal/collect"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/zego"
)

// Inbox is the command that looks after what was acknowledged and isn't in
// Temporal, or in the ledger, yet.
func Inbox() *cli.Command {
	return &cli.Command{
		Name:  "inbox",
		Usage: "look after the callbacks that wait on the disk for Temporal or the ledger",
		Description: "Works beside a running process, on the same CLOSEOUT_DATA. There are two inboxes: room_close has the\n" +
			"sessions that Temporal doesn't have, usage the callbacks of participants that the ledger doesn't have. What\n" +
			"waits is handed over as soon as it is taken. What is refused is set aside: mend the cause and retry it.\n\n" +
			"    closeout inbox list --set-aside\n" +
			"    closeout inbox retry room-close-1-858012925204410417",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list the callbacks, the oldest first", Action: listInbox, Flags: append(Flags("DATA"),
				&cli.BoolFlag{Name: "set-aside", Usage: "only those that were set aside"},
				&cli.BoolFlag{Name: "usage", Usage: "only those of the inbox usage"},
				&cli.IntFlag{Name: "limit", Value: 100, Usage: "how many at most; 0 lists all"})},
			{Name: "show", Usage: "show a callback as JSON", ArgsUsage: "ID...", Flags: Flags("DATA"), Action: showInbox},
			{Name: "retry", Usage: "give what was set aside its turn again", ArgsUsage: "[ID...]", Action: retryInbox,
				Flags: append(Flags("DATA"), &cli.BoolFlag{Name: "all", Usage: "all that were set aside, in both inboxes"})},
			{Name: "drop", Usage: "remove a callback for good; its session is never closed out, or billed without it", ArgsUsage: "ID...",
				Flags: Flags("DATA"), Action: dropInbox},
		},
	}
}

// The inboxes by name.
const (
	ofRoomClose = zego.EventRoomClose
	ofUsage     = "usage"
)

// inboxes are those in the data folder, by name.
type inboxes map[string]*inbox.Store

// of is the inbox that the entry of an ID would be in.
func (i inboxes) of(id string) (*inbox.Store, error) {
	name := ofRoomClose
	if _, _, _, err := collect.ParseKey(id); err == nil {
		name = ofUsage
	}
	if i[name] == nil {
		return nil, fmt.Errorf("%s: there is no inbox %s: %w", id, name, inbox.ErrNone)
	}
	return i[name], nil
}

// withInboxes opens the inboxes for f. Where none was made yet, nothing is in it.
func withInboxes(ctx context.Context, cmd *cli.Command, f func(inboxes) error) error {
	c, _, err := Load(cmd, false)
	if err != nil {
		return err
	}
	opened := inboxes{}
	defer func() {
		for _, store := range opened {
			_ = store.Close()
		}
	}()
	if opened[ofRoomClose], err = openInbox(ctx, c); err != nil {
		delete(opened, ofRoomClose)
		return err
	}
	if opened[ofUsage], err = inbox.Attach(ctx, c.UsageInbox()); errors.Is(err, os.ErrNotExist) {
		delete(opened, ofUsage)
	} else if err != nil {
		delete(opened, ofUsage)
		return err
	}
	return f(opened)
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

// each does something about every ID in the arguments.
func each(ctx context.Context, cmd *cli.Command, f func(context.Context, *inbox.Store, string) error) error {
	if cmd.NArg() == 0 {
		return fmt.Errorf("no ID, want one as in: %s room-close-1-858012925204410417", cmd.FullName())
	}
	return withInboxes(ctx, cmd, func(all inboxes) error {
		var faults []error
		for _, id := range cmd.Args().Slice() {
			store, err := all.of(id)
			if err == nil {
				err = f(ctx, store, id)
			}
			faults = append(faults, err)
		}
		return errors.Join(faults...)
	})
}

func listInbox(ctx context.Context, cmd *cli.Command) error {
	return withInboxes(ctx, cmd, func(all inboxes) error {
		out := cmd.Root().Writer
		for _, name := range []string{ofRoomClose, ofUsage} {
			store := all[name]
			switch {
			case name != ofUsage && cmd.Bool("usage"):
				continue
			case store == nil:
				fmt.Fprintf(out, "inbox %s: none\n", name)
				continue
			}
			if err := listEntries(ctx, cmd, name, store); err != nil {
				return fmt.Errorf("inbox %s: %w", name, err)
			}
		}
		return nil
	})
}

// listEntries lists what is in an inbox, and sums it up.
func listEntries(ctx context.Context, cmd *cli.Command, name string, store *inbox.Store) error {
	out, limit := cmd.Root().Writer, cmd.Int("limit")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
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
		if n == 1 {
			fmt.Fprintln(table, "ID\tQUEUED\tSTATE\tROOM\tREASON")
		}
		state := "waiting"
		if !e.SetAsideAt.IsZero() {
			state = "set aside"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", printable.Line(e.Key), e.QueuedAt.Format(time.RFC3339), state, printable.Line(roomOf(e)), inALine(e.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "inbox %s: %d waiting, %d set aside", name, stats.Waiting, stats.SetAside)
	if limit > 0 && n > limit {
		fmt.Fprintf(out, "; --limit 0 lists them all")
	}
	fmt.Fprintln(out)
	return nil
}

// roomOf is the room of an entry of either inbox; empty for what tells none, and
// `show` shows as it is.
func roomOf(e inbox.Entry) string {
	var s struct {
		RoomID string `json:"room_id"`
	}
	_ = json.Unmarshal(e.Body, &s)
	return s.RoomID
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
	var body any
	switch {
	case len(e.Body) == 0: // lists leave out large ones
	case json.Valid(e.Body):
		body = json.RawMessage(e.Body)
	default:
		body = string(e.Body)
	}
	shown := struct {
		WorkflowID string     `json:"workflow_id,omitempty"`
		Key        string     `json:"key,omitempty"`
		QueuedAt   time.Time  `json:"queued_at"`
		SetAsideAt *time.Time `json:"set_aside_at,omitempty"`
		Reason     string     `json:"reason,omitempty"`
		Session    any        `json:"session,omitempty"`
		Usage      any        `json:"usage,omitempty"`
	}{QueuedAt: e.QueuedAt, Reason: e.Reason}
	if _, _, _, err := collect.ParseKey(e.Key); err == nil {
		shown.Key, shown.Usage = e.Key, body
	} else {
		shown.WorkflowID, shown.Session = e.Key, body
	}
	if !e.SetAsideAt.IsZero() {
		shown.SetAsideAt = &e.SetAsideAt
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
		return errors.New("--all: found IDs beside it, want one of the two")
	}
	return withInboxes(ctx, cmd, func(all inboxes) error {
		for _, store := range all {
			for e, err := range store.SetAside(ctx) {
				if err != nil {
					return err
				}
				if err := retry(ctx, store, e.Key); err != nil {
					return err
				}
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
