package audit_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/eventsink"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

func TestAcknowledgedEventsAreInTheLedgerOrTheInbox(t *testing.T) {
	books, err := ledger.Open("sqlite:" + filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	folder := t.TempDir()
	box, err := inbox.Open(t.Context(), folder, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	usage := func(number uint64, event string) ledger.Event {
		at := time.UnixMilli(1499676989909).UTC()
		u := ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: number}, RoomID: "lobby", Event: event, SeenAt: at}
		switch event {
		case "room_create":
			u.Create = at
		case "room_logout":
			u.Logout = at.Add(time.Second)
			fallthrough
		case "room_login":
			u.Stay, u.User, u.Login = "7", "user-1", at
		}
		return u
	}
	// The ledger has all events of session 1. Session 2 waits in the inbox, and 3 is a dead letter.
	// The logout of 4 is lost, and the login of the same stay doesn't replace it.
	if err := books.Record(t.Context(), []ledger.Event{usage(1, "room_create"), usage(1, "room_login"), usage(1, "room_logout"), usage(4, "room_login")}); err != nil {
		t.Fatal(err)
	}
	for number := uint64(2); number <= 3; number++ {
		if _, err := box.Put(t.Context(), inbox.Entry{Key: eventsink.Key(usage(number, "room_create")), Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	// An unreadable callback has no session.
	unknown := eventsink.Key(ledger.Event{ID: session.ID{AppID: 1}, Event: "room_close", Unreadable: &ledger.Unreadable{Field: "room_session_id"}})
	if _, err := box.Put(t.Context(), inbox.Entry{Key: unknown, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{eventsink.Key(usage(3, "room_create")), unknown} {
		if err := box.DeadLetter(t.Context(), key, "too long"); err != nil {
			t.Fatal(err)
		}
	}
	journal := filepath.Join(t.TempDir(), "sent.jsonl")
	line := func(number, usage string) string {
		return `{"appid":1,"room_session_id":"` + number + `","acknowledged":false,"events":[` + usage + `]}` + "\n"
	}
	create, login, logout := `{"event":"room_create","acknowledged":true}`, `{"event":"room_login","stay":"7","user":"user-1","acknowledged":true}`, `{"event":"room_logout","stay":"7","user":"user-1","acknowledged":true}`
	text := line("1", create+","+login+","+logout) + line("2", create) + line("3", create) + line("4", login+","+logout) +
		line("5", strings.ReplaceAll(create, "true", "false"))
	if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	inboxes, err := audit.OpenInboxes(t.Context(), []string{folder})
	if err != nil {
		t.Fatal(err)
	}
	defer inboxes.Close()
	report, err := audit.Run(t.Context(), audit.Options{Temporal: &fakeTemporal{}, Ledger: books, EventInbox: inboxes.All, Journal: audit.Journal(journal)})
	if err != nil {
		t.Fatal(err)
	}
	if report.EventsAcknowledged != 7 || report.EventsWaiting != 1 || report.EventDeadLetters != 2 || report.Pending() != 1 {
		t.Errorf("report %+v", report)
	}
	var faults []string
	for _, f := range report.Faults {
		faults = append(faults, f.WorkflowID+" "+string(f.Kind)+" "+f.Problem)
	}
	if len(faults) == 0 || !strings.HasPrefix(faults[0], unknown+" event_dead_letter ") {
		t.Fatalf("faults:\n%s", strings.Join(faults, "\n"))
	}
	if faults = faults[1:]; len(faults) != 2 || !strings.HasPrefix(faults[0], "room-close-1-3 event_dead_letter ") || !strings.Contains(faults[0], "too long") ||
		!strings.HasPrefix(faults[1], "room-close-1-4 event_lost ") || !strings.Contains(faults[1], "1 callbacks were acknowledged") || !strings.Contains(faults[1], "room_logout user-1") {
		t.Errorf("faults:\n%s", strings.Join(faults, "\n"))
	}
}

// The session has two users. The stays of a overlap and have 100 s together, the stay of b has 50 s.
func TestBillsAreExactOrMarkedAsEstimates(t *testing.T) {
	begin := time.UnixMilli(1499676989909).UTC()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	stay := func(id, user string, from, to int) []ledger.Event {
		u := ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", Event: "room_login", Stay: id, User: user, Role: "1", Login: at(from), SeenAt: at(from)}
		out := u
		out.Event, out.Logout = "room_logout", at(to)
		return []ledger.Event{u, out}
	}
	create := ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", Event: "room_create", Create: begin, SeenAt: begin}
	all := append([]ledger.Event{create}, slices.Concat(stay("1", "a", 0, 60), stay("2", "a", 30, 100), stay("3", "b", 10, 60))...)
	for _, tt := range []struct {
		name string
		// told has one character for each event in the journal: x if it was acknowledged, - if it
		// was withheld, ? if neither is known.
		told     string
		early    int // number of acknowledged events recorded before the bill
		late     int // number of further ones recorded after it
		adjust   bool
		lost     bool   // the room_close was never acknowledged, and the session was reconciled
		want     string // part of the only fault's problem
		pending  bool
		compared int64
	}{
		{name: "all in time", told: "xxxxxxx", early: 7, compared: 1},
		{name: "some late and adjusted", told: "xxxxxxx", early: 2, late: 5, adjust: true, compared: 1},
		{name: "some late and not yet adjusted", told: "xxxxxxx", early: 6, late: 1, pending: true},
		{name: "a stay never told of", told: "xxx--xx", early: 5, compared: 1},
		{name: "a logout missing, which the bill says", told: "xxxxxx-", early: 6, compared: 1},
		{name: "nobody knows whether it came", told: "xxxxxx?", early: 6},
		{name: "a stay lost without a word", told: "xxxxxxx", early: 5, want: "isn't what happened", compared: 1},
		{name: "a room_close lost, which the bill says", told: "xxxxxxx", early: 7, lost: true, compared: 1},
		{name: "an estimate of what is all known", told: "xxxxxxx", early: 6, want: "no_logout", compared: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			books, err := ledger.Open("sqlite:" + filepath.Join(t.TempDir(), "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer books.Close()
			var sent []ledger.Event
			var lines []string
			for i, u := range all {
				line := map[string]any{"event": u.Event, "acknowledged": tt.told[i] == 'x', "withheld": tt.told[i] == '-'}
				if u.Event == "room_create" {
					line["room_create_time"] = u.Create
				} else {
					line["stay"], line["user"], line["role"], line["login_time"] = u.Stay, u.User, u.Role, u.Login
				}
				if u.Event == "room_logout" {
					line["logout_time"] = u.Logout
				}
				b, err := json.Marshal(line)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, string(b))
				if tt.told[i] == 'x' {
					sent = append(sent, u)
				}
			}
			journal := filepath.Join(t.TempDir(), "sent.jsonl")
			text := `{"appid":1,"room_session_id":"7","acknowledged":` + fmt.Sprint(!tt.lost) + `,"room_close_time":"` + at(120).Format(time.RFC3339Nano) + `","events":[` + strings.Join(lines, ",") + "]}\n"
			if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := books.Record(t.Context(), sent[:tt.early]); err != nil {
				t.Fatal(err)
			}
			if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", RoomCloseTime: at(120), Reconciled: tt.lost}}); err != nil {
				t.Fatal(err)
			}
			if err := books.Record(t.Context(), sent[tt.early:tt.early+tt.late]); err != nil {
				t.Fatal(err)
			}
			if tt.adjust {
				if _, err := books.Adjust(t.Context(), uuid.New(), session.ID{AppID: 1, RoomSessionID: 7}, 1); err != nil {
					t.Fatal(err)
				}
			}
			report, err := audit.Run(t.Context(), audit.Options{Temporal: &fakeTemporal{}, Ledger: books, Journal: audit.Journal(journal)})
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, f := range report.Faults {
				if f.Kind == audit.BillUntrue {
					found = append(found, f.Problem)
				}
			}
			if report.SessionsCompared != tt.compared || report.Adjusting > 0 != tt.pending || len(found) > 0 != (tt.want != "") || !strings.Contains(strings.Join(found, ""), tt.want) {
				t.Errorf("compared %d, adjusting %d, found %q", report.SessionsCompared, report.Adjusting, found)
			}
		})
	}
}

// The ledger never holds entries that don't add up. Only a change by hand produces them.
func TestEntriesHaveToAddUp(t *testing.T) {
	figures := session.Usage{Millis: 90_000, Seconds: 90, Minutes: 2}
	bill := ledger.MadeBill{Bill: ledger.Bill{Usage: session.Usage{Millis: 60_000, Seconds: 60, Minutes: 1}}}
	adjustment := ledger.Adjustment{Bill: ledger.Bill{Usage: figures}, Difference: pricing.Change{Millis: 30_000, Seconds: 30, Minutes: 1}}
	if problem := audit.Untrue(bill, []ledger.Adjustment{adjustment}, figures, true); problem != "" {
		t.Errorf("they add up, and it says %q", problem)
	}
	adjustment.Difference.Minutes++
	if problem := audit.Untrue(bill, []ledger.Adjustment{adjustment}, figures, true); !strings.Contains(problem, "add up to") {
		t.Errorf("they don't add up, and it says %q", problem)
	}
}
