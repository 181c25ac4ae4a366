package simulation

import (
	"flag"
	"testing"
	"time"

	"github.com/closeouthq/closeout/zego"
)

var twice = flag.Bool("twice", false, "TestEveryCrashPoint crashes the next process, too, after each operation")

// short lists histories of one to four callbacks. Together they make an inbox do everything
// it can.
var short = []struct {
	name    string
	actions []action
}{
	{"a room_close is started", []action{closeOf(0, 0)}},
	{"a room_close is queued, then started and removed", []action{
		{kind: temporalAway, lasts: 1500 * time.Millisecond, answer: away}, closeOf(0, 200*time.Millisecond)}},
	{"a room_close is started without an answer", []action{
		{kind: temporalCall, session: 0, nth: 1, answer: lost}, closeOf(0, 200*time.Millisecond)}},
	{"a room_close is started after its sender was answered", []action{
		{kind: temporalCall, session: 0, nth: 1, answer: slow}, closeOf(0, 200*time.Millisecond)}},
	{"a room_close becomes a dead letter", []action{
		{kind: callback, event: zego.EventRoomClose, copies: 1, refused: true, at: 200 * time.Millisecond}}},
	{"two of one room are queued together, one twice", []action{
		{kind: temporalAway, lasts: 1500 * time.Millisecond, answer: hangs}, closeOf(0, 200*time.Millisecond),
		{kind: callback, event: zego.EventRoomClose, session: 0, copies: 2, at: 202 * time.Millisecond}, closeOf(2, 203*time.Millisecond)}},
	{"an event is queued, then stored and removed", []action{
		{kind: ledgerAway, lasts: 1500 * time.Millisecond, answer: away}, logoutOf(0, 200*time.Millisecond)}},
	{"an event is stored, and its COMMIT's answer lost", []action{
		{kind: ledgerCall, nth: 1, answer: lost}, logoutOf(0, 200*time.Millisecond)}},
	{"one of two events becomes a dead letter", []action{logoutOf(0, 200*time.Millisecond),
		{kind: callback, event: zego.EventRoomLogout, session: 1, user: 1, copies: 1, refused: true, at: 201 * time.Millisecond}}},
	{"a queue outlives a restart", []action{
		{kind: temporalAway, lasts: 2500 * time.Millisecond, answer: away}, closeOf(0, 200*time.Millisecond),
		{kind: restart, at: 1200 * time.Millisecond, lasts: 300 * time.Millisecond}}},
}

func closeOf(session int, at time.Duration) action {
	return action{kind: callback, event: zego.EventRoomClose, session: session, copies: 1, at: at}
}

func logoutOf(session int, at time.Duration) action {
	return action{kind: callback, event: zego.EventRoomLogout, session: session, user: 1, copies: 1, at: at}
}

// After a crash at any point, with any part of the unsynced data lost, the next process
// continues correctly.
func TestEveryCrashPoint(t *testing.T) {
	points := 0
	for _, s := range short {
		points += crashEverywhere(t, s.name, history{1, s.actions}, 0)
	}
	t.Logf("%d crashes", points)
}

// crashEverywhere crashes a process of a history after each of its operations, and
// returns the number of crashes.
func crashEverywhere(t *testing.T, name string, h history, process int) (crashes int) {
	t.Helper()
	ops := mustHold(t, name, h).ops
	if len(ops) <= process {
		return 0 // the previous crash came too late for another process
	}
	for op := 1; op <= ops[process]; op++ {
		for _, left := range survivals {
			down := action{kind: crash, process: process, op: op, survives: left, lasts: 500 * time.Millisecond}
			crashed := history{h.seed, append([]action{down}, h.actions...)}
			crashes++
			if process == 0 && *twice {
				crashes += crashEverywhere(t, name, crashed, 1)
			} else {
				mustHold(t, name, crashed)
			}
		}
	}
	return crashes
}

// mustHold runs a history and fails the test if a guarantee is broken.
func mustHold(t *testing.T, name string, h history) outcome {
	t.Helper()
	o := run(t, h)
	if o.failure != "" {
		t.Fatalf("%s: %s", name, explain(t, h, o.failure))
	}
	return o
}
