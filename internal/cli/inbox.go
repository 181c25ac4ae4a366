package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/zego"
)

// Inbox returns the command for acknowledged callbacks on disk.
func Inbox() *cli.Command {
	return &cli.Command{
		Name:  "inbox",
		Usage: "inspect and manage callbacks queued on disk",
		Description: "Works beside a running process on the same CLOSEOUT_DATA. There are two inboxes: room_close holds callbacks\n" +
			"for Temporal, events holds callbacks about participants for the ledger. The process delivers them as soon as\n" +
			"it can. A dead letter was refused for good: fix the cause and retry it.\n\n" +
			"    closeout inbox list --dead-letters\n" +
			"    closeout inbox retry " + exampleEntry,
		Commands: []*cli.Command{
			{Name: "list", Usage: "list callbacks, oldest first", Action: operate(needInboxes, listInbox), Flags: append(Flags("DATA"),
				&cli.BoolFlag{Name: "dead-letters", Usage: "only dead letters"},
				&cli.BoolFlag{Name: "events", Usage: "only the inbox events"},
				&cli.IntFlag{Name: "limit", Value: 100, Usage: "maximum number of callbacks in each inbox; 0 for all"}, jsonFlag())},
			{Name: "show", Usage: "print a callback as JSON", ArgsUsage: "ID...", Flags: Flags("DATA"), Action: operate(needInboxes, eachEntry(showEntry))},
			{Name: "retry", Usage: "deliver dead letters again", ArgsUsage: "[ID...]", Action: operate(checkRetry, needInboxes, retryEntries),
				Flags: append(Flags("DATA"), &cli.BoolFlag{Name: "all", Usage: "all dead letters in both inboxes"})},
			{Name: "drop", Usage: "remove a callback for good: its session is not closed out, or is billed without it", ArgsUsage: "ID...",
				Flags: Flags("DATA"), Action: operate(needInboxes, eachEntry(dropEntry))},
		},
	}
}

const exampleEntry = "room-close-1-858012925204410417"

// eachEntry returns a step that calls f for each entry that the arguments name.
func eachEntry(f func(context.Context, *operation, *inbox.Store, string) error) func(context.Context, *operation) error {
	return func(ctx context.Context, op *operation) error {
		return op.each("ID", exampleEntry, func(id string) error {
			store, err := op.inboxes.of(id)
			if err != nil {
				return err
			}
			return f(ctx, op, store, id)
		})
	}
}

// The inboxes by name.
const (
	inboxRoomClose = zego.EventRoomClose
	inboxEvents    = "events"
)

// inboxes are the inboxes of the data folder, by name.
type inboxes map[string]*inbox.Store

// needInboxes is a step that opens the inboxes. There may be no inbox for participants yet.
func needInboxes(_ context.Context, op *operation) error {
	sessions, err := op.openInbox()
	if err != nil {
		return err
	}
	op.inboxes = inboxes{inboxRoomClose: sessions}
	events, err := op.openEvents()
	switch {
	case err == nil:
		op.inboxes[inboxEvents] = events
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return nil
}

// of returns the inbox that an entry with that ID belongs to.
func (i inboxes) of(id string) (*inbox.Store, error) {
	name := inboxRoomClose
	if _, _, err := eventsink.ParseKey(id); err == nil {
		name = inboxEvents
	}
	if i[name] == nil {
		return nil, fmt.Errorf("there is no inbox %s: %w", name, inbox.ErrNone)
	}
	return i[name], nil
}

// inboxList lists entries of the inboxes.
type inboxList struct {
	Inboxes []*inboxState `json:"inboxes"`
}

type inboxState struct {
	Name    string       `json:"name"`
	Absent  bool         `json:"absent,omitempty"`
	Entries []inboxEntry `json:"entries"`
	More    bool         `json:"more"`
	// Waiting and DeadLetters count all entries, listed or not.
	Waiting     int64 `json:"waiting"`
	DeadLetters int64 `json:"dead_letters"`
}

// inboxEntry is an entry of an inbox.
type inboxEntry struct {
	ID string `json:"id"`
	// DeadAt is when it became a dead letter, and Reason why.
	QueuedAt time.Time  `json:"queued_at"`
	DeadAt   *time.Time `json:"dead_at,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	RoomID   string     `json:"room_id,omitempty"`
	// Callback is the body: JSON, or a string if it is not JSON.
	Callback any `json:"callback,omitempty"`
}

// roomOf returns the room of a callback; empty without one. A list has only the beginning of a
// large body.
func roomOf(body []byte) string {
	fields := json.NewDecoder(bytes.NewReader(body))
	for depth := 0; ; {
		token, err := fields.Token()
		if err != nil {
			return ""
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		case "room_id":
			if value, err := fields.Token(); err == nil && depth == 1 {
				room, _ := value.(string)
				return room
			}
		}
	}
}

func inboxEntryOf(e inbox.Entry) inboxEntry {
	entry := inboxEntry{ID: e.Key, QueuedAt: e.QueuedAt, Reason: e.Reason, RoomID: roomOf(e.Body)}
	if !e.DeadAt.IsZero() {
		entry.DeadAt = &e.DeadAt
	}
	return entry
}

func listInbox(ctx context.Context, op *operation) error {
	var list inboxList
	for _, name := range []string{inboxRoomClose, inboxEvents} {
		if name != inboxEvents && op.Bool("events") {
			continue
		}
		state := &inboxState{Name: name, Absent: op.inboxes[name] == nil, Entries: []inboxEntry{}}
		list.Inboxes = append(list.Inboxes, state)
		if state.Absent {
			continue
		}
		if err := state.read(ctx, op, op.inboxes[name]); err != nil {
			return fmt.Errorf("inbox %s: %w", name, err)
		}
	}
	return op.print(list, list.print)
}

func (s *inboxState) read(ctx context.Context, op *operation, store *inbox.Store) error {
	entries := store.All(ctx)
	if op.Bool("dead-letters") {
		entries = store.DeadLetters(ctx)
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if limit := op.Int("limit"); limit > 0 && len(s.Entries) == limit {
			s.More = true
			break
		}
		s.Entries = append(s.Entries, inboxEntryOf(e))
	}
	stats, err := store.Stats(ctx)
	s.Waiting, s.DeadLetters = stats.Waiting, stats.DeadLetters
	return err
}

func (l inboxList) print(out io.Writer) error {
	for _, s := range l.Inboxes {
		if s.Absent {
			fmt.Fprintf(out, "inbox %s: none\n", s.Name)
			continue
		}
		if len(s.Entries) > 0 {
			t := newTable(out, "ID", "QUEUED", "STATE", "ROOM", "REASON")
			for _, e := range s.Entries {
				state := "waiting"
				if e.DeadAt != nil {
					state = "dead letter"
				}
				t.row(e.ID, moment(e.QueuedAt), state, e.RoomID, oneLine(e.Reason))
			}
			if err := t.print(); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "inbox %s: %d waiting, %d dead letters", s.Name, s.Waiting, s.DeadLetters)
		if s.More {
			fmt.Fprint(out, "; --limit 0 lists all")
		}
		fmt.Fprintln(out)
	}
	return nil
}

func showEntry(ctx context.Context, op *operation, store *inbox.Store, id string) error {
	e, err := store.Get(ctx, id)
	if err != nil {
		return err
	}
	entry := inboxEntryOf(e)
	if entry.Callback = any(string(e.Body)); json.Valid(e.Body) {
		entry.Callback = json.RawMessage(e.Body)
	}
	return printJSON(op.out, entry)
}

func retryEntry(ctx context.Context, op *operation, store *inbox.Store, id string) error {
	if err := store.Retry(ctx, id); err != nil {
		return err
	}
	fmt.Fprintf(op.out, "%s: delivery starts again within seconds\n", id)
	return nil
}

func checkRetry(_ context.Context, op *operation) error {
	if op.Bool("all") && op.Args().Present() {
		return usagef("--all: found IDs beside it, want one of the two")
	}
	return nil
}

func retryEntries(ctx context.Context, op *operation) error {
	if !op.Bool("all") {
		return eachEntry(retryEntry)(ctx, op)
	}
	for _, store := range op.inboxes {
		for e, err := range store.DeadLetters(ctx) {
			if err == nil {
				err = retryEntry(ctx, op, store, e.Key)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// dropEntry prints what it removes, so that it is not lost by mistake.
func dropEntry(ctx context.Context, op *operation, store *inbox.Store, id string) error {
	if err := showEntry(ctx, op, store, id); err != nil {
		return err
	}
	if err := store.Drop(ctx, id); err != nil {
		return err
	}
	fmt.Fprintf(op.out, "%s: dropped\n", id)
	return nil
}
