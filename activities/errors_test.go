package activities_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
)

func TestKindsOfFailure(t *testing.T) {
	tests := []struct {
		name      string
		err       error
		retryable bool
		pause     time.Duration
		givenUp   bool
	}{
		{"plain", io.ErrUnexpectedEOF, true, 0, false},
		{"retry after", activities.RetryAfterf(time.Minute, "read it: %w", io.ErrUnexpectedEOF), true, time.Minute, false},
		{"blocked", activities.Blockedf("read it: %w", io.ErrUnexpectedEOF), false, 0, false},
		{"given up", activities.GiveUpf("read it: %w", io.ErrUnexpectedEOF), false, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !errors.Is(tt.err, io.ErrUnexpectedEOF) {
				t.Error("the cause is lost")
			}
			if got := activities.IsBlocked(tt.err); got != (tt.name == "blocked") {
				t.Errorf("blocked: %v", got)
			}
			if got := activities.IsGivenUp(tt.err); got != tt.givenUp {
				t.Errorf("given up: %v", got)
			}
			if app := new(temporal.ApplicationError); errors.As(tt.err, &app) {
				if app.Message() != "read it: unexpected EOF" || app.NonRetryable() == tt.retryable || app.NextRetryDelay() != tt.pause {
					t.Errorf("%q, retryable %v, after %v", app.Message(), !app.NonRetryable(), app.NextRetryDelay())
				}
			} else if tt.name != "plain" {
				t.Errorf("error %#v", tt.err)
			}
		})
	}
}
