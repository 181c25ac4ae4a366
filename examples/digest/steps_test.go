package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

func TestSettingsAtFaultAreAllNamed(t *testing.T) {
	settings := map[string]string{"SHOWS": "launch", "SMTP_ADDRESS": "localhost", "MAIL_TO": "nobody", "MAIL_FROM": ""}
	_, err := service(func(name string) string { return settings[name] }).Init(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	for name := range settings {
		if !strings.Contains(err.Error(), name+": found ") {
			t.Errorf("%s is not named in:\n%v", name, err)
		}
	}
}

func TestRoomsOfAShowHaveAWorkflowOfTheirOwn(t *testing.T) {
	s := stepsOf(t, map[string]string{"SHOWS": "launch=main,backstage; gala=hall"})
	for room, want := range map[string]string{
		"launch/main": "launch/main launch/backstage", "launch/backstage": "launch/main launch/backstage", "gala/hall": "gala/hall",
		"gala/main": "", "gala/": "", "gala": "", "lobby": "", "": "", "launch/main/2": "",
	} {
		_, rooms := s.Shows.of(room)
		if got := strings.Join(rooms, " "); got != want {
			t.Errorf("%q has the rooms %q, want %q", room, got, want)
		}
		if routed := s.route(session.Session{RoomID: room}) != nil; routed != (want != "") {
			t.Errorf("%q is routed: %v", room, routed)
		}
	}
}

func TestShowsAtFault(t *testing.T) {
	for _, s := range []string{"launch", "launch=", "=main", "launch=main,", "launch=main;", "a=b;a=c", "a/b=c", "a=b c"} {
		if _, err := parseShows(s); err == nil || !strings.HasPrefix(err.Error(), "SHOWS: found ") {
			t.Errorf("%q: error %v", s, err)
		}
	}
}

func TestServiceIsComplete(t *testing.T) {
	if err := service(os.Getenv).Check(); err != nil {
		t.Error(err)
	}
}

// fake is a Temporal client that always returns err. Another test uses a real server.
type fake struct {
	client.Client
	client.WorkflowUpdateHandle
	start client.StartWorkflowOptions
	err   error
}

func (f *fake) NewWithStartWorkflowOperation(o client.StartWorkflowOptions, _ any, _ ...any) client.WithStartWorkflowOperation {
	f.start = o
	return nil
}

func (f *fake) UpdateWithStartWorkflow(context.Context, client.UpdateWithStartWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	return f, nil
}

func (f *fake) Get(context.Context, any) error { return f.err }

func TestWhatBecomesOfARoomThatTellsTheDigest(t *testing.T) {
	task := activities.Task{Session: room("launch/main").Session}
	for name, tt := range map[string]struct {
		err     error
		givenUp bool
		want    string
	}{
		"taken":            {nil, false, ""},
		"already written":  {errTooLate, true, "the digest was written"},
		"already sent":     {serviceerror.NewWorkflowExecutionAlreadyStarted("", "", ""), true, "the digest was written"},
		"Temporal is away": {errors.New("no connection"), false, "report to digest-1-launch: no connection"},
	} {
		t.Run(name, func(t *testing.T) {
			temporal := &fake{err: tt.err}
			_, err := stepsOf(t, nil).report(t.Context(), temporal, "closeout", task, nil)
			if activities.IsGivenUp(err) != tt.givenUp || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
			// The audit would count it as a second run of the session.
			if attributes := temporal.start.TypedSearchAttributes; attributes.ContainsKey(workflows.RoomSessionID) || !attributes.ContainsKey(workflows.RoomID) {
				t.Errorf("search attributes %v", attributes.GetUntypedValues())
			}
		})
	}
}

func TestRoomOfNoShowBlocks(t *testing.T) {
	_, err := stepsOf(t, nil).report(t.Context(), &fake{}, "closeout", activities.Task{Session: closeouttest.Session()}, nil)
	if err == nil || !strings.Contains(err.Error(), `SHOWS: room "lobby"`) {
		t.Errorf("error %v", err)
	}
}
