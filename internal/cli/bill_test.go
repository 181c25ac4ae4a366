package cli_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// bills creates a ledger in a data folder, and returns the folder. It has a session with an
// adjustment, one of another app with the same number and another price, and one without usage.
func bills(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	closed := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	stay := func(app uint32, number uint64, user string, from, to time.Duration) ledger.Event {
		return ledger.Event{ID: session.ID{AppID: app, RoomSessionID: number}, RoomID: "lobby, \"left\"", Event: "room_logout", Stay: user, User: user, Role: "1",
			Login: closed.Add(from), Logout: closed.Add(to), SeenAt: time.Now().Add(time.Second)}
	}
	created := ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, RoomID: "lobby, \"left\"", Event: "room_create", Create: closed.Add(-time.Hour), SeenAt: time.Now()}
	record := func(all ...ledger.Event) {
		if err := books.Record(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	finalize := func(app uint32, number uint64, at time.Time, price pricing.Price) {
		if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: app, RoomSessionID: number}, RoomID: "lobby, \"left\"", RoomCloseTime: at}, Charge: pricing.Charge{Price: price}}); err != nil {
			t.Fatal(err)
		}
	}
	record(created, stay(1, 1<<64-1, "a", -10*time.Minute, -time.Minute), stay(2, 1<<64-1, "b", -time.Minute, 0))
	finalize(1, 1<<64-1, closed, pricing.Price{Currency: "EUR", PerMinute: 2})
	record(stay(1, 1<<64-1, "late", -90*time.Second, time.Minute))
	if _, err := books.Adjust(t.Context(), uuid.New(), session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, 1); err != nil {
		t.Fatal(err)
	}
	finalize(2, 1<<64-1, closed, pricing.Price{Currency: "JPY", PerMinute: 3})
	finalize(2, 7, closed.AddDate(0, 1, 0), pricing.Price{})
	return data
}

func TestBillShowPrintsEntriesAndStays(t *testing.T) {
	data := bills(t)
	code, out, stderr := closeout("bill show 18446744073709551615 --app 1 --data " + data)
	for _, want := range []string{
		"session 18446744073709551615 of app 1\n", "participants: 1, stays: 1, participant-seconds: 540, minutes: 9, amount: EUR 0.18\n", "- EUR 0.18 for participant-minutes: 9 × EUR 0.02 per minute\n",
		"adjustment 1", "+90 participant-seconds, +2 minutes, EUR 0.04", "- EUR 0.04 for participant-minutes: 2 × EUR 0.02 per minute", "now participants: 2, stays: 2, participant-seconds: 630, minutes: 11",
		"2026-11-03T11:00:00.000Z (room_create) to 2026-11-03T12:00:00.000Z (room_close)", "came after the bill",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %q in\n%s%s", code, want, out, stderr)
		}
	}
	_, out, _ = closeout("bill show room-close-1-18446744073709551615 --json --data " + data)
	var shown struct {
		Sessions []struct {
			Session     string `json:"room_session_id"`
			Bill        struct{ Usage session.Usage }
			Adjustments []struct{ Difference pricing.Change }
			Stays       []struct {
				User string
				Late bool
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Sessions) != 1 || shown.Sessions[0].Session != "18446744073709551615" ||
		shown.Sessions[0].Bill.Usage.Seconds != 540 || len(shown.Sessions[0].Adjustments) != 1 || len(shown.Sessions[0].Stays) != 2 || !shown.Sessions[0].Stays[1].Late {
		t.Errorf("%v in %s", err, out)
	}
	if _, out, _ := closeout("bill show 18446744073709551615 --data " + data); !strings.Contains(out, "of app 1\n") || !strings.Contains(out, "of app 2\n") {
		t.Errorf("not of both apps:\n%s", out)
	}
	for args, want := range map[string]string{
		"5":     "1 error: 5: the ledger has no bill and no stay of it",
		"lobby": "2 error: lobby: want a room_session_id",
		"":      "2 error: no session\nhint: for example: closeout bill show ",
	} {
		if code, _, stderr := closeout("bill show --data " + data + " " + args); !strings.HasPrefix(fmt.Sprint(code, " ", stderr), want) {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
}

func TestBillShowMarksWhomTheBillExcluded(t *testing.T) {
	data := t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	at := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	stay := func(user string, role zego.Code) ledger.Event {
		return ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "r", Event: "room_logout", Stay: user, User: user, Role: role, Login: at.Add(-time.Minute), Logout: at}
	}
	if err := books.Record(t.Context(), []ledger.Event{stay("ada", "4"), stay("bot-1", ""), stay("bot-2", "4"),
		{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "r", Event: "stream_close", Stay: "s", User: "ada", Number: 5, Login: at.Add(-30 * time.Second), Logout: at.Add(-time.Second)},
		{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "r", Event: "stream_create", Stay: "t", User: "ada", Number: 2, Login: at.Add(-50 * time.Second)}}); err != nil {
		t.Fatal(err)
	}
	books.Rules.List = []metering.Rule{{User: "bot-*"}}
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "r", RoomCloseTime: at}}); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := closeout("bill show 7 --data " + data)
	for _, want := range []string{", published seconds: 50;", "callbacks      of users: unknown, of streams: missing 1\n", "excluded       bot-1 (user bot-*), bot-2 (user bot-*)\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if _, out, _ := closeout("bill export --data " + data); !strings.Contains(out, "no_room_create,50000,50,no_stream_close missing_callbacks,unknown,missing 1,\"bot-1 (user bot-*), bot-2 (user bot-*)\",") {
		t.Errorf("exported %s", out)
	}
	for user, remark := range map[string]string{"ada": "", "bot-1": "no participant: user bot-*", "bot-2": "no participant: user bot-*"} {
		i := strings.LastIndex(out, "  "+user+" ")
		if line, _, _ := strings.Cut(out[max(i, 0):], "\n"); code != 0 || i < 0 || strings.Contains(line, "no participant") != (remark != "") || !strings.Contains(line, remark) {
			t.Errorf("%s: want %q in\n%s%s", user, remark, out, stderr)
		}
	}
}

func TestBillExplainShowsTimelinesBoundsAndLines(t *testing.T) {
	data := t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	books.Price = func(s pricing.Session) ([]pricing.Line, error) {
		all := []pricing.Line{{Payee: "the house", Description: "fee", Quantity: 1, Unit: "session", Amount: -5, Currency: "EUR"}}
		for p := range s.Participants {
			n := p.InRoom.Minutes()
			all = append(all, pricing.Line{Payer: p.User, Description: "time", Quantity: n, Unit: "minute", UnitPrice: 7, Amount: 7 * n, Currency: "EUR"})
		}
		return all, nil
	}
	end := time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)
	record := func(u ledger.Event) {
		u.AppID, u.RoomID, u.RoomSessionID = 1, "r", 7
		if err := books.Record(t.Context(), []ledger.Event{u}); err != nil {
			t.Fatal(err)
		}
	}
	record(ledger.Event{Event: "room_create", Create: end.Add(-time.Hour)})
	record(ledger.Event{Event: "room_login", Stay: "1", User: "ada", Name: "Ada", Number: 1, Login: end.Add(-10 * time.Minute)})
	record(ledger.Event{Event: "stream_close", Stay: "s", Name: "mic", User: "ada", Login: end.Add(-8 * time.Minute), Logout: end.Add(-6 * time.Minute)})
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "r", RoomCloseTime: end}}); err != nil {
		t.Fatal(err)
	}
	check := func(wanted ...string) {
		t.Helper()
		code, out, stderr := closeout("bill explain 7 --data " + data)
		for _, want := range wanted {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%d, no %q in\n%s%s", code, want, out, stderr)
			}
		}
	}
	check("session 7 of app 1, the bill\n", "callbacks of users: missing 1, of streams: unknown\n",
		"\nada (Ada)\n  in the room: 10m0s, at least 4m0s and at most 10m0s, because of no_logout\n  published:   2m0s\n",
		"  2026-11-03T11:52:00.000Z  publishes mic   stated\n", "logout, stay 1  bounded, from 2026-11-03T11:54:00.000Z to 2026-11-03T12:00:00.000Z\n  bill: ada pays EUR 0.70 for time: 10 × EUR 0.07 per minute\n",
		"\n\n  bill: the house is paid EUR 0.05 for fee: 1 × session\n")

	record(ledger.Event{Event: "room_logout", Stay: "1", User: "ada", Number: 2, Login: end.Add(-10 * time.Minute), Logout: end.Add(-5 * time.Minute)})
	if _, err := books.Adjust(t.Context(), uuid.New(), session.ID{AppID: 1, RoomSessionID: 7}, 1); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := closeout("bill explain 7 --json --data " + data); !strings.Contains(strings.Join(strings.Fields(out), ""),
		`"user":"ada","names":["Ada"],"role":null,"stays":[{"session_id":"1","login":{"time":"2026-11-03T11:50:00Z","certainty":"stated","earliest":"2026-11-03T11:50:00Z","latest":"2026-11-03T11:50:00Z"},`) ||
		!strings.Contains(strings.Join(strings.Fields(out), ""), `"in_room":{"milliseconds":300000,"min_milliseconds":300000,"max_milliseconds":300000,"reasons":[]},"published":{"milliseconds":120000,`) {
		t.Errorf("as JSON: %s", out)
	}
	check("adjustment 1\n", "callbacks of users: complete,", "  in the room: 5m0s\n", "  before:      10m0s in the room, 2m0s published\n", "  adjustment 1: ada pays EUR -0.35 for time: -5 × EUR 0.07 per minute\n")
}

func TestBillListAddsUp(t *testing.T) {
	data := bills(t)
	for args, want := range map[string][]string{
		"":                                  {"in all 690 participant-seconds, 12 minutes, EUR 0.22, JPY 3\n", "adjustment 1", "no_usage,no_room_create"},
		"--app 1":                           {"in all 630 participant-seconds, 11 minutes, EUR 0.22\n"},
		"--from 2026-12-01":                 {"in all 0 participant-seconds, 0 minutes\n"},
		"--from 2026-11-03 --to 2026-11-04": {"in all 690 participant-seconds"},
		"--to 2026-11-03T12:00:00Z":         {"in all 0 participant-seconds, 0 minutes\n"},
		"--limit 1":                         {"in all 630 participant-seconds", "these are the first 1 bills, --limit 0 lists all"},
	} {
		code, out, stderr := closeout("bill list --data " + data + " " + args)
		for _, w := range want {
			if code != 0 || !strings.Contains(out, w) {
				t.Errorf("%q: %d, no %q in\n%s%s", args, code, w, out, stderr)
			}
		}
	}
	for args, want := range map[string]string{
		"--from yesterday":                  `--from: found "yesterday", want a day such as 2026-11-01`,
		"--from 2026-11-02 --to 2026-11-01": "--to: found 2026-11-01, want a time after --from",
	} {
		if code, _, stderr := closeout("bill list --data " + data + " " + args); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
}

// The app's users choose a room's name, and a spreadsheet runs text that looks like a formula. The
// export prefixes it with one apostrophe, and is otherwise exact.
func TestBillExportRunsNoFormulas(t *testing.T) {
	data := t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	formulas := []string{"=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\nx", " =1", "\u00a0=1", "\ufeff=1", "\u200b-1", "\x00=1", "\uff1d1", "\uff20x", "'=1"}
	texts := []string{"lobby", "a=b", "1-2", "room, \"left\"", "会议室", ""}
	for i, room := range append(slices.Clone(formulas), texts...) {
		if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: uint64(i + 1)}, RoomID: room, RoomCloseTime: time.UnixMilli(int64(1e12 + i))}}); err != nil {
			t.Fatal(err)
		}
	}
	_, out, _ := closeout("bill export --data " + data)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 1+len(formulas)+len(texts) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, row := range rows[1:] {
		cell := row[slices.Index(rows[0], "room_id")]
		if i >= len(formulas) {
			if want := texts[i-len(formulas)]; cell != want {
				t.Errorf("%q became %q", want, cell)
			}
			continue
		}
		// CSV readers replace a carriage return and line feed by a line feed, so no text has both.
		if want := "'" + formulas[i]; cell != want {
			t.Errorf("%q became %q, want %q", formulas[i], cell, want)
		}
		if _, err := strconv.ParseInt(row[slices.Index(rows[0], "billed_seconds")], 10, 64); err != nil {
			t.Errorf("a number is none any more: %v", err)
		}
	}
	_, out, _ = closeout("bill export --format jsonl --data " + data)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, room := range append(slices.Clone(formulas), texts...) {
		var e struct {
			RoomID string `json:"room_id"`
		}
		if err := json.Unmarshal([]byte(lines[i]), &e); err != nil || e.RoomID != room {
			t.Errorf("JSON Lines have %q, %v; want %q", e.RoomID, err, room)
		}
	}
}

func TestBillExportIsReadableByItsOwnerOnly(t *testing.T) {
	data := bills(t)
	file := filepath.Join(data, "out.csv")
	if err := os.WriteFile(file, nil, 0o644); err != nil { // as of an earlier export
		t.Fatal(err)
	}
	if code, _, stderr := closeout("bill export --data " + data + " --output " + file); code != 0 {
		t.Fatal(stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&^0o600 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestBillExportCanBeSummedUp(t *testing.T) {
	data := bills(t)
	file := filepath.Join(data, "out.csv")
	if code, out, stderr := closeout("bill export --data " + data + " --output " + file); code != 0 || out != "" {
		t.Fatal(code, out, stderr)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	sum := int64(0)
	for _, row := range rows[1:] {
		at := map[string]string{}
		for i, name := range rows[0] {
			at[name] = row[i]
		}
		n, err := strconv.ParseInt(at["billed_seconds"], 10, 64)
		if err != nil || at["room_id"] != `lobby, "left"` {
			t.Errorf("row %v, %v", at, err)
		}
		if (at["amount"] == "") != (at["currency"] == "") || (at["billed_amount"] == "") != (at["billed_amount_text"] == "") {
			t.Errorf("an amount without a currency: %v", at)
		}
		sum += n
	}
	if sum != 690 {
		t.Errorf("billed %d s, want 690", sum)
	}
	if left, _ := filepath.Glob(filepath.Join(data, ".closeout-bills-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	code, out, stderr := closeout("bill export --format jsonl --app 1 --data " + data)
	if code != 0 {
		t.Fatal(stderr)
	}
	sum = 0
	for line := range strings.Lines(out) {
		var e struct {
			Entry, ID string
			Bill      string `json:"bill_id"`
			Billed    pricing.Change
			Usage     session.Usage
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if (e.Entry == "bill") != (e.ID == e.Bill) {
			t.Errorf("%s", line)
		}
		sum += e.Billed.Seconds
	}
	if sum != 630 {
		t.Errorf("billed %d s, want 630:\n%s", sum, out)
	}
	if code, _, stderr := closeout("bill export --format xml --data " + data); code != 2 || !strings.Contains(stderr, `--format: found "xml", want csv or jsonl`) {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, stderr := closeout("bill export --output " + data + "/none/out.csv --data " + data); code != 1 || !strings.Contains(stderr, "--output: ") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestBillExportHasLinesThatAddUpToTheBills(t *testing.T) {
	data := bills(t)
	_, out, _ := closeout("bill export --lines --data " + data)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows, %v in\n%s", len(rows), err, out)
	}
	for i, want := range []string{"bill,0,1,participant-minutes,9,minute,2,18,EUR,EUR 0.18", "adjustment,1,1,participant-minutes,2,minute,2,4,EUR,EUR 0.04", "bill,0,1,participant-minutes,1,minute,3,3,JPY,JPY 3"} {
		var cells []string
		for _, name := range []string{"entry", "number", "line_number", "description", "quantity", "unit", "unit_price", "amount", "currency", "amount_text"} {
			cells = append(cells, rows[i+1][slices.Index(rows[0], name)])
		}
		if got := strings.Join(cells, ","); got != want {
			t.Errorf("row %d is %s, want %s", i+1, got, want)
		}
	}
	_, out, _ = closeout("bill export --lines --format jsonl --app 1 --data " + data)
	sum := int64(0)
	for text := range strings.Lines(out) {
		var l struct {
			Session string `json:"room_session_id"`
			Line    struct {
				pricing.Line
				Text string `json:"amount_text"`
			}
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Session != "18446744073709551615" || l.Line.Text != pricing.Format("EUR", l.Line.Amount) {
			t.Errorf("%v in %s", err, text)
		}
		sum += l.Line.Amount
	}
	if sum != 22 {
		t.Errorf("lines add up to %d, want 22:\n%s", sum, out)
	}
}

// previewWith runs bill preview in a program with the price function.
func previewWith(data string, price pricing.Func, args ...string) (code int, out, stderr string) {
	var o, e strings.Builder
	code = cli.Main(context.Background(), service.Extension{Price: price}, append([]string{"closeout", "bill", "preview", "--data", data}, args...), &o, &e)
	return code, o.String(), e.String()
}

func TestBillPreviewPricesPastSessionsAgainAndWritesNothing(t *testing.T) {
	data := bills(t)
	_, before, _ := closeout("bill export --format jsonl --data " + data)
	perHead := func(s pricing.Session) (lines []pricing.Line, err error) {
		for p := range s.Participants {
			lines = append(lines, pricing.Line{Payer: p.User, Description: "entry", Quantity: 1, Unit: "person", UnitPrice: 50, Amount: 50, Currency: "EUR"})
		}
		return lines, nil
	}
	code, out, stderr := previewWith(data, perHead)
	if want := "billed EUR 0.22, JPY 3, due EUR 1.50, difference EUR 1.28, JPY -3; nothing was written\n"; code != 0 || !strings.Contains(out, want) {
		t.Errorf("%d, no %q in\n%s%s", code, want, out, stderr)
	}
	if code, out, _ := previewWith(data, nil, "--prices", "1=EUR 3", "--app", "1"); code != 0 || !strings.Contains(out, "billed EUR 0.22, due EUR 0.33, difference EUR 0.11;") {
		t.Errorf("by a setting: %d\n%s", code, out)
	}
	if code, _, stderr := previewWith(data, perHead, "--prices", "1=EUR 3"); code != 1 || !strings.Contains(stderr, "CLOSEOUT_PRICES: found prices, and the program has a price function") {
		t.Errorf("both: %d %s", code, stderr)
	}
	failing := func(s pricing.Session) ([]pricing.Line, error) {
		if s.AppID == 2 {
			return nil, errors.New("no tariff")
		}
		return perHead(s)
	}
	code, out, stderr = previewWith(data, failing, "--json")
	var report struct {
		Sessions []struct {
			Due     struct{ Amount int64 }
			Failure string
		}
		Difference []string
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 || !strings.Contains(stderr, "2 of 3 sessions could not be priced") || len(report.Sessions) != 3 ||
		report.Sessions[0].Due.Amount != 100 || !strings.Contains(report.Sessions[1].Failure, "no tariff") || !slices.Equal(report.Difference, []string{"EUR 0.78"}) {
		t.Errorf("failures: %d %v %s\n%s", code, err, stderr, out)
	}
	if _, after, _ := closeout("bill export --format jsonl --data " + data); after != before {
		t.Errorf("the ledger was\n%s, and is\n%s", before, after)
	}
}

func TestBillWithoutALedger(t *testing.T) {
	code, _, stderr := closeout("bill list --data " + t.TempDir())
	if code != 1 || !strings.Contains(stderr, "closeout setup creates its tables") {
		t.Errorf("%d %s", code, stderr)
	}
}
