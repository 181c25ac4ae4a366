package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

type wallet struct{}

func (*wallet) Charge(context.Context, activities.Task) (string, error) { return "charged", nil }

func pay(_ workflow.Context, cents int) (int, error) { return cents, nil }

type clash struct{}

func (*clash) FinalizeBill(context.Context, activities.Task) (string, error) { return "", nil }

type notOnlySteps struct{ wallet }

func (*notOnlySteps) Close() {}

func CloseShow(workflow.Context, session.Session) (workflows.Result, error) {
	return workflows.Result{}, nil
}

type other struct{}

func (other) CloseShow(workflow.Context, session.Session) (workflows.Result, error) {
	return workflows.Result{}, nil
}

func (other) RoomClose(workflow.Context, session.Session) (workflows.Result, error) {
	return workflows.Result{}, nil
}

func ignore(context.Context, workflows.Callback) (workflows.Action, error) {
	return workflows.Action{}, nil
}

func TestCheckExtension(t *testing.T) {
	tests := []struct {
		name      string
		extension Extension
		want      []string // parts of the error; nil without one
	}{
		{"nothing", Extension{}, nil},
		{"all is well", Extension{Workflows: []workflows.Workflow{CloseShow}, Activities: []any{&wallet{}}}, nil},
		{"nil", Extension{Workflows: []workflows.Workflow{nil}}, []string{"workflow 1 of 1 is nil"}},
		{"literal", Extension{Workflows: []workflows.Workflow{func(workflow.Context, session.Session) (workflows.Result, error) { return workflows.Result{}, nil }}},
			[]string{`workflow "func1": want an exported function`}},
		{"one name twice, and a standard one", Extension{Workflows: []workflows.Workflow{CloseShow, other{}.CloseShow, other{}.RoomClose}},
			[]string{"workflow CloseShow: there are two", "workflow RoomClose: there are two"}},
		{"no step", Extension{Activities: []any{&struct{}{}}}, []string{"activities of *struct {}: "}},
		{"child workflows", Extension{Register: func(r worker.Registry) { r.RegisterWorkflow(pay) }}, nil},
		{"a child workflow with a taken name", Extension{Workflows: []workflows.Workflow{CloseShow}, Register: func(r worker.Registry) { r.RegisterWorkflow(CloseShow) }}, []string{"Register: ", "CloseShow"}},
		{"functions for events", Extension{Events: map[string]workflows.CallbackFunc{"AgentInstanceDeleted": ignore, workflows.OtherEvents: ignore}}, nil},
		{"a function for an event of ours, and none", Extension{Events: map[string]workflows.CallbackFunc{"room_close": ignore, "x": nil, "": ignore}},
			[]string{`Closeout handles "room_close" itself`, `the function for "x" is nil`, "not an empty one"}},
		{"nil steps", Extension{Activities: []any{nil}}, []string{"activities of <nil>: "}},
		{"a step of a standard name", Extension{Activities: []any{&clash{}}}, []string{"activities of *service.clash: ", "FinalizeBill"}},
		{"a method that is no step", Extension{Activities: []any{&notOnlySteps{}}}, []string{"activities of *service.notOnlySteps: ", "Close"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.extension.Check()
			if len(tt.want) == 0 && err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q", err, want)
				}
			}
		})
	}
}

func TestRouteFallsBackToTheDefault(t *testing.T) {
	route := func(s session.Session) workflows.Workflow {
		if s.RoomID == "show" {
			return CloseShow
		}
		return nil
	}
	for _, tt := range []struct {
		extension  Extension
		room, want string
	}{{Extension{}, "show", "RoomClose"}, {Extension{Route: route}, "show", "CloseShow"}, {Extension{Route: route}, "lobby", "RoomClose"}} {
		if got := workflows.Name(tt.extension.WorkflowOf(session.Session{RoomID: tt.room})); got != tt.want {
			t.Errorf("room %s is for %s, want %s", tt.room, got, tt.want)
		}
	}
}

// Errors of the program are reported before anything starts.
func TestInitRunsBeforeTheStart(t *testing.T) {
	missing := errors.New("WALLET_URL: missing")
	// Without an error of the program, listening on this address would fail next.
	c := &config.Config{AdminListen: "256.0.0.0:1"}
	for _, parts := range []Parts{{Webhook: true}, {Worker: true}} {
		parts.Extension = Extension{Workflows: []workflows.Workflow{nil}}
		if err := Run(t.Context(), c, parts, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is nil") {
			t.Errorf("a program that can't be run: %v", err)
		}
		parts.Extension = Extension{Init: func(context.Context) (io.Closer, error) { return nil, missing }}
		if err := Run(t.Context(), c, parts, slog.New(slog.DiscardHandler)); !errors.Is(err, missing) {
			t.Errorf("error %v", err)
		}
	}
}

// A step that openSteps forgets is reported at the start, and not when it runs.
func TestNilStepsAreNamed(t *testing.T) {
	if got := unmade(&steps.Standard{Billing: &steps.Billing{}}); !slices.Equal(got, []string{"Recordings"}) {
		t.Errorf("%v", got)
	}
	for _, made := range []any{&wallet{}, &struct{ API *int }{}, &notOnlySteps{}} {
		if got := unmade(made); got != nil {
			t.Errorf("%T: %v", made, got)
		}
	}
}
