package main

import (
	"strings"
	"testing"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// from returns a function that reads settings from a map.
func from(settings map[string]string) func(string) string {
	return func(name string) string { return settings[name] }
}

func TestServiceIsComplete(t *testing.T) {
	if err := service(from(nil)).Check(); err != nil {
		t.Error(err)
	}
}

func TestRunsUnderWayGoOn(t *testing.T) {
	closeouttest.Replay(t, "testdata", CloseLiveShow, CloseSupportCall)
}

func TestRoute(t *testing.T) {
	tests := []struct {
		app  uint32
		room string
		want workflows.Workflow
	}{
		{1, "live-tonight", CloseLiveShow},
		{1, "lobby", nil},
		{1, "alive-", nil},
		{1, "", nil},
		{2, "ticket-4711", CloseSupportCall},
		{2, "live-tonight", CloseSupportCall},
		{3, "ticket-4711", nil},
	}
	s := service(from(map[string]string{"SUPPORT_APP": "2"}))
	if _, err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		got := s.Route(session.Session{ID: session.ID{AppID: tt.app}, RoomID: tt.room})
		if (got == nil) != (tt.want == nil) || got != nil && workflows.Name(got) != workflows.Name(tt.want) {
			t.Errorf("app %d, room %q: another workflow", tt.app, tt.room)
		}
	}
}

func TestWithoutASupportAppNothingIsASupportCall(t *testing.T) {
	if (&settings{}).route(session.Session{}) != nil {
		t.Error("app 0 is the support app")
	}
}

func TestSettingsAtFaultAreAllNamed(t *testing.T) {
	tests := map[string]struct {
		settings map[string]string
		faults   []string // the beginning of each
	}{
		"none":                  {nil, nil},
		"all well":              {map[string]string{"SUPPORT_APP": "2", "STUDIO_URL": "https://studio.test", "STUDIO_TOKEN": "t"}, nil},
		"a token without a URL": {map[string]string{"HELPDESK_TOKEN": "hunter2"}, []string{"HELPDESK_URL: "}},
		"a URL without a token": {map[string]string{"STUDIO_URL": "https://studio.test"}, []string{"STUDIO_TOKEN: "}},
		"everything": {
			map[string]string{"SUPPORT_APP": "support", "STUDIO_URL": "ftp://hunter2@studio.test", "HELPDESK_URL": "hunter2"},
			[]string{`SUPPORT_APP: found "support"`, "STUDIO_URL: ", "HELPDESK_URL: "},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := service(from(tt.settings)).Init(t.Context())
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(tt.faults) {
				t.Fatalf("error %v", err)
			}
			for i, want := range tt.faults {
				if !strings.HasPrefix(lines[i], want) || strings.Contains(lines[i], "hunter2") {
					t.Errorf("fault %q, want %q...", lines[i], want)
				}
			}
		})
	}
}
