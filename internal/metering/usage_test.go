package metering_test

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// figures returns the figures of the stays, which may be in any order.
func figures(t interface {
	Helper()
	Fatal(...any)
}, room metering.Room, stays ...userStay) session.Usage {
	t.Helper()
	users := map[string]metering.User{}
	for _, s := range stays {
		users[s.user] = metering.User{Account: s.user, Stays: append(users[s.user].Stays, s.Stay)}
	}
	m := metering.NewMeter(room)
	for _, u := range users {
		m.Add(u, role4)
	}
	f, err := m.Figures()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func role4(p session.Participant) string {
	if p.Role == zego.RoleService {
		return "role 4"
	}
	return ""
}

// A userStay is a stay and its user.
type userStay struct {
	metering.Stay
	user string
}

func stay(user string, login, logout int64) userStay {
	return userStay{metering.Stay{Login: login, Logout: logout, Role: "1"}, user}
}

func TestFigures(t *testing.T) {
	room := metering.Room{Create: 1000, Close: 100_000}
	recorder := stay("recorder", 2000, 90_000)
	recorder.Role = zego.RoleService
	doubtful := stay("a", 1000, 2000)
	doubtful.Contradicted = true
	for _, tt := range []struct {
		name                string
		room                metering.Room
		stays               []userStay
		participants, count int64
		millis              int64
		estimated           session.Reasons
	}{
		{"one", room, []userStay{stay("a", 2000, 5000)}, 1, 1, 3000, 0},
		{"two users at the same time", room, []userStay{stay("a", 2000, 5000), stay("b", 2000, 5000)}, 2, 2, 6000, 0},
		{"stays apart", room, []userStay{stay("a", 2000, 5000), stay("a", 7000, 8000)}, 1, 2, 4000, 0},
		{"stays that touch", room, []userStay{stay("a", 2000, 5000), stay("a", 5000, 8000)}, 1, 2, 6000, 0},
		{"stays that overlap", room, []userStay{stay("a", 2000, 5000), stay("a", 4000, 8000)}, 1, 2, 6000, 0},
		{"a stay within another", room, []userStay{stay("a", 2000, 9000), stay("a", 4000, 5000), stay("a", 8000, 10_000)}, 1, 3, 8000, 0},
		{"a recorder", room, []userStay{stay("a", 2000, 5000), recorder}, 1, 1, 3000, 0},
		{"a recorder alone", room, []userStay{recorder}, 0, 0, 0, 0},
		{"beyond both ends", room, []userStay{stay("a", 900, 100_100)}, 1, 1, 99_000, 0},
		{"of no length", room, []userStay{stay("a", 2000, 2000)}, 1, 1, 0, 0},
		{"no logout", room, []userStay{stay("a", 90_000, 0)}, 1, 1, 10_000, session.NoLogout},
		{"no logout, but there again", room, []userStay{stay("a", 90_000, 0), stay("a", 95_000, 96_000)}, 1, 2, 10_000, session.NoLogout},
		{"no login", room, []userStay{stay("a", 0, 5000)}, 1, 1, 4000, session.NoLogin},
		{"no login and no create", metering.Room{Close: 100_000}, []userStay{stay("a", 0, 5000)}, 1, 1, 0, session.NoLogin | session.NoRoomCreate},
		{"a logout ahead of its login", room, []userStay{stay("a", 5000, 4000)}, 1, 1, 0, session.LogoutBeforeLogin},
		{"after the end", room, []userStay{stay("a", 100_001, 100_005)}, 1, 1, 0, session.OutsideRoom},
		{"before the begin", room, []userStay{stay("a", 100, 900)}, 1, 1, 0, session.OutsideRoom},
		{"no room_create", metering.Room{Close: 100_000}, []userStay{stay("a", 2000, 5000), stay("b", 500, 600)}, 2, 2, 3100, session.NoRoomCreate},
		{"no room_close", metering.Room{Create: 1000, Close: 5000, Reconciled: true}, []userStay{stay("a", 2000, 5000)}, 1, 1, 3000, session.NoRoomClose},
		{"nothing", room, nil, 0, 0, 0, session.NoUsage},
		{"nothing at all", metering.Room{Close: 5}, nil, 0, 0, 0, session.NoUsage | session.NoRoomCreate},
		{"a contradicted stay", room, []userStay{doubtful}, 1, 1, 1000, session.Contradicted},
		{"a contradicted room", metering.Room{Create: 1000, Close: 100_000, Contradicted: true}, []userStay{stay("a", 1000, 2000)}, 1, 1, 1000, session.Contradicted},
		{"an end ahead of the begin", metering.Room{Create: 5000, Close: 4000}, []userStay{stay("a", 4000, 5000)}, 1, 1, 0, session.ImplausibleTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := figures(t, tt.room, tt.stays...)
			if f.Participants != tt.participants || f.Stays != tt.count || f.Millis != tt.millis || f.Estimated != tt.estimated {
				t.Errorf("%+v, want %d participants, %d stays, %d ms, estimated: %v", f, tt.participants, tt.count, tt.millis, tt.estimated)
			}
		})
	}
}

func TestSourcesOfTheRoomsEnds(t *testing.T) {
	recorder := stay("r", 1500, 0)
	recorder.Role = zego.RoleService
	for _, tt := range []struct {
		room      metering.Room
		start     int64
		startFrom string
		endFrom   string
	}{
		{metering.Room{Create: 1000, Close: 9000}, 1000, "room_create", "room_close"},
		{metering.Room{Close: 9000}, 1500, "room_login", "room_close"},
		{metering.Room{Close: 9000, Reconciled: true}, 1500, "room_login", "reconciliation"},
	} {
		f := figures(t, tt.room, recorder, stay("a", 2000, 3000))
		if f.Start.UnixMilli() != tt.start || f.StartFrom != tt.startFrom || f.End.UnixMilli() != 9000 || f.EndFrom != tt.endFrom {
			t.Errorf("of %+v: %+v", tt.room, f)
		}
	}
	if f := figures(t, metering.Room{Close: 9000}); !f.Start.IsZero() || f.StartFrom != "" {
		t.Errorf("of nothing: %+v", f)
	}
}

// The total of all participants is rounded, not each participant's time.
func TestSecondsAndMinutesAreRoundedOnce(t *testing.T) {
	for _, tt := range []struct{ millis, seconds, minutes int64 }{
		{0, 0, 0}, {1, 0, 0}, {999, 0, 0}, {1000, 1, 1}, {59_999, 59, 1}, {60_000, 60, 1}, {60_999, 60, 1}, {61_000, 61, 2}, {119_999, 119, 2}, {120_000, 120, 2},
	} {
		var stays []userStay
		for i, left := 0, tt.millis; left > 0; i++ {
			part := min(left, 700)
			stays = append(stays, stay(string(rune('a'+i)), 1000, 1000+part))
			left -= part
		}
		if f := figures(t, metering.Room{Create: 1000, Close: 10_000}, stays...); f.Millis != tt.millis || f.Seconds != tt.seconds || f.Minutes != tt.minutes {
			t.Errorf("%d ms: %+v, want %d s, %d min", tt.millis, f, tt.seconds, tt.minutes)
		}
	}
}

// For random stays, the figures equal those of counting millisecond by millisecond.
func TestOverlappingStaysCountOnce(t *testing.T) {
	const long = 60
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		known := func() int64 { return min(1, r.Int64N(8)) } // 0 means unknown, and is frequent
		room := metering.Room{Create: known() * r.Int64N(long/2+1), Close: long/3 + r.Int64N(long-long/3+1)}
		accounts := []string{"a", "b", "c"}
		roles := map[string]zego.Code{}
		for _, user := range accounts {
			roles[user] = []zego.Code{"", "1", "2", zego.RoleService}[r.IntN(4)]
		}
		stays := make([]userStay, r.IntN(13))
		for i := range stays {
			stays[i] = stay(accounts[r.IntN(3)], known()*r.Int64N(long+1), known()*r.Int64N(long+1))
			stays[i].Role = roles[stays[i].user]
		}

		f := figures(t, room, stays...)

		first := int64(0)
		for _, s := range stays {
			if s.Login != 0 && (first == 0 || s.Login < first) {
				first = s.Login
			}
		}
		want, users := int64(0), map[string]bool{}
		for _, user := range accounts {
			for ms := range int64(long) {
				there := false
				for _, s := range stays {
					if s.user != user || s.Role == zego.RoleService {
						continue
					}
					users[user] = true
					from, to := s.Login, cmp.Or(s.Logout, room.Close)
					if from == 0 && room.Create == 0 {
						continue // the start is unknown
					}
					there = there || from <= ms && ms < to
				}
				if there && ms >= room.Create && ms < room.Close {
					want++
				}
			}
		}
		if f.Millis != want || f.Participants != int64(len(users)) {
			t.Fatalf("seed %d: %+v, want %d participants and %d ms", seed, f, len(users), want)
		}
		doubtful := room.Create == 0 || room.Create > room.Close || len(stays) == 0
		for _, s := range stays {
			if s.Role != zego.RoleService {
				doubtful = doubtful || s.Login == 0 || s.Logout == 0 || s.Logout < s.Login || s.Login > room.Close || s.Logout < room.Create
			}
		}
		if (f.Estimated != 0) != doubtful {
			t.Fatalf("seed %d: estimated because of %q, want a reason: %v", seed, f.Estimated, doubtful)
		}
	}
}

func TestTooLargeSumIsAnError(t *testing.T) {
	m := metering.NewMeter(metering.Room{Create: 1, Close: math.MaxInt64})
	add := func(s userStay) { m.Add(metering.User{Account: s.user, Stays: []metering.Stay{s.Stay}}, nil) }
	add(stay("a", 1, math.MaxInt64))
	if f, err := m.Figures(); err != nil || f.Millis != math.MaxInt64-1 || f.Minutes != (math.MaxInt64-1)/1000/60+1 {
		t.Errorf("of one: %+v, %v", f, err)
	}
	add(stay("b", 1, math.MaxInt64))
	add(stay("c", 1, 10))
	if _, err := m.Figures(); !errors.Is(err, metering.ErrTooLarge) {
		t.Errorf("of three: %v", err)
	}
}

// A Meter doesn't store the users of a session, which may be many.
func TestMeterKeepsNoUsers(t *testing.T) {
	m := metering.NewMeter(metering.Room{Create: 1, Close: time.Now().UnixMilli()})
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	stays := make([]metering.Stay, 4)
	add := func(n int) {
		for i := range stays {
			stays[i] = metering.Stay{ID: strconv.Itoa(n), Login: int64(n + i), Logout: int64(n + i + 5)}
		}
		m.Add(metering.User{Account: strconv.Itoa(n), Stays: stays}, nil)
	}
	add(1)
	before := heap()
	for n := range 50_000 {
		add(n)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	runtime.KeepAlive(m)
}
