package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tlog "go.temporal.io/sdk/log"
)

// A log line about a run has the Workflow ID and the session once each, whatever code writes it.
func TestLogLinesOfARunNameItsSession(t *testing.T) {
	for name, write := range map[string]func(*slog.Logger){
		"the SDK's": func(l *slog.Logger) {
			tlog.With(tlog.NewStructuredLogger(l), "WorkflowID", "room-close-1-18446744073709551615").Warn("m", "step", "billing")
		},
		"with its attributes": func(l *slog.Logger) { l.Info("m", "WorkflowID", "room-close-1-18446744073709551615") },
		"the intake's":        func(l *slog.Logger) { l.Info("m", "workflow_id", "room-close-1-18446744073709551615") },
		"the webhook's": func(l *slog.Logger) {
			l.Info("m", "room_session_id", "18446744073709551615", "workflow_id", "room-close-1-18446744073709551615")
		},
	} {
		var out strings.Builder
		write(NewLogger(&out, slog.LevelInfo, true))
		var line map[string]any
		if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
			t.Fatal(err)
		}
		if line["workflow_id"] != "room-close-1-18446744073709551615" || line["room_session_id"] != "18446744073709551615" || line["WorkflowID"] != nil ||
			strings.Count(out.String(), "_session_id") != 1 {
			t.Errorf("%s: %s", name, &out)
		}
	}
	var out strings.Builder
	NewLogger(&out, slog.LevelInfo, false).Info("m", "workflow_id", "digest-1-gala")
	if !strings.HasSuffix(out.String(), "msg=m workflow_id=digest-1-gala\n") {
		t.Errorf("of a workflow of another kind: %s", &out)
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// Remote gauges are read when the metrics are read, but not more often than their interval. An
// unknown value is left out.
func TestRemoteGaugesAreReadSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics()
		asked, blocked, away := 0, 3, error(nil)
		m.Gauges(30*time.Second, func(ctx context.Context, set Set) {
			asked++
			if d, limited := ctx.Deadline(); !limited || time.Until(d) > readTimeout {
				t.Errorf("it may take until %v", d)
			}
			if away == nil {
				set("closeout_runs_blocked", float64(blocked), "here")
			}
		}, Metric{Name: "closeout_runs_blocked", Labels: []string{"where"}})
		read := func(after time.Duration, wantAsked int, want string) {
			t.Helper()
			time.Sleep(after)
			text := scrape(t, m)
			if asked != wantAsked || strings.Contains(text, "closeout_runs_blocked") != (want != "") || !strings.Contains(text, want) {
				t.Errorf("asked %d times, want %d, and found no %q in:\n%s", asked, wantAsked, want, text[:strings.Index(text, "# HELP go_")])
			}
		}
		time.Sleep(time.Hour)
		if asked != 0 {
			t.Error("asked without a scrape")
		}
		const series = "\ncloseout_runs_blocked{where=\"here\"} "
		read(0, 1, series+"3\n")
		blocked = 4
		read(29*time.Second, 1, series+"3\n")
		read(time.Second, 2, series+"4\n")
		away = errors.New("away")
		read(30*time.Second, 3, "")
		read(29*time.Second, 3, "")
		away = nil
		read(time.Second, 4, series+"4\n")
	})
}

func TestInvalidMetricFailsTheStart(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a metric that can't be made is taken")
		}
	}()
	NewMetrics().NewCounter(prometheus.CounterOpts{})
}

// A log line with a traced context has the trace's ID.
func TestLogLinesNameTheirTrace(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	var out strings.Builder
	log := NewLogger(&out, slog.LevelInfo, false).With("a", 1)
	log.Info("m")
	ctx, span := provider.Tracer("test").Start(t.Context(), "callback")
	log.InfoContext(ctx, "n")
	if want := "msg=n a=1 trace_id=" + span.SpanContext().TraceID().String() + " span_id=" + span.SpanContext().SpanID().String() + "\n"; !strings.HasSuffix(out.String(), want) || strings.Count(out.String(), "trace_id") != 1 {
		t.Errorf("%s", &out)
	}
}

// A metric's tags may differ between uses, and an invalid metric doesn't affect the others.
func TestTemporalsMetricsAreExported(t *testing.T) {
	m := NewMetrics()
	m.Temporal().Timer("temporal_workflow_task_schedule_to_start_latency").Record(0)
	m.Temporal().Counter("temporal_request").Inc(1)
	tagged := m.Temporal().WithTags(map[string]string{"operation": "Start", "b": "no UTF-8: \xff"})
	for range 2 {
		tagged.WithTags(map[string]string{"operation": "Poll", "status code": "3"}).Counter("temporal_request").Inc(2)
	}
	tagged.Counter("temporal_request").Inc(-1)
	tagged.Gauge("a.gauge-of mine").Update(1)
	tagged.Gauge("a.gauge-of mine").Update(.5)
	tagged.Gauge("of_two_kinds").Update(1)
	tagged.Counter("of_two_kinds").Inc(1)
	text := scrape(t, m)
	for _, want := range []string{
		`temporal_workflow_task_schedule_to_start_latency_seconds_bucket{le="0.05"}`, `{le="30"}`, "\ntemporal_request 1\n",
		"\ntemporal_request{b=\"no UTF-8: \uFFFD\",operation=\"Poll\",status_code=\"3\"} 4\n", "\ntemporal_request{b=\"no UTF-8: \uFFFD\",operation=\"Start\"} 0\n",
		"\na_gauge_of_mine{b=\"no UTF-8: \uFFFD\",operation=\"Start\"} 0.5\n", "\ncloseout_build_info{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s:\n%s", want, text)
		}
	}
}

func TestBuildIsAMetric(t *testing.T) {
	m := NewMetrics()
	if text := scrape(t, m); !strings.Contains(text, "\ncloseout_build_info{goversion=\"go1.") {
		t.Error(text)
	}
}
