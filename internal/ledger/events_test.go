package ledger_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

const app, life = math.MaxUint32, uint64(math.MaxUint64)

func at(seconds int64) time.Time { return time.UnixMilli(1499676000_000 + seconds*1000).UTC() }

func created(seconds int64) ledger.Event {
	return ledger.Event{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "Zimmer 7", Event: zego.EventRoomCreate, Create: at(seconds), SeenAt: at(seconds)}
}

func login(user, stay string, from int64) ledger.Event {
	return ledger.Event{ID: session.ID{AppID: app, RoomSessionID: life}, RoomID: "Zimmer 7", Event: zego.EventRoomLogin,
		Stay: stay, User: user, Role: "1", Login: at(from), SeenAt: at(from)}
}

func logout(user, stay string, from, to int64) ledger.Event {
	u := login(user, stay, from)
	u.Event, u.Logout, u.LogoutReason, u.SeenAt = zego.EventRoomLogout, at(to), "3", at(to)
	return u
}

func TestEventHasTheCallbacksFields(t *testing.T) {
	common := zego.Common{AppID: 7, Timestamp: at(3).UnixMilli()}
	in := zego.RoomLogin{Common: common, RoomID: "r", RoomSessionID: 5, UserAccount: "u", SessionID: "s", LoginTime: at(1), UserRole: zego.RoleService}
	for _, tt := range []struct {
		event zego.Event
		want  ledger.Event
	}{
		{&zego.RoomCreate{Common: common, RoomID: "r", RoomSessionID: 5, RoomCreateTime: at(1)},
			ledger.Event{ID: session.ID{AppID: 7, RoomSessionID: 5}, RoomID: "r", Event: "room_create", Create: at(1), SentAt: at(3), SeenAt: at(9)}},
		{&in, ledger.Event{ID: session.ID{AppID: 7, RoomSessionID: 5}, RoomID: "r", Event: "room_login", Stay: "s", User: "u", Role: "4", Login: at(1), SentAt: at(3), SeenAt: at(9)}},
		{&zego.RoomLogout{RoomLogin: in, LogoutTime: at(2), Reason: "3"},
			ledger.Event{ID: session.ID{AppID: 7, RoomSessionID: 5}, RoomID: "r", Event: "room_logout", Stay: "s", User: "u", Role: "4", Login: at(1), Logout: at(2), LogoutReason: "3", SentAt: at(3), SeenAt: at(9)}},
	} {
		if got, ok := ledger.EventOf(tt.event, at(9)); !ok || got != tt.want {
			t.Errorf("EventOf(%T) = %+v, %v, want %+v", tt.event, got, ok, tt.want)
		}
	}
	if _, ok := ledger.EventOf(&zego.RoomClose{}, at(9)); ok {
		t.Error("EventOf returned an event for a room_close")
	}
}

// The order, the batches and the repeats of callbacks make no difference.
func TestEventsInAnyOrderAndNumberGiveTheSameRows(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		events := []ledger.Event{created(0), login("a", "1", 1), logout("a", "1", 1, 10), login("b", "2", 2), logout("c", "3", 3, 7), login("é'\"", "4", 5)}
		events[1].Role = "" // only the logout has the role
		for round := range uint64(20) {
			random := rand.New(rand.NewPCG(round, 1))
			var batch []ledger.Event
			for _, u := range append(append([]ledger.Event{}, events...), events...) {
				u.RoomSessionID = round
				batch = append(batch, u)
			}
			random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
			for len(batch) > 0 {
				n := 1 + random.IntN(len(batch))
				if err := l.Record(t.Context(), batch[:n]); err != nil {
					t.Fatal(err)
				}
				batch = batch[n:]
			}
			want := []ledger.StayRow{{"1", "a", "1", at(1), at(10), "3", false}, {"2", "b", "1", at(2), time.Time{}, "", false}, {"3", "c", "1", at(3), at(7), "3", false}, {"4", "é'\"", "1", at(5), time.Time{}, "", false}}
			if got := l.StayRows(t, session.ID{AppID: app, RoomSessionID: round}); !equal(got, want) {
				t.Errorf("round %d: %+v, want %+v", round, got, want)
			}
			if got := l.Created(t, session.ID{AppID: app, RoomSessionID: round}); !got.Equal(at(0)) {
				t.Errorf("round %d: created at %v, want %v", round, got, at(0))
			}
		}
	})
}

func equal(a, b []ledger.StayRow) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// A contradiction is recorded whether the callbacks come in one batch or in several.
func TestContradictingRepeatIsRecorded(t *testing.T) {
	recorder := login("a", "1", 1)
	recorder.Role = "4"
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		number := uint64(0)
		for _, tt := range []struct {
			name          string
			first, second ledger.Event
			contradicts   bool
			until         int64
		}{
			{"the same", logout("a", "1", 1, 10), logout("a", "1", 1, 10), false, 10},
			{"another login", logout("a", "1", 1, 10), login("a", "1", 2), true, 10},
			{"another logout", logout("a", "1", 1, 10), logout("a", "1", 1, 11), true, 11},
			{"another user", logout("a", "1", 1, 10), login("b", "1", 1), true, 10},
			{"a recorder", logout("a", "1", 1, 10), recorder, true, 10},
		} {
			for _, batches := range [][][]ledger.Event{{{tt.first, tt.second}}, {{tt.first}, {tt.second}}, {{tt.first}, {tt.second, tt.second}, {tt.first}}} {
				number++
				for _, batch := range batches {
					for i := range batch {
						batch[i].RoomSessionID = number
					}
					if err := l.Record(t.Context(), batch); err != nil {
						t.Fatal(err)
					}
				}
				want := []ledger.StayRow{{"1", "a", "1", at(1), at(tt.until), "3", tt.contradicts}}
				if got := l.StayRows(t, session.ID{AppID: app, RoomSessionID: number}); !equal(got, want) {
					t.Errorf("%s: %+v, want %+v", tt.name, got, want)
				}
			}
		}
	})
}

// Callbacks that contradict each other about a stay give the same rows and figures in every order
// and with any batches.
func TestContradictingCallbacksGiveTheSameInEveryOrder(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		number := uint64(0)
		for round := range uint64(12) {
			random := rand.New(rand.NewPCG(round, 7))
			pick := func(n int64) int64 { return random.Int64N(n) }
			var events []ledger.Event
			for range 5 {
				var u ledger.Event
				switch pick(5) {
				case 0:
					u = created(pick(3))
				case 1, 2:
					u = login([]string{"a", "B", "é"}[pick(3)], "1", pick(4)*10)
				default:
					u = logout([]string{"a", "B", "é"}[pick(3)], "1", pick(4)*10, 20+pick(3)*300)
				}
				if u.Event != zego.EventRoomCreate {
					u.Role = []zego.Code{"", "1", "2", "4", "Host"}[pick(5)]
					u.LogoutReason = []zego.Code{"", "0", "Kick", "kick", "10"}[pick(5)]
				}
				u.RoomID = []string{"Zimmer", "zimmer"}[pick(2)]
				u.Implausible = pick(4) == 0
				events = append(events, u)
			}
			events = append(events, login("c", "2", 0), logout("c", "2", 0, 50)) // without contradictions
			var rows []ledger.StayRow
			var figures session.Usage
			for order := range 10 {
				number++
				batch := slices.Clone(events)
				random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
				for i := range batch {
					batch[i].RoomSessionID = number
				}
				for rest := batch; len(rest) > 0; {
					n := 1 + random.IntN(len(rest))
					record(t, l, rest[:n]...)
					rest = rest[n:]
				}
				gotRows, got := l.StayRows(t, session.ID{AppID: app, RoomSessionID: number}), finalize(t, l, closing(number, 700)).Usage
				if order == 0 {
					rows, figures = gotRows, got
				}
				if !equal(gotRows, rows) || got != figures {
					t.Fatalf("round %d, in the order %+v:\n%+v\n%+v, in another:\n%+v\n%+v", round, batch, gotRows, got, rows, figures)
				}
			}
		}
	})
}

// The earliest login and the latest logout of a stay count, with what the latest logout says.
func TestWidestStayOfContradictingCallbacksCounts(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		early, recorder := login("a", "1", 5), login("a", "1", 10)
		recorder.Role = "4"
		record(t, l, created(0), logout("a", "1", 10, 310), recorder, logout("a", "1", 10, 610), early)
		got := finalize(t, l, closing(life, 700)).Usage
		if got.Seconds != 605 || got.Participants != 1 || got.Estimated != session.Contradicted {
			t.Errorf("%+v, want 605 s of one participant, contradicted", got)
		}
	})
}

func TestImpossibleTimeIsIgnored(t *testing.T) {
	const roomLife = 7 * 24 * time.Hour
	sent := at(1000)
	never, future, ancient := time.Time{}, at(10*365*86400), at(-8*86400)
	for _, tt := range []struct {
		name                  string
		create, login, logout time.Time
		wantCreate, wantLogin time.Time
		wantLogout            time.Time
		implausible           bool
	}{
		{"all is well", at(0), at(1), at(999), at(0), at(1), at(999), false},
		{"unknown", never, never, never, never, never, never, false},
		{"ZEGO's clocks differ", sent.Add(session.ClockTolerance), never, sent.Add(session.ClockTolerance), sent.Add(session.ClockTolerance), never, sent.Add(session.ClockTolerance), false},
		{"a logout in the future", never, at(1), future, never, at(1), sent, true},
		{"a login in the future", never, future, at(999), never, never, at(999), true},
		{"a create in the future", future, never, never, never, never, never, true},
		{"a login of long ago", never, ancient, at(999), never, never, at(999), true},
		{"a create of long ago", ancient, never, never, never, never, never, true},
		{"a logout of long ago", never, at(1), ancient, never, at(1), ancient, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ledger.Event{SentAt: sent, Create: tt.create, Login: tt.login, Logout: tt.logout}.Plausible(roomLife)
			want := ledger.Event{SentAt: sent, Create: tt.wantCreate, Login: tt.wantLogin, Logout: tt.wantLogout, Implausible: tt.implausible}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
	if got := (ledger.Event{SentAt: sent, Login: ancient}).Plausible(0); got.Implausible {
		t.Error("implausible, although the life of rooms has no limit")
	}
}

// Several writers record batches at once, with the same sessions and stays in different orders.
// None of them fails, and no stay is missing.
func TestConcurrentBatchesAreRecorded(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		const workers, sessions, stays = 4, 5, 20
		var all sync.WaitGroup
		for i := range workers {
			l := open(t, databaseURL)
			all.Go(func() {
				for _, s := range rand.New(rand.NewPCG(uint64(i), 1)).Perm(sessions * stays) {
					batch := []ledger.Event{created(0), logout("u", string(rune('a'+s%stays)), 1, 2), logout("u", string(rune('a'+(s+1)%stays)), 1, 2)}
					for j := range batch {
						batch[j].RoomSessionID = uint64((s + j) % sessions)
					}
					if err := l.Record(t.Context(), batch); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		l := open(t, databaseURL)
		total := 0
		for s := range uint64(sessions) {
			total += len(l.StayRows(t, session.ID{AppID: app, RoomSessionID: s}))
		}
		if want := l.CountStays(t); total != want || total == 0 {
			t.Errorf("%d stays of the sessions, %d in all", total, want)
		}
	})
}

func TestSessionsAreOverdueUntilTheyHaveClosed(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		var usage []ledger.Event
		for s := range uint64(10) { // two with the same time
			u := created(int64(s) / 2 * 60)
			u.RoomSessionID = s
			usage = append(usage, u)
		}
		if err := l.Record(t.Context(), usage); err != nil {
			t.Fatal(err)
		}
		list := func(before time.Time) (all []uint64) {
			t.Helper()
			for after := (ledger.OpenSession{}); ; {
				page, err := l.Overdue(t.Context(), before, after, 3)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range page {
					if s.AppID != app || s.RoomID != "Zimmer 7" || !s.CreateTime.Equal(at(int64(s.RoomSessionID)/2*60)) || !s.SeenAt.Before(before) {
						t.Errorf("listed %+v", s)
					}
					all = append(all, s.RoomSessionID)
				}
				if len(page) < 3 {
					return all
				}
				after = page[len(page)-1]
			}
		}
		want := func(before time.Time, want ...uint64) {
			t.Helper()
			got := list(before)
			if len(got) != len(want) {
				t.Fatalf("overdue: %v, want %v", got, want)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("overdue: %v, want %v", got, want)
				}
			}
		}
		want(at(0))
		want(at(121), 0, 1, 2, 3, 4, 5)
		want(at(1000), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)

		if err := l.Closed(t.Context(), session.ID{AppID: app, RoomSessionID: 3}); err != nil {
			t.Fatal(err)
		}
		if err := l.NoteChecks(t.Context(), []ledger.Check{{OpenSession: ledger.OpenSession{ID: session.ID{AppID: app, RoomSessionID: 0}}, AskedAt: at(125)}}); err != nil {
			t.Fatal(err)
		}
		late := logout("a", "1", 0, 140)
		late.RoomSessionID = 4 // a callback is a sign of life
		late3 := late
		late3.RoomSessionID = 3 // a closed session stays closed
		if err := l.Record(t.Context(), []ledger.Event{late, late3}); err != nil {
			t.Fatal(err)
		}
		want(at(121), 1, 2, 5)
		want(at(1000), 1, 2, 5, 0, 4, 6, 7, 8, 9)

		// A callback that is relayed late is no newer sign of life.
		old := login("b", "2", 1)
		old.RoomSessionID = 9
		if err := l.Record(t.Context(), []ledger.Event{old}); err != nil {
			t.Fatal(err)
		}
		want(at(1000), 1, 2, 5, 0, 4, 6, 7, 8, 9)
	})
}

func TestLastTimeIsTheLatestInCallbacks(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		for _, tt := range []struct {
			events ledger.Event
			want   time.Time
		}{
			{created(5), at(5)},
			{login("a", "1", 3), at(5)},
			{login("b", "2", 8), at(8)},
			{logout("a", "1", 3, 20), at(20)},
		} {
			if err := l.Record(t.Context(), []ledger.Event{tt.events}); err != nil {
				t.Fatal(err)
			}
			if got, err := l.LastTime(t.Context(), session.ID{AppID: app, RoomSessionID: life}); err != nil || !got.Equal(tt.want) {
				t.Errorf("after %+v: %v, %v, want %v", tt.events, got, err, tt.want)
			}
		}
		if got, err := l.LastTime(t.Context(), session.ID{AppID: app, RoomSessionID: 1}); err != nil || !got.IsZero() {
			t.Errorf("unknown session: %v, %v", got, err)
		}
	})
}

func TestUnbilledSessionIsNotDirty(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		if err := l.Record(t.Context(), []ledger.Event{created(0), logout("a", "1", 1, 10)}); err != nil {
			t.Fatal(err)
		}
		if dirty, err := l.Dirty(t.Context(), time.Now(), ledger.BilledSession{}, 10); err != nil || len(dirty) != 0 {
			t.Errorf("dirty: %+v, %v", dirty, err)
		}
	})
}

func TestNoUsageIsNoWork(t *testing.T) {
	l := open(t, "postgres://nobody@127.0.0.1:1/none")
	if err := l.Record(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
