package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/ledger"
)

// Reconcile returns the command that compares the ledger with what ZEGO counts.
func Reconcile() *cli.Command {
	return &cli.Command{
		Name:  "reconcile",
		Usage: "compare the ledger with ZEGO's counts",
		Commands: []*cli.Command{{
			Name: "usage", Usage: "compare each day of an exported CSV file with the ledger", ArgsUsage: "FILE", Action: operate(reconcileUsage),
			Description: "ZEGO does not document the columns of its console's exports, so name those with the day and the time. Rows of one\n" +
				"day are added up, and other columns are ignored. A session counts on the day on which its room closed.\n\n" +
				"    closeout reconcile usage --app 1234567890 --day-column Date --minutes-column 'Voice minutes' usage.csv",
			Flags: append(Flags("DATA", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT"),
				&cli.Uint32Flag{Name: "app", Usage: "ZEGO's appid", Required: true},
				&cli.StringFlag{Name: "day-column", Usage: "column with the day, as in 2026-11-01, 2026/11/01 or 20261101; text after it is ignored", Required: true},
				&cli.StringFlag{Name: "minutes-column", Usage: "column with participant minutes"},
				&cli.StringFlag{Name: "seconds-column", Usage: "column with participant seconds, instead of minutes"},
				&cli.StringFlag{Name: "where", Usage: "only rows with that value, as in 'AppID=1234567890'"},
				&cli.StringFlag{Name: "utc-offset", Usage: "offset of the file's days", Value: "+00:00"}, jsonFlag())}},
	}
}

// usageDays compares days. ZEGO and Ledger are milliseconds of participants.
type usageDays struct {
	Days []usageDay `json:"days"`
}

type usageDay struct {
	Day      string `json:"day"`
	ZEGO     int64  `json:"zego_ms"`
	Ledger   int64  `json:"ledger_ms"`
	Sessions int    `json:"sessions"`
	// Estimated counts the sessions with an estimate.
	Estimated int `json:"estimated"`
}

func reconcileUsage(ctx context.Context, op *operation) error {
	if op.Args().Len() != 1 {
		return usagef("found no file, or several, want the CSV file that ZEGO's console exported")
	}
	offset, err := time.Parse("-07:00", op.String("utc-offset"))
	if err != nil {
		return usagef("--utc-offset: found %q, want one such as +08:00", op.String("utc-offset"))
	}
	zone := offset.Location()
	file, err := os.ReadFile(op.Args().First())
	if err != nil {
		return err
	}
	days, err := readUsage(file, op, zone)
	if err != nil {
		return fmt.Errorf("%s: %w", op.Args().First(), err)
	}
	names := slices.Sorted(maps.Keys(days))
	first, _ := time.ParseInLocation(time.DateOnly, names[0], zone)
	last, _ := time.ParseInLocation(time.DateOnly, names[len(names)-1], zone)
	if err := needLedger(ctx, op); err != nil {
		return err
	}
	for e, err := range op.ledger.Entries(ctx, ledger.Filter{AppID: op.Uint32("app"), From: first, To: last.AddDate(0, 0, 1)}) {
		if err != nil {
			return err
		}
		name := e.RoomCloseTime.In(zone).Format(time.DateOnly)
		day := days[name]
		if day == nil { // within the file's days, and not in the file
			day = &usageDay{Day: name}
			days[name] = day
		}
		usage := e.Usage
		if n := len(e.Adjustments); n > 0 {
			usage = e.Adjustments[n-1].Usage
		}
		day.Ledger += usage.Millis
		day.Sessions++
		if usage.Estimated != 0 {
			day.Estimated++
		}
	}
	result := usageDays{}
	for _, name := range slices.Sorted(maps.Keys(days)) {
		result.Days = append(result.Days, *days[name])
	}
	return op.print(result, result.print)
}

// readUsage returns what ZEGO counted, by day.
func readUsage(file []byte, op *operation, zone *time.Location) (map[string]*usageDay, error) {
	amount, perUnit := op.String("minutes-column"), int64(60_000)
	if seconds := op.String("seconds-column"); seconds != "" {
		if amount != "" {
			return nil, usagef("--minutes-column and --seconds-column: found both, want one")
		}
		amount, perUnit = seconds, 1000
	}
	if amount == "" {
		return nil, usagef("--minutes-column, --seconds-column: found none, want one: the column with the time")
	}
	whereColumn, whereValue, filtered := strings.Cut(op.String("where"), "=")
	rows := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(file, []byte("\ufeff")))) // a mark that spreadsheets write
	rows.FieldsPerRecord, rows.TrimLeadingSpace = -1, true
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	var faults []error
	column := func(name string) int {
		i := slices.IndexFunc(header, func(h string) bool { return strings.TrimSpace(h) == name })
		if i < 0 {
			faults = append(faults, fmt.Errorf("found no column %q, want one of %q", name, header))
		}
		return i
	}
	dayAt, amountAt, whereAt := column(op.String("day-column")), column(amount), 0
	if filtered {
		whereAt = column(whereColumn)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	days := map[string]*usageDay{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		if len(row) <= max(dayAt, amountAt, whereAt) {
			return nil, fmt.Errorf("line %d: found %d columns, want at least %d", line, len(row), max(dayAt, amountAt, whereAt)+1)
		}
		if filtered && strings.TrimSpace(row[whereAt]) != whereValue {
			continue
		}
		name, err := parseDay(row[dayAt], zone)
		if err != nil {
			return nil, fmt.Errorf("line %d, column %q: %w", line, header[dayAt], err)
		}
		ms, err := parseAmount(row[amountAt], perUnit)
		if err != nil {
			return nil, fmt.Errorf("line %d, column %q: %w", line, header[amountAt], err)
		}
		if days[name] == nil {
			days[name] = &usageDay{Day: name}
		}
		days[name].ZEGO += ms
	}
	if len(days) == 0 {
		return nil, errors.New("found no rows")
	}
	return days, nil
}

func parseDay(text string, zone *time.Location) (string, error) {
	text = strings.TrimSpace(text)
	for _, layout := range []string{time.DateOnly, "2006/01/02", "20060102"} {
		if len(text) >= len(layout) {
			if day, err := time.ParseInLocation(layout, text[:len(layout)], zone); err == nil {
				return day.Format(time.DateOnly), nil
			}
		}
	}
	return "", fmt.Errorf("found %q, want a day such as 2026-11-01", text)
}

// parseAmount returns the milliseconds of a decimal number of units.
func parseAmount(text string, perUnit int64) (int64, error) {
	plain := strings.ReplaceAll(strings.TrimSpace(text), ",", "")
	amount, ok := new(big.Rat).SetString(plain)
	if !ok || amount.Sign() < 0 || strings.ContainsAny(plain, "/eEpPxX_") {
		return 0, fmt.Errorf("found %q, want a number", text)
	}
	amount.Mul(amount, new(big.Rat).SetInt64(perUnit))
	ms := new(big.Int).Quo(amount.Num(), amount.Denom())
	if !ms.IsInt64() || ms.BitLen() > 52 {
		return 0, fmt.Errorf("found %q, want a smaller number", text)
	}
	return ms.Int64(), nil
}

func (u usageDays) print(out io.Writer) error {
	t := newTable(out, "DAY", "ZEGO MIN", "LEDGER MIN", "DIFFERENCE", "SESSIONS", "ESTIMATED")
	total := usageDay{Day: "total"}
	for _, d := range append(u.Days, total) {
		if d.Day == total.Day {
			d = total
		}
		t.row(d.Day, minutes(d.ZEGO), minutes(d.Ledger), minutes(d.ZEGO-d.Ledger), d.Sessions, d.Estimated)
		total.ZEGO, total.Ledger, total.Sessions, total.Estimated = total.ZEGO+d.ZEGO, total.Ledger+d.Ledger, total.Sessions+d.Sessions, total.Estimated+d.Estimated
	}
	return t.print()
}

// minutes returns milliseconds as minutes with two decimals.
func minutes(ms int64) string {
	sign := ""
	if ms < 0 {
		sign, ms = "-", -ms
	}
	hundredths := ms / 600
	return fmt.Sprintf("%s%d.%02d", sign, hundredths/100, hundredths%100)
}
