package outage

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func logTo(out *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// An outage of three hours, with one attempt and two callbacks a second, logs one line at the
// beginning, one a minute and one at the end.
func TestOutageLogsFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		o := New(logTo(&out), "Temporal", "callbacks are queued on disk")
		o.End()
		if o.Queue() || o.Cause() != nil || out.Len() > 0 {
			t.Fatalf("an outage without a failure: %s", &out)
		}
		for range 3 * 3600 {
			o.Fail(errors.New("connection refused"))
			for range 2 {
				if !o.Queue() {
					t.Fatal("no outage")
				}
			}
			time.Sleep(time.Second)
		}
		if o.Cause() == nil {
			t.Error("no cause")
		}
		o.End()
		o.End()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 1+179+1 {
			t.Errorf("%d lines", len(lines))
		}
		for n, want := range map[int]string{
			0:              `level=ERROR msg="outage begins" component=Temporal error="connection refused" meanwhile="callbacks are queued on disk"`,
			1:              `level=WARN msg="outage lasts" component=Temporal duration=1m0s failures=61 queued=120 error="connection refused"`,
			len(lines) - 1: `level=INFO msg="outage ends" component=Temporal duration=3h0m0s failures=10800 queued=21600`,
		} {
			if lines[n] != want {
				t.Errorf("line %d is %s, want %s", n, lines[n], want)
			}
		}
		if o.Cause() != nil || o.Queue() {
			t.Error("it isn't over")
		}
		out.Reset()
		o.Fail(errors.New("again"))
		o.End()
		if !strings.Contains(out.String(), "failures=1\n") {
			t.Errorf("the next outage counts with the last: %s", &out)
		}
	})
}

func TestRepeatedLinesOfALibraryAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := slog.New(Limit(logTo(&out).Handler())).With("TaskQueue", "closeout")
		for range 150 {
			log.Warn("Failed to poll for task.", "Error", "refused")
			time.Sleep(time.Second)
		}
		const line = "level=WARN msg=\"Failed to poll for task.\" TaskQueue=closeout Error=refused"
		if want := line + "\n" + line + " repeated=59\n" + line + " repeated=59\n"; out.String() != want {
			t.Errorf("logged:\n%s", &out)
		}
		out.Reset()
		for range 3 {
			log.Error("Activity error.", "WorkflowID", "room-close-1-2")
			log.With("WorkflowID", "room-close-1-2").Error("Activity error.")
			log.Info("Started Worker")
		}
		if n := strings.Count(out.String(), "\n"); n != 9 {
			t.Errorf("of a run and below a warning, %d lines of 9:\n%s", n, &out)
		}
		out.Reset()
		log.Warn("another")
		if !strings.Contains(out.String(), "another") {
			t.Error("a message waits for another one's minute")
		}
	})
}
