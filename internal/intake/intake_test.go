package intake_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// starter answers each start with the next error, and keeps what it was asked.
type starter struct {
	answers []error
	asked   []client.StartWorkflowOptions
	input   any
}

func (s *starter) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
	err := s.answers[len(s.asked)]
	s.asked = append(s.asked, o)
	s.input = args[0]
	return nil, err
}

func TestRoomClose(t *testing.T) {
	const id = "room-close-1-858012925204410417"
	away := serviceerror.NewUnavailable("away")
	invalid := serviceerror.NewInvalidArgument("Namespace default has no mapping defined for search attribute RoomId")
	exists := serviceerror.NewWorkflowExecutionAlreadyStarted("exists", "", "run")
	started, duplicate := webhook.Receipt{Status: webhook.Started, WorkflowID: id}, webhook.Receipt{Status: webhook.Duplicate, WorkflowID: id}
	tests := []struct {
		name    string
		answers []error
		want    webhook.Receipt
		err     error
	}{
		{"started", []error{nil}, started, nil},
		{"duplicate", []error{exists}, duplicate, nil},
		{"away", []error{away}, webhook.Receipt{}, away},
		{"a search attribute is missing", []error{invalid, nil}, started, nil},
		{"and it is a duplicate", []error{invalid, exists}, duplicate, nil},
		{"invalid for another reason", []error{invalid, invalid}, webhook.Receipt{}, invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &starter{answers: tt.answers}
			in := intake.Intake{Temporal: s, TaskQueue: "q", Log: slog.New(slog.DiscardHandler)}
			got, err := in.RoomClose(t.Context(), &zego.RoomClose{
				Common: zego.Common{AppID: 1, Signature: "proof"}, RoomID: "lobby", RoomSessionID: 858012925204410417, RoomCloseTime: time.UnixMilli(1),
			})
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, tt.want, tt.err)
			}
			if len(s.asked) != len(tt.answers) {
				t.Fatalf("asked %d times", len(s.asked))
			}
			first := s.asked[0]
			if first.ID != id || first.TaskQueue != "q" || first.WorkflowIDReusePolicy != enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE ||
				!first.WorkflowExecutionErrorWhenAlreadyStarted || first.TypedSearchAttributes.Size() == 0 {
				t.Errorf("started with %+v", first)
			}
			if len(s.asked) == 2 && (s.asked[1].ID != id || s.asked[1].TypedSearchAttributes.Size() != 0) {
				t.Errorf("tried again with %+v", s.asked[1])
			}
			if input, ok := s.input.(activities.Session); !ok || input.RoomSessionID != 858012925204410417 || input.RoomID != "lobby" {
				t.Errorf("input %+v", s.input)
			}
		})
	}
}
