package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// byMicrophone charges listeners for each minute begun, and pays hosts for each published
// second.
func byMicrophone(s pricing.Session) (lines []pricing.Line, err error) {
	for p := range s.Participants {
		if n := p.Published.Seconds(); n > 0 {
			lines = append(lines, pricing.Line{Payee: p.User, Description: "microphone", Quantity: n, Unit: "second", UnitPrice: -2, Amount: -2 * n, Currency: "EUR"})
			continue
		}
		n := p.InRoom.Minutes()
		lines = append(lines, pricing.Line{Payer: p.User, Description: "listening", Quantity: n, Unit: "minute", UnitPrice: 20, Amount: 20 * n, Currency: "EUR"})
	}
	return lines, nil
}

// Stage records the participants that its step has read.
type Stage struct{ settled sync.Map }

// Settle records, by idempotency key, the difference of each user to the time billed
// before.
func (s *Stage) Settle(ctx context.Context, task activities.Task, bill activities.Bill) (string, error) {
	people, err := activities.Participants(ctx, task)
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("adjustment %d, settled %v, bill of %d ms:", task.Adjustment, people.Settled, bill.Usage.Millis)
	for p, err := range people.All {
		if err != nil {
			return "", err
		}
		if d := p.Billed().InRoom - p.Before.InRoom; d != 0 {
			said += fmt.Sprintf(" %s %d", p.User, d/60_000)
		}
	}
	s.settled.Store(task.IdempotencyKey, said)
	return "settled", nil
}

// CloseStage settles after the bill and after each adjustment.
func CloseStage(ctx workflow.Context, closed session.Session) (workflows.Result, error) {
	run := workflows.Begin(ctx, closed)
	bill := workflows.Start(run, workflows.Billing, activities.Standard.FinalizeBill)
	workflows.Then(bill, workflows.Step{Name: "settle", Adjusts: true}, (*Stage)(nil).Settle)
	return run.Finish()
}

// All callbacks of a room but one logout are posted. The bill counts that user's time to
// the end of the room, and each host's published time from the streams. The logout
// arrives after the bill. An adjustment then corrects only that listener's lines, and the
// adjusting step runs again.
func TestPublishedTimeIsBilledAndALateLogoutCorrectsOnePerson(t *testing.T) {
	t.Parallel()
	c := settings(t, map[string]string{"reconcile-interval": "1s", "missing-wait": "0s"})
	setUp(t, c)
	parts := both
	stage := &Stage{}
	parts.Extension = service.Extension{Price: byMicrophone, Workflows: []workflows.Workflow{CloseStage}, Activities: []any{stage},
		Route: func(session.Session) workflows.Workflow { return CloseStage }}
	address := start(t, c, parts)
	closed := newClose()
	begin := closed.RoomCloseTime.Add(-time.Hour)
	at := func(minutes float64) time.Time { return begin.Add(time.Duration(minutes * float64(time.Minute))) }
	number := map[bool]uint64{}
	seq := func(stream bool) zego.Sequence {
		number[stream]++
		return zego.Sequence{Number: number[stream], Valid: true}
	}
	login := func(user string, from float64) zego.RoomLogin {
		return zego.RoomLogin{RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID, UserAccount: user, SessionID: user + "-1",
			LoginTime: at(from), UserRole: "2", UserUpdateSeq: seq(false)}
	}
	ends := func(l zego.RoomLogin, to float64) *zego.RoomLogout {
		l.UserUpdateSeq = seq(false)
		return &zego.RoomLogout{RoomLogin: l, LogoutTime: at(to)}
	}
	stream := func(user, sid string, from, to float64) {
		s := zego.StreamCreate{RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID, UserID: user, StreamID: user, StreamSID: sid, StreamSeq: seq(true), CreateTime: at(from)}
		tell(t, address, &s)
		s.StreamSeq = seq(true)
		tell(t, address, &zego.StreamClose{StreamCreate: s, CloseTime: at(to)})
	}
	tell(t, address, &zego.RoomCreate{RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID, RoomCreateTime: begin})
	logins := map[string]zego.RoomLogin{}
	for i, user := range []string{"alice", "bob", "hanna", "harry"} {
		l := login(user, float64(i))
		logins[user] = l
		tell(t, address, &l)
	}
	stream("hanna", "1", 10, 20)
	stream("hanna", "2", 15, 25) // overlaps
	stream("harry", "3", 30, 30.5)
	late := ends(logins["alice"], 30)
	for _, user := range []string{"bob", "hanna", "harry"} {
		tell(t, address, ends(logins[user], 50))
	}
	post(t, address, closed)
	temporal := dial(t, c)
	result(t, temporal, closed)

	books, err := ledger.Open(c.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() })
	lines := func(entry int) (all []string) {
		for l, err := range books.Lines(t.Context(), session.ID{AppID: 1, RoomSessionID: closed.RoomSessionID}, entry) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(l.Payer, l.Payee, " ", l.Quantity, " ", l.Amount))
		}
		return all
	}
	b := bill(t, c, closed)
	if got, want := lines(0), []string{"alice 60 1200", "bob 49 980", "hanna 900 -1800", "harry 30 -60"}; !slices.Equal(got, want) {
		t.Errorf("the bill has %q, want %q", got, want)
	}
	if b.Usage.PublishedSeconds != 930 || b.Usage.PublishedEstimated != 0 || b.Charge.Amount != 1200+980-1800-60 {
		t.Errorf("the bill has %+v, %+v", b.Usage, b.Charge)
	}
	if b.Usage.Callbacks.Missing != 1 || !b.Usage.StreamCallbacks.Complete() {
		t.Errorf("callbacks %v, of streams %v", b.Usage.Callbacks, b.Usage.StreamCallbacks)
	}

	tell(t, address, late)
	wait(t, "the adjustment is made", func() bool {
		made, err := books.Adjusted(t.Context(), session.ID{AppID: 1, RoomSessionID: closed.RoomSessionID}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return made
	})
	settled := func(step string) any {
		said, _ := stage.settled.Load(session.Of(&closed).IdempotencyKey(step))
		return said
	}
	if got, want := settled("settle"), "adjustment 0, settled true, bill of 12240000 ms: alice 60 bob 49 hanna 48 harry 47"; got != want {
		t.Errorf("the step has read %v, want %v", got, want)
	}
	wait(t, "the step has run again", func() bool { return settled("settle-adjustment-1") != nil })
	if got, want := settled("settle-adjustment-1"), "adjustment 1, settled true, bill of 10440000 ms: alice -30"; got != want {
		t.Errorf("in the adjustment, the step has read %v, want %v", got, want)
	}
	if got, want := lines(1), []string{"alice -30 -600"}; !slices.Equal(got, want) {
		t.Errorf("the adjustment has %q, want %q", got, want)
	}
	people, err := books.Participants(t.Context(), session.Of(&closed), 1)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for p, err := range people.All {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if (p.Billed() != p.Before) != (p.User == "alice") || !p.InRoom.Exact() || !p.Published.Exact() {
			t.Errorf("%s: %+v, %+v, %+v before", p.User, p.InRoom, p.Published, p.Before)
		}
	}
	if n != 4 {
		t.Errorf("%d participants, want 4", n)
	}
	if !people.Callbacks.Complete() {
		t.Errorf("callbacks %v", people.Callbacks)
	}
}
