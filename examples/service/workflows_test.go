package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// newEnv returns an environment in which steps without a mock call the fakes.
func newEnv(t *testing.T) *closeouttest.Env {
	t.Helper()
	s := service(from(nil))
	if _, err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return closeouttest.NewEnv(t, s.Activities...)
}

func closedRoom(room string) session.Session {
	return closeouttest.Session(func(c *zego.RoomClose) { c.RoomID = room })
}

// outcome returns the states of a run and its steps in a line.
func outcome(result workflows.Result) string {
	words := []string{string(result.State)}
	for _, s := range result.Steps {
		words = append(words, s.Step+":"+string(s.State))
	}
	return strings.Join(words, " ")
}

func TestLiveShow(t *testing.T) {
	recorded := activities.Archived{Manifest: "1/2/manifest.json", Files: 1, Bytes: 7}
	tests := map[string]struct {
		archived   activities.Archived
		announcing error
		want       string
	}{
		"all is well":          {recorded, nil, "done billing:done recordings:done replay:done announcement:done"},
		"nothing was recorded": {activities.Archived{}, nil, "given_up billing:done recordings:done replay:given_up announcement:skipped"},
		"nobody is told":       {recorded, activities.Blockedf("banned"), "given_up billing:done recordings:done replay:done announcement:given_up"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).Return(tt.archived, nil)
			if tt.announcing != nil {
				env.OnActivity(studio.AnnounceReplay, mock.Anything, mock.Anything, mock.Anything).Return("", tt.announcing)
			}
			if got := outcome(env.Run(CloseLiveShow, closedRoom("live-tonight"))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSupportCall(t *testing.T) {
	env := newEnv(t)
	call := closedRoom("ticket-4711")
	env.After(surveyAfter-time.Minute, func() {
		for _, want := range []string{"**ticket** is done", "**survey** is waiting until " + call.RoomCloseTime.Add(surveyAfter).Format(time.RFC3339)} {
			if details := env.Details(); !strings.Contains(details, want) {
				t.Errorf("details lack %q:\n%s", want, details)
			}
		}
	})
	if got := outcome(env.Run(CloseSupportCall, call)); got != "done billing:done recordings:done ticket:done survey:done" {
		t.Error(got)
	}
	if took := env.Now().Sub(call.RoomCloseTime); took < surveyAfter {
		t.Errorf("asked after %v", took)
	}
}

// A ticket is closed only after the bill. If an operator skips the bill, the ticket is
// skipped too.
func TestTicketWaitsForTheBill(t *testing.T) {
	for name, tt := range map[string]struct {
		decide func(*closeouttest.Env)
		want   string
	}{
		"retried": {func(e *closeouttest.Env) { e.Retry("billing", "customer added") }, "done billing:done recordings:done ticket:done survey:done"},
		"skipped": {func(e *closeouttest.Env) { e.Skip("billing", "a test call") }, "skipped billing:skipped recordings:done ticket:skipped survey:done"},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			env.OnActivity(activities.Standard.FinalizeBill, mock.Anything, mock.Anything).Return(activities.Bill{}, activities.Blockedf("no such customer")).Once()
			env.After(2*time.Hour, func() {
				if details := env.Details(); !strings.Contains(details, "**ticket** is waiting for **billing**") {
					t.Errorf("people see %s", details)
				}
				tt.decide(env)
			})
			if got := outcome(env.Run(CloseSupportCall, closedRoom("ticket-4711"))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The help desk is down, and works again before the step is blocked.
func TestTicketIsTriedAgainAndTheSurveyIsGivenUp(t *testing.T) {
	away := errors.New("no connection")
	env := newEnv(t)
	env.OnActivity(helpDesk.CloseTicket, mock.Anything, mock.Anything).Return("", away).Times(3)
	env.OnActivity(helpDesk.CloseTicket, mock.Anything, mock.Anything).Return("closed", nil)
	env.OnActivity(helpDesk.SendSurvey, mock.Anything, mock.Anything).Return("", away)
	if got := outcome(env.Run(CloseSupportCall, closedRoom("ticket-4711"))); got != "given_up billing:done recordings:done ticket:done survey:given_up" {
		t.Error(got)
	}
}
