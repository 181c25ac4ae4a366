package command

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/internal/usage"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Bill is the command that tells what was billed.
func Bill() *cli.Command {
	filter := []cli.Flag{
		&cli.Uint32Flag{Name: "app", Usage: "only this app's"},
		&cli.StringFlag{Name: "from", Usage: "only of rooms that closed at that time or later, by ZEGO's clock: 2026-11-01 or RFC 3339; a day begins in UTC"},
		&cli.StringFlag{Name: "to", Usage: "only of rooms that closed ahead of that time"},
	}
	return &cli.Command{
		Name:  "bill",
		Usage: "tell what was billed",
		Description: "Reads the ledger alone. A bill never changes: what came after it is in adjustments, and they all\n" +
			"add up to what is due.\n\n" +
			"    closeout bill show 858012925204410417\n" +
			"    closeout bill list --from 2026-11-01 --to 2026-12-01\n" +
			"    closeout bill export --from 2026-11-01 --to 2026-12-01 --output november.csv",
		Commands: []*cli.Command{
			{Name: "show", Usage: "show a session's bill, its adjustments and who was in the room", ArgsUsage: "ROOM-SESSION-ID|WORKFLOW-ID...", Action: showBill,
				Flags: append(Flags("DATA", "DATABASE_URL"),
					&cli.Uint32Flag{Name: "app", Usage: "the app, if several have a session of that number"},
					&cli.BoolFlag{Name: "json", Usage: "write it as JSON"})},
			{Name: "list", Usage: "list bills and adjustments, in the order in which the rooms closed", Action: listBills,
				Flags: append(append(Flags("DATA", "DATABASE_URL"), filter...),
					&cli.IntFlag{Name: "limit", Value: 100, Usage: "how many bills at most; 0 lists all"})},
			{Name: "export", Usage: "write bills and adjustments for another program", Action: exportBills,
				Description: "Each bill and each adjustment is a line. What it adds to what was billed before are the columns\n" +
					"billed_..., so that they can be summed up; of a bill that is all that it has. The others tell of the\n" +
					"session, as far as it was known by then. In CSV, a text that a spreadsheet would take for a formula has\n" +
					"an apostrophe in front; in JSON Lines every text is exact.",
				Flags: append(append(Flags("DATA", "DATABASE_URL"), filter...),
					&cli.StringFlag{Name: "format", Usage: "csv or jsonl (default: as the file's name ends, else csv)"},
					&cli.StringFlag{Name: "output", Usage: "file to write, which is there when it is whole (default: standard output)"})},
		},
	}
}

// withLedger opens the ledger for f.
func withLedger(ctx context.Context, cmd *cli.Command, f func(*ledger.Ledger) error) error {
	c, _, err := Load(cmd, false)
	if err != nil {
		return err
	}
	books, err := openLedger(ctx, c)
	if err != nil {
		return err
	}
	defer books.Close()
	return f(books)
}

// openLedger opens the ledger of the settings and creates none: an empty one in a
// wrong place would be taken for the truth.
func openLedger(ctx context.Context, c *config.Config) (*ledger.Ledger, error) {
	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_DATABASE_URL: %w", err)
	}
	err = books.Check(ctx)
	if err == nil {
		return books, nil
	}
	_ = books.Close()
	if errors.Is(err, ledger.ErrNotSetUp) {
		return nil, fmt.Errorf("the ledger: %w; closeout setup makes its tables, CLOSEOUT_DATABASE_URL or CLOSEOUT_DATA choose another", err)
	}
	return nil, fmt.Errorf("the ledger: %w", err)
}

// billStatus is what the ledger has of a session.
type billStatus struct {
	AppID         uint32              `json:"appid"`
	RoomSessionID uint64              `json:"room_session_id,string"`
	Bill          *ledger.MadeBill    `json:"bill"`
	Adjustments   []ledger.Adjustment `json:"adjustments"`
	Stays         []stayStatus        `json:"stays"`
}

type stayStatus struct {
	User   string        `json:"user"`
	Stay   string        `json:"stay"`
	Role   zego.UserRole `json:"role"`
	Login  time.Time     `json:"login,omitzero"`
	Logout time.Time     `json:"logout,omitzero"`
	// Contradicted says that two callbacks told another thing of it.
	Contradicted bool `json:"contradicted,omitempty"`
	// Late says that something of it came after the bill.
	Late bool `json:"late,omitempty"`
}

func showBill(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no session, want a room_session_id or a workflow ID as in: closeout bill show 858012925204410417")
	}
	return withLedger(ctx, cmd, func(books *ledger.Ledger) error {
		all := []*billStatus{}
		var faults []error
		for _, arg := range cmd.Args().Slice() {
			found, err := billsOf(ctx, cmd, books, arg)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", arg, err))
			}
			all = append(all, found...)
		}
		if cmd.Bool("json") {
			encoder := json.NewEncoder(cmd.Root().Writer)
			encoder.SetIndent("", "  ")
			faults = append(faults, encoder.Encode(struct {
				Sessions []*billStatus `json:"sessions"`
			}{all}))
		} else {
			for _, b := range all {
				faults = append(faults, b.write(cmd.Root().Writer))
			}
		}
		return errors.Join(faults...)
	})
}

// billsOf finds what an argument means: more than one session only if several apps
// have it.
func billsOf(ctx context.Context, cmd *cli.Command, books *ledger.Ledger, arg string) (found []*billStatus, err error) {
	app, session, err := workflows.ParseWorkflowID(arg)
	apps := []uint32{app}
	if err != nil {
		if session, err = strconv.ParseUint(arg, 10, 64); err != nil {
			return nil, errors.New("want a room_session_id, or a workflow ID as in room-close-1-858012925204410417")
		}
		if apps, err = books.AppsOf(ctx, session); err != nil {
			return nil, err
		}
		if cmd.IsSet("app") {
			apps = []uint32{cmd.Uint32("app")}
		}
	}
	for _, app := range apps {
		b := &billStatus{AppID: app, RoomSessionID: session, Adjustments: []ledger.Adjustment{}, Stays: []stayStatus{}}
		switch bill, err := books.MadeBill(ctx, app, session); {
		case err == nil:
			b.Bill = &bill
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
		made, err := books.Adjustments(ctx, app, session)
		if err != nil {
			return nil, err
		}
		b.Adjustments = append(b.Adjustments, made...)
		if err := books.Stays(ctx, app, session, func(s ledger.StayOf) error {
			b.Stays = append(b.Stays, stayStatus{
				s.User, s.ID, s.Role, millisOf(s.Login), millisOf(s.Logout), s.Contradicted, b.Bill != nil && s.SeenAt.After(b.Bill.MadeAt),
			})
			return nil
		}); err != nil {
			return nil, err
		}
		if b.Bill != nil || len(b.Stays) > 0 {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the ledger has neither a bill nor a stay of it")
	}
	return found, nil
}

func millisOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// figuresInWords says what a bill is about.
func figuresInWords(b ledger.Bill) string {
	u := b.Usage
	said := fmt.Sprintf("participants: %d, stays: %d, participant-seconds: %d, minutes: %d", u.Participants, u.Stays, u.Seconds, u.Minutes)
	if b.Charge.Currency != "" {
		said += fmt.Sprintf(", amount: %s", inMoney(b.Charge.Currency, big.NewInt(b.Charge.Amount)))
	}
	if u.Estimated != 0 {
		said += "; estimated: " + strings.Join(u.Estimated.Names(), ", ")
	}
	return said
}

// inMoney says an amount. How many minor units make a major one depends on the
// currency, so it isn't said.
func inMoney(currency string, minor *big.Int) string {
	return currency + " " + minor.String() + " (minor units)"
}

func precise(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (b *billStatus) write(out io.Writer) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(out, "session %d of app %d\n", b.RoomSessionID, b.AppID)
	now := ledger.Bill{}
	if b.Bill == nil {
		line("bill", "none yet")
	} else {
		now = b.Bill.Bill
		line("room", "%s", printable.Line(now.RoomID))
		line("bill", "%s, made at %s", now.ID, moment(b.Bill.MadeAt))
		line("", "%s", figuresInWords(now))
	}
	for _, a := range b.Adjustments {
		now = a.Bill
		d := a.Difference
		line(fmt.Sprintf("adjustment %d", a.Number), "%s, made at %s", a.ID, moment(a.MadeAt))
		said := fmt.Sprintf("by %+d participant-seconds, %+d minutes", d.Seconds, d.Minutes)
		if a.Charge.Currency != "" {
			said += fmt.Sprintf(", %+d of %s (minor units)", d.Amount, a.Charge.Currency)
		}
		line("", "%s", said)
		line("", "now %s", figuresInWords(now))
	}
	if u := now.Usage; u.EndFrom != "" {
		line("life", "%s (%s) to %s (%s)", precise(u.Start), cmp.Or(string(u.StartFrom), "unknown"), precise(u.End), u.EndFrom)
	}
	if len(b.Stays) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  USER\tSTAY\tLOGIN\tLOGOUT\tREMARKS")
	for _, s := range b.Stays {
		var remarks []string
		if s.Role == zego.RoleService {
			remarks = append(remarks, "no participant")
		}
		if s.Contradicted {
			remarks = append(remarks, "contradicted")
		}
		if s.Late {
			remarks = append(remarks, "came after the bill")
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", printable.Line(s.User), printable.Line(s.Stay), precise(s.Login), precise(s.Logout), strings.Join(remarks, ", "))
	}
	return table.Flush()
}

// filterOf reads the flags that choose bills.
func filterOf(cmd *cli.Command) (f ledger.Filter, err error) {
	f.AppID = cmd.Uint32("app")
	for name, to := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		v := cmd.String(name)
		if v == "" {
			continue
		}
		if *to, err = time.Parse(time.DateOnly, v); err != nil {
			if *to, err = time.Parse(time.RFC3339, v); err != nil {
				return f, fmt.Errorf("--%s: found %q, want a day such as 2026-11-01, or a time such as 2026-11-01T12:00:00Z", name, v)
			}
		}
	}
	if !f.To.IsZero() && !f.To.After(f.From) {
		return f, fmt.Errorf("--to: found %s, want a time after --from, %s", cmd.String("to"), cmd.String("from"))
	}
	return f, nil
}

// entry is a bill or an adjustment, as a line.
type entry struct {
	Entry  string    `json:"entry"`
	ID     uuid.UUID `json:"id"`
	Number int       `json:"number"`
	ledger.Bill
	Billed usage.Difference `json:"billed"`
	MadeAt time.Time        `json:"made_at"`
}

// entriesOf are a bill and its adjustments, line by line.
func entriesOf(e ledger.Entry) []entry {
	lines := []entry{{"bill", e.ID, 0, e.Bill, usage.DifferenceOf(usage.Figures{}, usage.Charge{}, e.Usage, e.Charge), e.MadeAt}}
	for _, a := range e.Adjustments {
		lines = append(lines, entry{"adjustment", a.ID, a.Number, a.Bill, a.Difference, a.MadeAt})
	}
	return lines
}

func listBills(ctx context.Context, cmd *cli.Command) error {
	filter, err := filterOf(cmd)
	if err != nil {
		return err
	}
	return withLedger(ctx, cmd, func(books *ledger.Ledger) error {
		out, limit, n := cmd.Root().Writer, cmd.Int("limit"), 0
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "CLOSED\tAPP\tSESSION\tROOM\tENTRY\tSECONDS\tMINUTES\tAMOUNT\tESTIMATED")
		seconds, minutes, amounts := new(big.Int), new(big.Int), map[string]*big.Int{}
		for e, err := range books.Entries(ctx, filter) {
			if err != nil {
				return err
			}
			if n++; limit > 0 && n > limit {
				break
			}
			for _, l := range entriesOf(e) {
				name, amount := l.Entry, "-"
				if l.Number > 0 {
					name = fmt.Sprintf("%s %d", l.Entry, l.Number)
				}
				if c := l.Charge.Currency; c != "" {
					amount = fmt.Sprintf("%s %d", c, l.Billed.Amount)
					if amounts[c] == nil {
						amounts[c] = new(big.Int)
					}
					amounts[c].Add(amounts[c], big.NewInt(l.Billed.Amount))
				}
				estimated := strings.Join(l.Usage.Estimated.Names(), ",")
				fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%s\n", moment(l.RoomCloseTime), l.AppID, l.RoomSessionID, printable.Line(l.RoomID), name,
					l.Billed.Seconds, l.Billed.Minutes, amount, estimated)
				seconds.Add(seconds, big.NewInt(l.Billed.Seconds))
				minutes.Add(minutes, big.NewInt(l.Billed.Minutes))
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(out, "in all %s participant-seconds, %s minutes", seconds, minutes)
		for _, c := range slices.Sorted(maps.Keys(amounts)) {
			fmt.Fprintf(out, ", %s", inMoney(c, amounts[c]))
		}
		if limit > 0 && n > limit {
			fmt.Fprintf(out, "; these are the first %d bills, --limit 0 lists all", limit)
		}
		fmt.Fprintln(out)
		return nil
	})
}

// exporters write entries. The function that they give writes one.
var exporters = map[string]func(io.Writer) (func(entry) error, error){
	"csv": func(w io.Writer) (func(entry) error, error) {
		out := csv.NewWriter(w)
		err := out.Write([]string{"entry", "id", "bill_id", "number", "appid", "room_id", "room_session_id", "close_reason", "room_close_time", "reconciled",
			"start", "start_from", "end", "end_from", "participants", "stays", "participant_milliseconds", "participant_seconds", "participant_minutes",
			"estimated", "currency", "price_per_minute", "amount",
			"billed_milliseconds", "billed_seconds", "billed_minutes", "billed_amount", "made_at"})
		return func(e entry) error {
			u, number := e.Usage, func(n int64) string { return strconv.FormatInt(n, 10) }
			price, amount, billed := "", "", ""
			if e.Charge.Currency != "" {
				price, amount, billed = number(e.Charge.PerMinute), number(e.Charge.Amount), number(e.Billed.Amount)
			}
			if err := out.Write([]string{e.Entry, e.ID.String(), e.Bill.ID.String(), strconv.Itoa(e.Number), strconv.FormatUint(uint64(e.AppID), 10), csvText(e.RoomID),
				strconv.FormatUint(e.RoomSessionID, 10), strconv.FormatUint(uint64(e.CloseReason), 10), precise(e.RoomCloseTime), strconv.FormatBool(e.Reconciled),
				orEmpty(u.Start), string(u.StartFrom), orEmpty(u.End), string(u.EndFrom), number(u.Participants), number(u.Stays), number(u.Millis), number(u.Seconds), number(u.Minutes),
				u.Estimated.String(), e.Charge.Currency, price, amount,
				number(e.Billed.Millis), number(e.Billed.Seconds), number(e.Billed.Minutes), billed, precise(e.MadeAt)}); err != nil {
				return err
			}
			out.Flush()
			return out.Error()
		}, errors.Join(err, flushed(out))
	},
	"jsonl": func(w io.Writer) (func(entry) error, error) {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		return func(e entry) error { return encoder.Encode(e) }, nil
	},
}

// csvText returns a text as a CSV cell. Spreadsheets run a cell that begins with one
// of = + - @ as a formula, in some also in full width or behind white space, so such
// a text gets an apostrophe in front, which they take for "this is text". One that
// begins with an apostrophe gets one as well: who removes one from the front always
// has the text itself.
func csvText(s string) string {
	begins := strings.TrimLeftFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf) })
	if s != "" && strings.ContainsRune("\t\r\n", rune(s[0])) || strings.IndexFunc(begins, func(r rune) bool { return strings.ContainsRune("=+-@\uff1d\uff0b\uff0d\uff20'", r) }) == 0 {
		return "'" + s
	}
	return s
}

func flushed(w *csv.Writer) error {
	w.Flush()
	return w.Error()
}

func orEmpty(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return precise(t)
}

func exportBills(ctx context.Context, cmd *cli.Command) (err error) {
	filter, err := filterOf(cmd)
	if err != nil {
		return err
	}
	path, format := cmd.String("output"), cmd.String("format")
	if format == "" {
		if format = strings.TrimPrefix(filepath.Ext(path), "."); exporters[format] == nil {
			format = "csv"
		}
	}
	exporter := exporters[format]
	if exporter == nil {
		return fmt.Errorf("--format: found %q, want csv or jsonl", format)
	}
	return withLedger(ctx, cmd, func(books *ledger.Ledger) (err error) {
		out := cmd.Root().Writer
		if path != "" {
			// CreateTemp makes it readable by its owner alone, and so it stays: it says
			// who was where for how long, and what that costs.
			file, err := os.CreateTemp(filepath.Dir(path), ".closeout-bills-*")
			if err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			defer func() { _ = os.Remove(file.Name()) }() // it isn't there once it is whole
			defer file.Close()
			if err := export(ctx, cmd.Root().ErrWriter, books, filter, exporter, file); err != nil {
				return err
			}
			if err := errors.Join(file.Sync(), file.Close(), os.Rename(file.Name(), path)); err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			return nil
		}
		if !progress.IsTerminal(out) {
			out = printable.Unwrap(out) // it is for a program, which gets every text exactly
		}
		return export(ctx, cmd.Root().ErrWriter, books, filter, exporter, out)
	})
}

// export writes the entries, and to watched how far it is.
func export(ctx context.Context, watched io.Writer, books *ledger.Ledger, filter ledger.Filter, exporter func(io.Writer) (func(entry) error, error), out io.Writer) error {
	buffered := bufio.NewWriterSize(out, 1<<16)
	write, err := exporter(buffered)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	total, err := books.CountBills(ctx, filter)
	if err != nil {
		return err
	}
	var exported atomic.Int64
	defer progress.Bar{Total: progress.Of(total), What: "bills", Done: exported.Load}.Start(watched)()
	for e, err := range books.Entries(ctx, filter) {
		if err != nil {
			return err
		}
		for _, l := range entriesOf(e) {
			if err := write(l); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		exported.Add(1)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
