package ledger_test

import (
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// recordSession records events of a session, received at seenAt. All sessions are of one room.
func recordSession(t *testing.T, l *ledger.Ledger, session uint64, seenAt time.Time, usage ...ledger.Event) {
	t.Helper()
	for i := range usage {
		u := &usage[i]
		u.AppID, u.RoomID, u.RoomSessionID, u.SeenAt = 1, "lobby", session, seenAt
		switch {
		case u.Stay == "":
			u.Event = zego.EventRoomCreate
		case u.Logout.IsZero():
			u.Event = zego.EventRoomLogin
		default:
			u.Event = zego.EventRoomLogout
		}
		u.User = u.Stay
	}
	if err := l.Record(t.Context(), usage); err != nil {
		t.Fatal(err)
	}
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func minute(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }

func TestChecksOfOverdueSessions(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		stay := func(user string, login, logout int) ledger.Event {
			u := ledger.Event{Stay: user, Login: minute(login)}
			if logout > 0 {
				u.Logout = minute(logout)
			}
			return u
		}
		recorder := stay("recorder", 1, 0)
		recorder.Role = zego.RoleService
		recordSession(t, l, 1, minute(20), ledger.Event{Create: minute(0)}, stay("a", 0, 0), stay("b", 3, 7)) // a is still in the room
		recordSession(t, l, 2, minute(21), ledger.Event{Create: minute(8)}, stay("c", 8, 9), recorder)        // everyone but the recorder has left
		recordSession(t, l, 3, minute(22), ledger.Event{Create: minute(30)})                                  // the room's next session
		recordSession(t, l, 18446744073709551615, minute(23), stay("a", 5, 6), stay("b", 1, 0))               // seen last, but its times are before session 3
		all, err := l.Overdue(t.Context(), minute(60), ledger.OpenSession{}, 10)
		if err != nil || len(all) != 4 {
			t.Fatalf("overdue %v, %v", all, err)
		}
		checks, err := l.Checks(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []struct {
			first, last int
			left        bool
			later       uint64
		}{{0, 7, false, 0}, {1, 9, true, 0}, {30, 30, false, 0}, {1, 6, false, 3}} {
			c := checks[i]
			if !c.FirstTime.Equal(minute(want.first)) || !c.LastTime.Equal(minute(want.last)) || c.Left != want.left || c.Gone != 0 || c.RoomID != "lobby" || c.Later != want.later {
				t.Errorf("session %d: %+v", c.RoomSessionID, c)
			}
		}
		if o, err := l.CountOverdue(t.Context(), minute(60)); err != nil || o.Left != 1 || o.Silent != 3 || !o.Oldest.Equal(minute(20)) {
			t.Errorf("counted %+v, %v", o, err)
		}

		// Each session is compared with the other one that was seen last, which is 3 from now on.
		if err := l.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 18446744073709551615}); err != nil {
			t.Fatal(err)
		}
		checks, err = l.Checks(t.Context(), all)
		if err != nil || len(checks) != 3 || checks[0].Later != 3 || checks[1].Later != 3 || checks[2].Later != 0 {
			t.Errorf("checks %+v, %v", checks, err)
		}
	})
}

func TestAnswersCountUntilASignOfLife(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		l := open(t, databaseURL)
		recordSession(t, l, 1, minute(0), ledger.Event{Create: minute(0)})
		recordSession(t, l, 2, minute(0), ledger.Event{Create: minute(0)})
		overdue := func(before int) []ledger.Check {
			t.Helper()
			all, err := l.Overdue(t.Context(), minute(before), ledger.OpenSession{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			checks, err := l.Checks(t.Context(), all)
			if err != nil {
				t.Fatal(err)
			}
			return checks
		}
		note := func(m int, gone ...int) {
			t.Helper()
			checks := overdue(m)
			for i := range checks {
				checks[i].Gone, checks[i].AskedAt = gone[i], minute(m)
			}
			if err := l.NoteChecks(t.Context(), checks); err != nil {
				t.Fatal(err)
			}
		}
		note(10, 1, 1)
		note(11, 2, 0) // someone is in the second room
		if checks := overdue(11); len(checks) != 1 || checks[0].Gone != 2 || !checks[0].AskedAt.Equal(minute(11)) {
			t.Errorf("checks %+v", checks)
		}
		recordSession(t, l, 1, minute(12), ledger.Event{Stay: "a", Login: minute(12)})
		if checks := overdue(30); len(checks) != 2 || checks[0].Gone != 0 || checks[1].Gone != 0 {
			t.Errorf("after signs of life: %+v", checks)
		}
		note(30, 1, 1)
		if err := l.Closed(t.Context(), session.ID{AppID: 1, RoomSessionID: 1}); err != nil {
			t.Fatal(err)
		}
		if err := l.ForgetChecks(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := l.CountChecks(t); n != 1 {
			t.Errorf("%d checks are kept", n)
		}
	})
}
