package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

func TestALessonIsRoundedPerStayAndPricedPerRole(t *testing.T) {
	begin := time.UnixMilli(1_700_000_000_000)
	stay := func(from, to time.Duration) session.Stay {
		return session.Stay{Login: session.End{Time: begin.Add(from)}, Logout: session.End{Time: begin.Add(to)}}
	}
	pupil, tutor := closeouttest.Participant("pupil", 20*time.Minute, 0), closeouttest.Participant("tutor", time.Hour, 0)
	pupil.Stays = []session.Stay{stay(0, time.Minute), stay(10*time.Minute, 26*time.Minute)}
	pupil.Role, tutor.Role = "2", teacher
	lines, amount := closeouttest.Price(t, Lesson, closeouttest.PricedSession(pupil, tutor))
	if len(lines) != 2 || lines[0].Quantity != 3 || amount != 3*400+150 {
		t.Errorf("%d of %+v", amount, lines)
	}
}

func TestACallHasAMinimumAndACap(t *testing.T) {
	for minutes, want := range map[time.Duration]int64{0: 100, 2: 100, 4: 120, 60: 1800, 90: 2000} {
		lines, amount := closeouttest.Price(t, Call, closeouttest.PricedSession(closeouttest.Participant("caller", minutes*time.Minute, 0)))
		if amount != want {
			t.Errorf("%d minutes cost %d, want %d: %+v", minutes, amount, want, lines)
		}
	}
}

func TestTheTariffIsChosenByTheRoom(t *testing.T) {
	for room, want := range map[string]string{"call-7": "call", "lesson-7": "lesson", "lobby": "listening, five minutes free"} {
		s := closeouttest.PricedSession(func() session.Participant {
			p := closeouttest.Participant("alice", 10*time.Minute, 0)
			p.Role = "2"
			p.Stays = []session.Stay{{Login: session.End{Time: time.UnixMilli(1)}, Logout: session.End{Time: time.UnixMilli(600_001)}}}
			return p
		}())
		s.RoomID = room
		if lines, _ := closeouttest.Price(t, Tariff, s); len(lines) == 0 || lines[0].Description != want {
			t.Errorf("room %s: %+v, want %q", room, lines, want)
		}
	}
}

// The documentation shows the files that are tested here.
func TestTheDocumentationShowsTheseFunctions(t *testing.T) {
	page, err := os.ReadFile("../../docs/pricing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"price.go", "price_test.go", "lesson.go", "call.go"} {
		code, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "```go\n// "+name+"\n"+string(code)+"```") {
			t.Errorf("docs/pricing.md shows another %s, or none", name)
		}
	}
}

// A late logout that shortens one stay changes the lines of that listener and the shares
// of the hosts.
func TestALateLogoutChangesOneListenersLine(t *testing.T) {
	price := func(bob time.Duration) []pricing.Line {
		lines, _ := closeouttest.Price(t, Price, closeouttest.PricedSession(closeouttest.Participant("alice", 15*time.Minute, 0), closeouttest.Participant("bob", bob, 0)))
		return lines
	}
	difference, err := pricing.Difference(price(20*time.Minute), price(10*time.Minute))
	if err != nil || len(difference) != 1 || difference[0].Payer != "bob" || difference[0].Amount != -200 {
		t.Errorf("%+v, %v", difference, err)
	}
}
