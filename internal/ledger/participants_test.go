package ledger_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

func published(user, sid string, from, to int64) ledger.Event {
	u := ledger.Event{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "Zimmer 7", Event: zego.EventStreamCreate, Stay: sid, Name: "of " + user, User: user, Login: at(from), SeenAt: at(from)}
	if to != 0 {
		u.Event, u.Logout = zego.EventStreamClose, at(to)
	}
	return u
}

func numbered(number int64, u ledger.Event) ledger.Event {
	u.Number = number + 1
	return u
}

func service(u ledger.Event) ledger.Event {
	u.Role = zego.RoleService
	return u
}

// participants returns the session's participants as of the bill (0) or an adjustment.
func participants(t *testing.T, l *ledger.Ledger, life uint64, closed time.Time, adjustment int) (*session.Participants, []session.Participant) {
	t.Helper()
	s := session.Session{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "Zimmer 7", RoomCloseTime: closed}
	p, err := l.Participants(t.Context(), s, adjustment)
	if err != nil {
		t.Fatal(err)
	}
	var all []session.Participant
	for q, err := range p.All {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, q)
	}
	return p, all
}

func TestParticipantsHaveTheFiguresOfTheirEntry(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		ledger.SmallPages(t, 2)
		l := open(t, databaseURL)
		named := login("a", "1", 10)
		named.Name = "Ada"
		record(t, l, created(0), named, logout("b", "2", 0, 60), published("a", "s1", 10, 20), published("a", "s2", 15, 40), published("a", "s3", 90, 0))
		if p, all := participants(t, l, life, at(130), 0); p.Settled || len(all) != 2 || all[0].InRoom.Millis != 120_000 {
			t.Errorf("before the bill: settled %v, %+v", p.Settled, all)
		}
		bill := finalize(t, l, closing(life, 130))
		record(t, l, logout("a", "1", 10, 50), published("a", "s3", 45, 50), logout("c", "3", 100, 130)) // all late

		p, all := participants(t, l, life, at(130), 0)
		if !p.Settled || len(all) != 2 || all[0].User != "a" || !slices.Equal(all[0].Names, []string{"Ada"}) || len(all[0].Streams) != 3 || all[0].Role != "1" {
			t.Fatalf("the bill's: settled %v, %+v", p.Settled, all)
		}
		a := all[0]
		if a.InRoom.Millis != 120_000 || a.InRoom.Min != 80_000 || a.InRoom.Max != 120_000 || a.InRoom.Reasons != session.NoLogout {
			t.Errorf("in the room: %+v", a.InRoom)
		}
		if a.Published.Millis != 70_000 || a.Published.Min != 30_000 || a.Published.Max != 70_000 || a.Published.Reasons != session.NoStreamClose {
			t.Errorf("published: %+v", a.Published)
		}
		if !all[1].InRoom.Exact() || all[0].InRoom.Millis+all[1].InRoom.Millis != bill.Usage.Millis || bill.Usage.Published != 70_000 {
			t.Errorf("%+v don't add up to %+v", all, bill.Usage)
		}

		made, err := adjust(t, l, dirty(t, l)[0])
		if err != nil {
			t.Fatal(err)
		}
		_, all = participants(t, l, life, at(130), 1)
		if len(all) != 3 || !all[0].InRoom.Exact() || all[0].InRoom.Millis != 40_000 || all[0].Before != (session.Billed{InRoom: 120_000, Published: 70_000}) ||
			all[1].Before != all[1].Billed() || all[2].Before != (session.Billed{}) {
			t.Errorf("adjusted: %+v", all)
		}
		var sum, before int64
		for _, q := range all {
			sum, before = sum+q.Billed().InRoom, before+q.Before.InRoom
		}
		if sum != made.Usage.Millis || sum-before != made.Difference.Millis {
			t.Errorf("they add up to %d ms after %d ms, want %+v", sum, before, made)
		}
		if _, again := participants(t, l, life, at(130), 0); len(again) != 2 || again[0].InRoom.Millis != 120_000 {
			t.Errorf("the bill's, after the adjustment: %+v", again)
		}
	})
}

// A stay's user is the bytewise smallest of those that contradicting callbacks name.
func TestMovedStayMakesAnAdjustmentOfTheSameSum(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, created(0), logout("c", "1", 0, 60), logout("b", "1", 0, 60), login("d", "2", 60), logout("d", "2", 60, 80))
		bill := finalize(t, l, closing(life, 130))
		record(t, l, logout("a", "1", 0, 60))
		made, err := adjust(t, l, dirty(t, l)[0])
		if err != nil {
			t.Fatal(err)
		}
		if made.Usage != bill.Usage || made.Difference.Millis != 0 || bill.Usage.Estimated&session.Contradicted == 0 {
			t.Errorf("adjustment %+v of bill %+v", made, bill)
		}
		_, all := participants(t, l, life, at(130), 1)
		got := map[string][2]int64{} // before and now
		for _, p := range all {
			got[p.User] = [2]int64{p.Before.InRoom, p.Billed().InRoom}
		}
		if want := map[string][2]int64{"a": {0, 60_000}, "b": {60_000, 0}, "d": {20_000, 20_000}}; !maps.Equal(got, want) {
			t.Errorf("participants %v, want %v", got, want)
		}
	})
}

func TestClosedStreamBoundsALostLogout(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, created(0), login("a", "1", 10), published("a", "s", 20, 70), published("b", "u", 30, 40))
		_, all := participants(t, l, life, at(100), 0)
		logout := all[0].Stays[0].Logout
		if logout.Certainty != session.Bounded || !logout.Earliest.Equal(at(70)) || !logout.Latest.Equal(at(100)) || all[0].InRoom.Min != 60_000 {
			t.Errorf("a: %+v, %+v", logout, all[0].InRoom)
		}
		if b := all[1]; b.InRoom.Millis != 10_000 || b.InRoom.Max != 100_000 || b.InRoom.Reasons != session.NoStay {
			t.Errorf("b, who has no stay: %+v", b)
		}
	})
}

func TestNumbersProveWhichCallbacksAreMissing(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for i, tt := range []struct {
			name   string
			events []ledger.Event
			want   string
		}{
			{"nothing", nil, "unknown"},
			{"all of them", []ledger.Event{numbered(5, login("a", "1", 1)), numbered(6, logout("a", "1", 1, 2))}, "complete"},
			{"from 0", []ledger.Event{numbered(0, login("a", "1", 1)), numbered(1, logout("a", "1", 1, 2))}, "complete"},
			{"a stay lost both", []ledger.Event{numbered(1, login("a", "1", 1)), numbered(4, logout("a", "1", 1, 9))}, "missing 2"},
			{"a lost logout at the end", []ledger.Event{numbered(1, login("a", "1", 1))}, "missing 1"},
			{"a lost logout in between", []ledger.Event{numbered(1, login("a", "1", 1)), numbered(2, login("b", "2", 2)), numbered(4, logout("b", "2", 2, 9))}, "missing 1"},
			{"a lost login, which the logout states", []ledger.Event{numbered(1, login("a", "1", 1)), numbered(3, logout("b", "2", 2, 5)), numbered(4, logout("a", "1", 1, 9))}, "complete"},
			{"a lost login ahead of all, and another stay", []ledger.Event{numbered(2, login("a", "1", 3)), numbered(5, logout("b", "2", 1, 5)), numbered(6, logout("a", "1", 3, 9))}, "missing 2"},
			{"a callback without a number", []ledger.Event{numbered(1, login("a", "1", 1)), logout("a", "1", 1, 9)}, "unknown"},
			{"all of role 4, which means nothing then", []ledger.Event{service(numbered(1, login("a", "1", 1))), service(numbered(2, login("b", "2", 1))), service(numbered(3, logout("b", "2", 1, 9)))}, "missing 1"},
			{"a recorder that is not numbered", []ledger.Event{service(login("r", "1", 1)), numbered(2, login("b", "2", 1)), numbered(3, logout("b", "2", 1, 9))}, "complete"},
			{"a number twice", []ledger.Event{numbered(1, login("a", "1", 1)), numbered(1, logout("a", "1", 1, 9))}, "unknown"},
		} {
			for j := range tt.events {
				tt.events[j].RoomSessionID = uint64(i + 1)
			}
			if err := l.Record(t.Context(), append(tt.events, tt.events...)); err != nil {
				t.Fatal(err)
			}
			users, streams, err := l.Completeness(t.Context(), session.ID{AppID: app, RoomSessionID: uint64(i + 1)})
			if err != nil || users.String() != tt.want || streams.Known {
				t.Errorf("%s: %v, %v, %v, want %s", tt.name, users, streams, err, tt.want)
			}
		}
		// A later session of the room numbers its callbacks from the start again.
		record(t, l, numbered(1, published("a", "s", 1, 0)), numbered(4, published("a", "s", 1, 5)), numbered(2, published("b", "u", 1, 0)))
		if users, streams, err := l.Completeness(t.Context(), session.ID{AppID: app, RoomSessionID: life}); err != nil || users.Known || streams.String() != "missing 1" {
			t.Errorf("%v, %v, %v", users, streams, err)
		}
	})
}

// A step that reads the bill's participants sees the callbacks that were missing then.
func TestParticipantsHaveTheCompletenessOfTheirEntry(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		record(t, l, numbered(1, login("a", "1", 10)), numbered(4, logout("a", "1", 10, 90)))
		finalize(t, l, closing(life, 100))
		record(t, l, created(0), numbered(2, login("b", "2", 20)), numbered(3, logout("b", "2", 20, 30)))
		if _, err := adjust(t, l, dirty(t, l)[0]); err != nil {
			t.Fatal(err)
		}
		for number, want := range []string{"missing 2", "complete"} {
			p, all := participants(t, l, life, at(100), number)
			if begin := at(int64(10 - 10*number)); p.Callbacks.String() != want || !p.Start.Equal(begin) || !p.End.Equal(at(100)) || len(all) != number+1 {
				t.Errorf("entry %d: %v from %v to %v, want %s from %v; %+v", number, p.Callbacks, p.Start, p.End, want, begin, all)
			}
		}
	})
}

// A user logs in again in the same millisecond with the same session_id, and the second logout
// is lost: the numbers show that there were two logins.
func TestTwoNumbersOfOneLoginContradictEachOther(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		first, second, out := numbered(1, login("a", "1", 10)), numbered(2, login("a", "1", 10)), numbered(3, logout("a", "1", 10, 20))
		unnumberedLogin := login("a", "1", 10)
		for i, events := range [][]ledger.Event{{first, second, out}, {out, second, first}, {first, unnumberedLogin, second, out}, {unnumberedLogin, out, first}, {first, first, out}} {
			for j := range events {
				events[j].RoomSessionID = uint64(i + 1)
				record(t, l, events[j])
			}
			_, all := participants(t, l, uint64(i+1), at(100), 0)
			if doubtful := i < 4; len(all) != 1 || (all[0].InRoom.Reasons&session.Contradicted != 0) != doubtful || all[0].InRoom.Exact() == doubtful || doubtful && all[0].InRoom.Max < 90_000 {
				t.Errorf("%d: %+v", i, all)
			}
		}
	})
}

// A step may spend any time on a participant. Reading locks nothing.
func TestReadingParticipantsDelaysNoCallback(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		ledger.SmallPages(t, 2)
		l := open(t, databaseURL)
		for _, user := range []string{"a", "b", "c", "d", "e"} {
			record(t, l, logout(user, user, 1, 2))
		}
		p, err := l.Participants(t.Context(), session.Session{ID: session.ID{AppID: app, RoomSessionID: life}, RoomCloseTime: at(9)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for q, err := range p.All {
			if err != nil {
				t.Fatal(err)
			}
			n++
			began := time.Now()
			record(t, l, logout(q.User, "more "+q.User, 3, 4))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a callback took %v", took)
			}
		}
		if n != 5 {
			t.Errorf("%d participants", n)
		}
	})
}
