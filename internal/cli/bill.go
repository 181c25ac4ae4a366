package cli

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Bill returns the command that reads bills, in a program with that extension.
func Bill(extension service.Extension) *cli.Command {
	stores := func(more ...cli.Flag) []cli.Flag { return append(Flags("DATA", "DATABASE_URL"), more...) }
	filter := []cli.Flag{
		&cli.Uint32Flag{Name: "app", Usage: "only this app"},
		&cli.StringFlag{Name: "from", Usage: "only rooms closed at this time or later, by ZEGO's clock: 2026-11-01 (UTC) or RFC 3339"},
		&cli.StringFlag{Name: "to", Usage: "only rooms closed before this time"},
	}
	return &cli.Command{
		Name:  "bill",
		Usage: "show, explain, list, export and preview bills",
		Description: "Reads the ledger only. A bill never changes: later corrections are adjustments, and the amount due is the\n" +
			"sum of the bill and its adjustments.\n\n" +
			"    closeout bill show 858012925204410417\n" +
			"    closeout bill list --from 2026-11-01 --to 2026-12-01\n" +
			"    closeout bill export --from 2026-11-01 --to 2026-12-01 --output november.csv\n" +
			"    closeout bill preview --from 2026-11-01 --to 2026-12-01",
		Commands: []*cli.Command{
			{Name: "show", Usage: "show a session's bill, its adjustments, lines and stays", ArgsUsage: sessionArgs, Action: operate(needLedger, showBills),
				Flags: stores(&cli.Uint32Flag{Name: "app", Usage: "the app, if several have a session with that number"}, jsonFlag())},
			{Name: "explain", Usage: "show when each user was in a session's room, how certain that is, and each line", ArgsUsage: sessionArgs,
				Action: operate(needLedger, needRules(extension), explainBills),
				Flags:  append(stores(&cli.Uint32Flag{Name: "app", Usage: "the app, if several have a session with that number"}, jsonFlag()), Flags("EXCLUDE")...)},
			{Name: "list", Usage: "list bills and adjustments in the order in which the rooms closed", Action: operate(readFilter, needLedger, listBills),
				Flags: append(stores(filter...), &cli.IntFlag{Name: "limit", Value: 100, Usage: "maximum number of bills; 0 for all"}, jsonFlag())},
			{Name: "export", Usage: "write bills and adjustments for another program", Action: operate(readFilter, needLedger, exportBills),
				Description: "Writes a record for each bill and each adjustment, or with --lines one for each of their lines. The columns\n" +
					"billed_... have what the record adds, so that you can sum them. The other columns have the figures of the\n" +
					"session at that time. In CSV, an apostrophe precedes text that a spreadsheet would run as a formula. In JSON\n" +
					"Lines, every text is exact.",
				Flags: append(stores(filter...),
					&cli.BoolFlag{Name: "lines", Usage: "write the lines of bills and adjustments"},
					&cli.StringFlag{Name: "format", Usage: "csv or jsonl (default: the extension of --output, else csv)"},
					&cli.StringFlag{Name: "output", Usage: "file to write, in place once it is complete (default: standard output)"})},
			{Name: "preview", Usage: "price past sessions again, without writing anything", Action: operate(checkPrices(extension), readFilter, needLedger, needRules(extension), previewBills),
				Description: "Prices the billed sessions with this program's price function or CLOSEOUT_PRICES, by the events now in the\n" +
					"ledger, and adds up the differences to the billed amounts.",
				Flags: append(append(stores(filter...), Flags("PRICES", "EXCLUDE")...), jsonFlag())},
		},
	}
}

// billReport is what the ledger has of some sessions.
type billReport struct {
	Sessions []*sessionBills `json:"sessions"`
}

type sessionBills struct {
	session.ID
	Bill        *ledger.MadeBill    `json:"bill"`
	Adjustments []ledger.Adjustment `json:"adjustments"`
	// Lines are those of the bill, then those of each adjustment.
	Lines [][]pricing.Line `json:"lines"`
	Stays []billedStay     `json:"stays"`
}

type billedStay struct {
	User   string    `json:"user"`
	Stay   string    `json:"stay"`
	Role   zego.Code `json:"role"`
	Login  time.Time `json:"login,omitzero"`
	Logout time.Time `json:"logout,omitzero"`
	// Excluded is why the last entry does not count the user; empty if it does, or if there is none.
	Excluded string `json:"excluded,omitempty"`
	// Contradicted reports that two callbacks disagree about it.
	Contradicted bool `json:"contradicted,omitempty"`
	// Late reports that a callback about it came after the bill.
	Late bool `json:"late,omitempty"`
}

func showBills(ctx context.Context, op *operation) error {
	report := billReport{Sessions: []*sessionBills{}}
	err := op.each("session", exampleSession, func(arg string) error {
		found, err := findBills(ctx, op, arg)
		report.Sessions = append(report.Sessions, found...)
		return err
	})
	return errors.Join(err, op.print(report, report.print))
}

// findBills returns what the ledger has of the sessions that an argument names: several only if several apps have the
// number.
func findBills(ctx context.Context, op *operation, arg string) (found []*sessionBills, err error) {
	l := op.ledger
	id, err := parseSession(arg)
	if err != nil {
		return nil, err
	}
	apps, number := []uint32{id.AppID}, id.RoomSessionID
	switch {
	case id.AppID != 0:
	case op.IsSet("app"):
		apps = []uint32{op.Uint32("app")}
	default:
		if apps, err = l.AppsOf(ctx, number); err != nil {
			return nil, err
		}
	}
	for _, app := range apps {
		b := &sessionBills{ID: session.ID{AppID: app, RoomSessionID: number}, Adjustments: []ledger.Adjustment{}, Lines: [][]pricing.Line{}, Stays: []billedStay{}}
		switch bill, err := l.MadeBill(ctx, b.ID); {
		case err == nil:
			b.Bill = &bill
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
		adjustments, err := l.Adjustments(ctx, b.ID)
		if err != nil {
			return nil, err
		}
		b.Adjustments = append(b.Adjustments, adjustments...)
		for entry := 0; b.Bill != nil && entry <= len(adjustments); entry++ {
			lines := []pricing.Line{}
			for line, err := range l.Lines(ctx, b.ID, entry) {
				if err != nil {
					return nil, err
				}
				lines = append(lines, line)
			}
			b.Lines = append(b.Lines, lines)
		}
		excluded := map[string]string{}
		if b.Bill != nil {
			if excluded, err = l.Excluded(ctx, b.ID, len(adjustments)); err != nil {
				return nil, err
			}
		}
		for s, err := range l.Stays(ctx, b.ID) {
			if err != nil {
				return nil, err
			}
			b.Stays = append(b.Stays, billedStay{s.User, s.ID, s.Role, fromMillis(s.Login), fromMillis(s.Logout), excluded[s.User], s.Contradicted,
				b.Bill != nil && s.SeenAt.After(b.Bill.MadeAt)})
		}
		if b.Bill != nil || len(b.Stays) > 0 {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the ledger has no bill and no stay of it")
	}
	return found, nil
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (r billReport) print(out io.Writer) error {
	for _, b := range r.Sessions {
		if err := b.print(out); err != nil {
			return err
		}
	}
	return nil
}

func (b *sessionBills) print(out io.Writer) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-13s  %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(out, "session %d of app %d\n", b.RoomSessionID, b.AppID)
	last := ledger.Bill{}
	if b.Bill == nil {
		line("bill", "none yet")
	} else {
		last = b.Bill.Bill
		line("room", "%s", printable.Line(last.RoomID))
		line("bill", "%s, made at %s", last.ID, moment(b.Bill.MadeAt))
		line("", "%s", figures(last))
		printLines(out, b.Lines[0])
	}
	for i, a := range b.Adjustments {
		last = a.Bill
		line(fmt.Sprintf("adjustment %d", a.Number), "%s, made at %s", a.ID, moment(a.MadeAt))
		change := fmt.Sprintf("%+d participant-seconds, %+d minutes", a.Difference.Seconds, a.Difference.Minutes)
		if a.Charge.Currency != "" {
			change += ", " + pricing.Format(a.Charge.Currency, a.Difference.Amount)
		}
		line("", "%s", change)
		line("", "now %s", figures(last))
		printLines(out, b.Lines[i+1])
	}
	if last.Usage.EndFrom != "" {
		line("callbacks", "of users: %v, of streams: %v", last.Usage.Callbacks, last.Usage.StreamCallbacks)
	}
	if last.Usage.Excluded != "" {
		line("excluded", "%s", printable.Line(last.Usage.Excluded))
	}
	if u := last.Usage; u.EndFrom != "" {
		line("room life", "%s (%s) to %s (%s)", millis(u.Start), cmp.Or(u.StartFrom, "unknown"), millis(u.End), u.EndFrom)
	}
	if len(b.Stays) == 0 {
		return nil
	}
	t := newTable(out, "  USER", "LOGIN", "LOGOUT", "STAY", "REMARKS")
	for _, s := range b.Stays {
		var remarks []string
		for remark, applies := range map[string]bool{"no participant: " + s.Excluded: s.Excluded != "", "contradicted": s.Contradicted, "came after the bill": s.Late} {
			if applies {
				remarks = append(remarks, remark)
			}
		}
		slices.Sort(remarks)
		t.row("  "+s.User, millis(s.Login), millis(s.Logout), s.Stay, printable.Line(strings.Join(remarks, ", ")))
	}
	return t.print()
}

// maxPrinted is how many lines of an entry are printed for people.
const maxPrinted = 100

func printLines(out io.Writer, lines []pricing.Line) {
	for i, l := range lines {
		if i == maxPrinted {
			fmt.Fprintf(out, "  %-13s  ... and %d more lines: --json or bill export --lines has them\n", "", len(lines)-i)
			return
		}
		fmt.Fprintf(out, "  %-13s  - %s\n", "", lineText(l))
	}
}

// lineText explains a line: "alice pays EUR 0.70 for time in the room: 7 × EUR 0.10 per minute".
func lineText(l pricing.Line) string {
	who, amount := "", l.Amount
	switch {
	case l.Payer != "":
		who = printable.Line(l.Payer) + " pays "
	case l.Payee != "":
		who, amount = printable.Line(l.Payee)+" is paid ", -amount
	}
	each := printable.Line(l.Unit)
	if l.UnitPrice != 0 {
		each = pricing.Format(l.Currency, l.UnitPrice) + " per " + each
	}
	return fmt.Sprintf("%s%s for %s: %d × %s", who, pricing.Format(l.Currency, amount), printable.Line(l.Description), l.Quantity, each)
}

// figures describes what a bill is for.
func figures(b ledger.Bill) string {
	u := b.Usage
	text := fmt.Sprintf("participants: %d, stays: %d, participant-seconds: %d, minutes: %d", u.Participants, u.Stays, u.Seconds, u.Minutes)
	if u.Published > 0 {
		text += fmt.Sprintf(", published seconds: %d", u.PublishedSeconds)
	}
	if b.Charge.Currency != "" {
		text += ", amount: " + pricing.Format(b.Charge.Currency, b.Charge.Amount)
	}
	if u.Estimated != 0 {
		text += "; estimated: " + strings.Join(u.Estimated.Names(), ", ")
	}
	return text
}

func millis(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// readFilter is a step that reads the flags that select bills.
func readFilter(_ context.Context, op *operation) (err error) {
	f := &op.bills
	f.AppID = op.Uint32("app")
	for name, to := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		v := op.String(name)
		if v == "" {
			continue
		}
		if *to, err = time.Parse(time.DateOnly, v); err != nil {
			if *to, err = time.Parse(time.RFC3339, v); err != nil {
				return usagef("--%s: found %q, want a day such as 2026-11-01, or a time such as 2026-11-01T12:00:00Z", name, v)
			}
		}
	}
	if !f.To.IsZero() && !f.To.After(f.From) {
		return usagef("--to: found %s, want a time after --from, %s", op.String("to"), op.String("from"))
	}
	return nil
}

// billEntry is a bill or an adjustment.
type billEntry struct {
	Entry  string    `json:"entry"`
	ID     uuid.UUID `json:"id"`
	Number int       `json:"number"`
	ledger.Bill
	// Billed is what the entry adds to those before it.
	Billed pricing.Change `json:"billed"`
	// BilledText is its amount for people.
	BilledText string    `json:"billed_amount_text,omitempty"`
	MadeAt     time.Time `json:"made_at"`
}

func billEntries(e ledger.Entry) []billEntry {
	entries := []billEntry{{Entry: "bill", ID: e.ID, Bill: e.Bill, Billed: e.Since(pricing.Bill{}), MadeAt: e.MadeAt}}
	for _, a := range e.Adjustments {
		entries = append(entries, billEntry{Entry: "adjustment", ID: a.ID, Number: a.Number, Bill: a.Bill, Billed: a.Difference, MadeAt: a.MadeAt})
	}
	for i, entry := range entries {
		entries[i].BilledText = pricing.Format(entry.Charge.Currency, entry.Billed.Amount)
	}
	return entries
}

// billList lists entries, and whether there are more.
type billList struct {
	Entries []billEntry `json:"entries"`
	Bills   int         `json:"bills"`
	More    bool        `json:"more"`
}

func listBills(ctx context.Context, op *operation) error {
	list := billList{Entries: []billEntry{}}
	for e, err := range op.ledger.Entries(ctx, op.bills) {
		if err != nil {
			return err
		}
		if limit := op.Int("limit"); limit > 0 && list.Bills == limit {
			list.More = true
			break
		}
		list.Bills++
		list.Entries = append(list.Entries, billEntries(e)...)
	}
	return op.print(list, list.print)
}

func (l billList) print(out io.Writer) error {
	t := newTable(out, "CLOSED", "SESSION", "ENTRY", "MINUTES", "AMOUNT", "ROOM", "APP", "SECONDS", "ESTIMATED")
	seconds, minutes, amounts := new(big.Int), new(big.Int), amounts{}
	for _, e := range l.Entries {
		name, amount := e.Entry, "-"
		if e.Number > 0 {
			name = fmt.Sprintf("%s %d", e.Entry, e.Number)
		}
		if c := e.Charge.Currency; c != "" {
			amount = e.BilledText
			amounts.add(c, e.Billed.Amount)
		}
		seconds.Add(seconds, big.NewInt(e.Billed.Seconds))
		minutes.Add(minutes, big.NewInt(e.Billed.Minutes))
		t.row(moment(e.RoomCloseTime), e.RoomSessionID, name, e.Billed.Minutes, amount, e.RoomID, e.AppID, e.Billed.Seconds,
			strings.Join(e.Usage.Estimated.Names(), ","))
	}
	if err := t.print(); err != nil {
		return err
	}
	fmt.Fprintf(out, "in all %s participant-seconds, %s minutes", seconds, minutes)
	for _, sum := range amounts.texts() {
		fmt.Fprintf(out, ", %s", sum)
	}
	if l.More {
		fmt.Fprintf(out, "; these are the first %d bills, --limit 0 lists all", l.Bills)
	}
	fmt.Fprintln(out)
	return nil
}

// amounts holds sums in minor units by currency. A sum may be too large for an int64.
type amounts map[string]*big.Int

func (a amounts) add(currency string, amount int64) {
	sum := a.of(currency)
	sum.Add(sum, big.NewInt(amount))
}

func (a amounts) subtract(currency string, amount int64) {
	sum := a.of(currency)
	sum.Sub(sum, big.NewInt(amount))
}

func (a amounts) of(currency string) *big.Int {
	if a[currency] == nil {
		a[currency] = new(big.Int)
	}
	return a[currency]
}

// texts returns the sums for people.
func (a amounts) texts() (all []string) {
	for _, c := range slices.Sorted(maps.Keys(a)) {
		text := fmt.Sprintf("%s %s (minor units)", c, a[c])
		if a[c].IsInt64() {
			text = pricing.Format(c, a[c].Int64())
		}
		all = append(all, text)
	}
	return all
}
