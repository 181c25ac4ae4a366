package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// room returns the report of a session of a room.
func room(name string) Closed {
	session := closeouttest.Session(func(c *zego.RoomClose) { c.RoomID = name })
	return Closed{session, []string{"bill 1"}, []string{"launch/main", "launch/backstage"}}
}

// report reports a room to the digest at that age of the digest, and returns the answer.
func report(env *closeouttest.Env, at time.Duration, c Closed) *string {
	answer := new(string)
	env.After(at, func() {
		env.UpdateWorkflow(updateRoom, "", &testsuite.TestUpdateCallback{
			OnAccept:   func() {},
			OnReject:   func(err error) { *answer = err.Error() },
			OnComplete: func(result any, _ error) { *answer, _ = result.(string) },
		}, c)
	})
	return answer
}

// mails returns the rooms in each digest that a run sends.
func mails(env *closeouttest.Env) *[]string {
	sent := &[]string{}
	env.OnActivity(steps.MailDigest, mock.Anything, mock.Anything, mock.Anything).Run(func(args mock.Arguments) {
		var rooms []string
		for _, c := range args.Get(2).([]Closed) {
			rooms = append(rooms, c.Session.RoomID)
		}
		*sent = append(*sent, strings.Join(rooms, " "))
	}).Return("sent", nil)
	return sent
}

func TestDigestIsMailedOnce(t *testing.T) {
	main, backstage := room("launch/main"), room("launch/backstage")
	tests := []struct {
		name  string
		rooms []Closed // reported an hour after each other
		want  string
		after time.Duration
	}{
		{"the main room first", []Closed{main, backstage}, "launch/main launch/backstage", time.Hour},
		{"the main room last", []Closed{backstage, main}, "launch/backstage launch/main", time.Hour},
		{"a room told twice", []Closed{main, main, backstage}, "launch/main launch/backstage", 2 * time.Hour},
		{"a room with two sessions", []Closed{main, room("launch/main"), backstage}, "launch/main launch/main launch/backstage", 2 * time.Hour},
		{"a room that never closes", []Closed{main}, "launch/main", maxWait},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := closeouttest.NewEnv(t, &Steps{})
			sent := mails(env)
			for i, room := range tt.rooms {
				report(env, time.Duration(i)*time.Hour, room)
			}
			first := tt.rooms[0].Session
			result := env.Run(Digest, first)
			if result.State != workflows.StateDone || !slices.Equal(*sent, []string{tt.want}) {
				t.Errorf("result %+v, sent %q, want %q", result, *sent, tt.want)
			}
			if took := env.Now().Sub(first.RoomCloseTime); took != tt.after {
				t.Errorf("sent after %v, want %v", took, tt.after)
			}
		})
	}
}

func TestDigestSaysWhatItWaitsFor(t *testing.T) {
	env := closeouttest.NewEnv(t, &Steps{})
	mails(env)
	first := room("launch/main")
	answer := report(env, 0, first)
	want := "waiting for launch/backstage until " + first.Session.RoomCloseTime.Add(maxWait).Format(time.RFC3339)
	env.After(time.Hour, func() {
		if *answer != want || env.Details() != want {
			t.Errorf("the room got %q, the Web UI %q; want %q", *answer, env.Details(), want)
		}
	})
	env.Run(Digest, first.Session)
}

// While the e-mail is being sent, here to a server that is down, no room is added.
func TestRoomThatClosesTooLateIsTold(t *testing.T) {
	env := closeouttest.NewEnv(t, &Steps{})
	env.OnActivity(steps.MailDigest, mock.Anything, mock.Anything, mock.Anything).Return("", activities.Blockedf("550 no such user")).Once()
	env.OnActivity(steps.MailDigest, mock.Anything, mock.Anything, mock.Anything).Return("sent", nil)
	first := room("launch/main")
	report(env, 0, first)
	answer := report(env, maxWait+time.Hour, room("launch/backstage"))
	env.After(maxWait+2*time.Hour, func() { env.Retry("mail", "the address is there now") })
	if env.Run(Digest, first.Session); *answer != errTooLate.Error() {
		t.Errorf("the room got %q", *answer)
	}
}

func TestDigestCanBeCancelled(t *testing.T) {
	env := closeouttest.NewEnv(t, &Steps{})
	first := room("launch/main")
	report(env, 0, first)
	env.After(time.Hour, env.CancelWorkflow)
	env.Start(Digest, first.Session)
	if err := env.GetWorkflowError(); !temporal.IsCanceledError(err) {
		t.Errorf("error %v, want a cancellation", err)
	}
}

func TestRoomTellsTheDigestWhatHappened(t *testing.T) {
	session := room("launch/main").Session
	for name, tt := range map[string]struct {
		billing error
		want    string
	}{
		"all went well":   {nil, "bill "},
		"billing skipped": {activities.Blockedf("no price list"), "no bill"},
	} {
		t.Run(name, func(t *testing.T) {
			env := closeouttest.NewEnv(t, &Steps{})
			env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(activities.Bill{}, tt.billing)
			env.OnActivity(steps.TellDigest, mock.Anything, mock.Anything, mock.MatchedBy(func(happened []string) bool {
				return len(happened) == 2 && strings.HasPrefix(happened[0], tt.want) && strings.HasPrefix(happened[1], "no recordings, see ")
			})).Return("told", nil).Once()
			if tt.billing != nil {
				env.After(time.Hour, func() { env.Skip("billing", "free of charge") })
			}
			if result := env.Run(CloseShowRoom, session); len(result.Steps) != 3 || result.Steps[2].Summary != "told" {
				t.Errorf("result %+v", result)
			}
			env.AssertExpectations(t)
		})
	}
}

// A room that is too late for the digest is closed out too.
func TestRoomGivesTheDigestUp(t *testing.T) {
	env := closeouttest.NewEnv(t, &Steps{})
	env.OnActivity(steps.TellDigest, mock.Anything, mock.Anything, mock.Anything).Return("", errTooLate)
	result := env.Run(CloseShowRoom, room("launch/main").Session)
	if result.State != workflows.StateGivenUp || !strings.HasPrefix(result.Steps[2].Summary, "given up: the digest was written") {
		t.Errorf("result %+v", result)
	}
}

// The recorded runs are of a room in the digest, of a room that came too late, of a digest that was
// sent at once, and of a digest that a mail server refused at first.
func TestRunsUnderWayGoOn(t *testing.T) {
	closeouttest.Replay(t, "testdata", CloseShowRoom, Digest)
}
