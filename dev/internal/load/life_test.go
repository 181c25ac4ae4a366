package load_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// collector records events by name and stay.
type collector struct {
	mu       sync.Mutex
	received map[string]int
}

func (c *collector) Receive(_ context.Context, event zego.Event) (webhook.Receipt, error) {
	if _, closed := event.(*zego.RoomClose); closed {
		return webhook.Receipt{Status: webhook.Started}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := ""
	switch e := event.(type) {
	case *zego.RoomCreate:
		key = e.RoomCreateTime.String()
	case *zego.RoomLogin:
		key = e.SessionID + e.LoginTime.String()
	case *zego.RoomLogout:
		key = e.SessionID + e.LoginTime.String() + e.LogoutTime.String()
	}
	c.received[event.Head().Event+key]++
	return webhook.Receipt{Status: webhook.Stored}, nil
}

// life sends sessions to a webhook. It returns the journal, the events that the webhook received,
// the report and the output.
func life(t *testing.T, change func(*load.Options)) ([]audit.Entry, map[string]int, *load.Report, string) {
	t.Helper()
	ring, err := zego.NewKeyring(map[uint32][]string{7: {"secret"}}, time.Minute, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	got := &collector{received: map[string]int{}}
	server := httptest.NewServer(webhook.Router(webhook.Options{
		Keyring: ring, Receiver: got, Log: slog.New(slog.DiscardHandler),
	}))
	defer server.Close()
	var journal []audit.Entry
	var out strings.Builder
	report, err := load.Run(t.Context(), options(func(o *load.Options) {
		o.URL, o.Seed, o.Participants = server.URL+webhook.Path, 7, 4
		o.Journal = func(e audit.Entry) { journal = append(journal, e) }
		change(o)
	}), &out)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	return journal, got.received, report, out.String()
}

func TestJournalHasEventsAndAnswers(t *testing.T) {
	journal, got, report, out := life(t, func(o *load.Options) {
		o.Count, o.Duplicates, o.Missing, o.Spread, o.Resign = 40, .5, .2, 50*time.Millisecond, .5
	})
	copies, sent, withheld := 0, 0, 0
	want := map[string]bool{}
	for _, e := range journal {
		if !e.Acknowledged || len(e.Events) < 9 {
			t.Fatalf("entry %+v", e)
		}
		begin := e.Events[0].RoomCreateTime
		for _, u := range e.Events {
			key := u.Event + u.Stay
			switch u.Event {
			case zego.EventRoomCreate:
				key += u.RoomCreateTime.String()
			case zego.EventRoomLogin:
				key += u.LoginTime.String()
			default:
				key += u.LoginTime.String() + u.LogoutTime.String()
				if u.LoginTime.Before(begin) || u.LogoutTime.Before(u.LoginTime) || u.LogoutTime.After(e.RoomCloseTime) {
					t.Errorf("%+v is out of the room's life from %v to %v", u, begin, e.RoomCloseTime)
				}
			}
			want[key] = !u.Withheld
			if u.Withheld {
				withheld++
			} else {
				sent++
			}
			if u.Acknowledged == u.Withheld || u.Undecided {
				t.Errorf("%+v", u)
			}
			if n := got[key]; n != u.Attempts+u.Duplicates {
				t.Errorf("the webhook got %d of %+v", n, u)
			}
			copies += u.Duplicates
		}
	}
	for key := range got {
		if !want[key] {
			t.Errorf("the webhook got %s, which the journal lacks", key)
		}
	}
	u := report.Events
	if len(journal) != 40 || u.Callbacks != int64(sent) || u.Acknowledged != u.Callbacks || u.Withheld != int64(withheld) || u.Attempts != int64(sent+copies) {
		t.Errorf("report %+v, want %d sent, %d withheld, %d copies", u, sent, withheld, copies)
	}
	if withheld == 0 || copies == 0 || !strings.Contains(out, "more never sent") {
		t.Errorf("%d withheld, %d copies, report\n%s", withheld, copies, out)
	}
}

func TestSeedRepeatsTheLives(t *testing.T) {
	at := func(o *load.Options) { o.Count, o.RoomCloseTime = 5, time.UnixMilli(1499676989909) }
	lives := func(journal []audit.Entry) string {
		all := map[uint64]any{}
		for _, e := range journal {
			all[e.RoomSessionID] = e.Events
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first, _, _, out := life(t, at)
	second, _, _, _ := life(t, at)
	if lives(first) != lives(second) {
		t.Errorf("%s\nand then\n%s", lives(first), lives(second))
	}
	if !strings.Contains(out, "room_login of user-1, attempt 1: 200 OK {\"status\":\"stored\"}") {
		t.Errorf("lines:\n%s", out)
	}
}
