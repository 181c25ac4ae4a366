package audit_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/collect"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
)

func TestUsageThatWasAcknowledgedIsInTheLedgerOrInItsInbox(t *testing.T) {
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
	usage := func(session uint64, event string) ledger.Usage {
		at := time.UnixMilli(1499676989909).UTC()
		u := ledger.Usage{AppID: 1, RoomID: "lobby", RoomSessionID: session, Event: event, SeenAt: at}
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
	// Session 1 is in the ledger, 2 waits, 3 is set aside, and of 4 a logout is lost:
	// the ledger has the login of the same stay, and that is not enough.
	if err := books.Record(t.Context(), []ledger.Usage{usage(1, "room_create"), usage(1, "room_login"), usage(1, "room_logout"), usage(4, "room_login")}); err != nil {
		t.Fatal(err)
	}
	for session := uint64(2); session <= 3; session++ {
		if err := box.Put(t.Context(), collect.Key(usage(session, "room_create")), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.Shelve(t.Context(), collect.Key(usage(3, "room_create")), "too long"); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(t.TempDir(), "sent.jsonl")
	line := func(session, usage string) string {
		return `{"appid":1,"room_session_id":"` + session + `","acknowledged":false,"usage":[` + usage + `]}` + "\n"
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
	report, err := audit.Run(t.Context(), audit.Options{Temporal: &fakeTemporal{}, Ledger: books, UsageInbox: inboxes, Usage: audit.JournalUsage(journal)})
	if err != nil {
		t.Fatal(err)
	}
	if report.UsageAcknowledged != 7 || report.UsageWaiting != 1 || report.UsageSetAside != 1 || report.Pending() != 1 {
		t.Errorf("report %+v", report)
	}
	var faults []string
	for _, f := range report.Faults {
		faults = append(faults, f.WorkflowID+" "+string(f.Kind)+" "+f.Problem)
	}
	if len(faults) != 2 || !strings.HasPrefix(faults[0], "room-close-1-3 usage_set_aside ") || !strings.Contains(faults[0], "too long") ||
		!strings.HasPrefix(faults[1], "room-close-1-4 usage_lost ") || !strings.Contains(faults[1], "1 callbacks were acknowledged") || !strings.Contains(faults[1], "room_logout user-1") {
		t.Errorf("faults:\n%s", strings.Join(faults, "\n"))
	}
}
