package cli

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/zego"
)

func exportBills(ctx context.Context, op *operation) error {
	path, format := op.String("output"), op.String("format")
	if format == "" {
		if format = strings.TrimPrefix(filepath.Ext(path), "."); exporters[format] == nil {
			format = "csv"
		}
	}
	if exporters[format] == nil {
		return usagef("--format: found %q, want csv or jsonl", format)
	}
	if path == "" {
		out := op.out
		if !progress.IsTerminal(out) {
			out = printable.Unwrap(out) // a program reads it, and needs every text exactly
		}
		return export(ctx, op, format, out)
	}
	// CreateTemp makes the file readable by its owner only: it has who was where, for how long, and what that costs.
	file, err := os.CreateTemp(filepath.Dir(path), ".closeout-bills-*")
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // it is gone once it is complete
	defer file.Close()
	if err := export(ctx, op, format, file); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(file.Name(), path)); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

func export(ctx context.Context, op *operation, format string, out io.Writer) error {
	total, err := op.ledger.CountBills(ctx, op.bills)
	if err != nil {
		return err
	}
	var exported atomic.Int64
	defer progress.Bar{Total: progress.Of(total), What: "bills", Done: exported.Load}.Start(op.Root().ErrWriter)()
	buffered := bufio.NewWriterSize(out, 1<<16)
	columns := csvColumns
	if op.Bool("lines") {
		columns = csvLineColumns
	}
	write := exporters[format](buffered, columns)
	for e, err := range op.ledger.Entries(ctx, op.bills) {
		if err != nil {
			return err
		}
		for _, entry := range billEntries(e) {
			if !op.Bool("lines") {
				if err := write(entry); err != nil {
					return fmt.Errorf("write: %w", err)
				}
				continue
			}
			number := 0
			for line, err := range op.ledger.Lines(ctx, e.Session.ID, entry.Number) {
				if number++; err == nil {
					err = write(billLine{entry.Entry, entry.ID, entry.Number, entry.AppID, entry.RoomID, entry.RoomSessionID, entry.RoomCloseTime, number, line, entry.MadeAt})
				}
				if err != nil {
					return fmt.Errorf("write: %w", err)
				}
			}
		}
		exported.Add(1)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// A record is what an export writes: an entry or a line.
type record interface{ csv() []string }

// exporters return functions that write a record in a format.
var exporters = map[string]func(w io.Writer, columns []string) func(record) error{
	"csv": func(w io.Writer, columns []string) func(record) error {
		out := csv.NewWriter(w)
		_ = out.Write(columns) // Error reports it
		out.Flush()
		return func(r record) error {
			_ = out.Write(r.csv())
			out.Flush()
			return out.Error()
		}
	},
	"jsonl": func(w io.Writer, _ []string) func(record) error {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		return func(r record) error { return encoder.Encode(r) }
	},
}

// A billLine is a line of an entry.
type billLine struct {
	Entry         string       `json:"entry"`
	ID            uuid.UUID    `json:"id"`
	Number        int          `json:"number"`
	AppID         uint32       `json:"appid"`
	RoomID        string       `json:"room_id"`
	RoomSessionID uint64       `json:"room_session_id,string"`
	RoomCloseTime time.Time    `json:"room_close_time"`
	LineNumber    int          `json:"line_number"`
	Line          pricing.Line `json:"line"`
	MadeAt        time.Time    `json:"made_at"`
}

var csvLineColumns = []string{"entry", "id", "number", "appid", "room_id", "room_session_id", "room_close_time", "line_number", "payer", "payee", "description",
	"quantity", "unit", "unit_price", "amount", "currency", "amount_text", "made_at"}

func (b billLine) csv() []string {
	l := b.Line
	return []string{b.Entry, b.ID.String(), strconv.Itoa(b.Number), strconv.FormatUint(uint64(b.AppID), 10), csvText(b.RoomID),
		strconv.FormatUint(b.RoomSessionID, 10), millis(b.RoomCloseTime), strconv.Itoa(b.LineNumber), csvText(l.Payer), csvText(l.Payee), csvText(l.Description),
		strconv.FormatInt(l.Quantity, 10), csvText(l.Unit), strconv.FormatInt(l.UnitPrice, 10), strconv.FormatInt(l.Amount, 10), l.Currency,
		pricing.Format(l.Currency, l.Amount), millis(b.MadeAt)}
}

var csvColumns = []string{"entry", "id", "bill_id", "number", "appid", "room_id", "room_session_id", "close_reason", "room_close_time", "reconciled",
	"start", "start_from", "end", "end_from", "participants", "stays", "participant_milliseconds", "participant_seconds", "participant_minutes",
	"estimated", "published_milliseconds", "published_seconds", "published_estimated", "callbacks", "stream_callbacks", "excluded", "currency", "price_per_minute", "amount", "amount_text", "lines", "billed_milliseconds", "billed_seconds", "billed_minutes",
	"billed_amount", "billed_amount_text", "billed_lines", "made_at"}

func (e billEntry) csv() []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return millis(t)
	}
	u, price, amount, billed := e.Usage, "", "", ""
	if e.Charge.Currency != "" {
		price, amount, billed = number(e.Charge.PerMinute), number(e.Charge.Amount), number(e.Billed.Amount)
	}
	return []string{e.Entry, e.ID.String(), e.Bill.ID.String(), strconv.Itoa(e.Number), number(int64(e.AppID)), csvText(e.RoomID),
		strconv.FormatUint(e.RoomSessionID, 10), csvCode(e.CloseReason), when(e.RoomCloseTime), strconv.FormatBool(e.Reconciled),
		when(u.Start), u.StartFrom, when(u.End), u.EndFrom, number(u.Participants), number(u.Stays),
		number(u.Millis), number(u.Seconds), number(u.Minutes), u.Estimated.String(),
		number(u.Published), number(u.PublishedSeconds), u.PublishedEstimated.String(), u.Callbacks.String(), u.StreamCallbacks.String(), csvText(u.Excluded), e.Charge.Currency, price, amount,
		pricing.Format(e.Charge.Currency, e.Charge.Amount), number(e.Charge.Lines),
		number(e.Billed.Millis), number(e.Billed.Seconds), number(e.Billed.Minutes), billed, e.BilledText, number(e.Billed.Lines), when(e.MadeAt)}
}

// csvCode returns a code as a CSV cell: words of a stranger are a text, a number isn't.
func csvCode(c zego.Code) string {
	if _, ok := c.Number(); ok {
		return string(c)
	}
	return csvText(string(c))
}

// csvText returns a text as a CSV cell. Spreadsheets run a cell that begins with one of = + - @, in some also in full
// width or behind white space, as a formula, so such a text gets an apostrophe, which marks it as text. So does a text
// that begins with an apostrophe: removing one always returns the text itself.
func csvText(s string) string {
	begin := strings.TrimLeftFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf) })
	first := strings.IndexFunc(begin, func(r rune) bool { return strings.ContainsRune("=+-@\uff1d\uff0b\uff0d\uff20'", r) })
	if first == 0 || s != "" && strings.ContainsRune("\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}
