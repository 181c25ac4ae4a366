package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tlog "go.temporal.io/sdk/log"

	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Whoever writes a line about a run, it names the workflow and the session, once
// each.
func TestLinesAboutARunNameItsSession(t *testing.T) {
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

func newMetrics(t *testing.T) *Metrics {
	t.Helper()
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Temporal is asked how many runs are blocked when somebody wants to know, and not
// more often than it has to be.
func TestBlockedRunsAreCountedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t)
		asked, blocked, away := 0, int64(3), error(nil)
		if err := m.Runs(func(ctx context.Context) (Runs, error) {
			asked++
			if d, limited := ctx.Deadline(); !limited || time.Until(d) > countWithin {
				t.Errorf("it may take until %v", d)
			}
			return Runs{Blocked: Known(blocked, away)}, nil
		}); err != nil {
			t.Fatal(err)
		}
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
			t.Error("asked though nobody wants to know")
		}
		read(0, 1, "\ncloseout_runs_blocked 3\n")
		blocked = 4
		read(29*time.Second, 1, "\ncloseout_runs_blocked 3\n")
		read(time.Second, 2, "\ncloseout_runs_blocked 4\n")
		away = errors.New("away")
		read(30*time.Second, 3, "")
		read(29*time.Second, 3, "")
		away = nil
		read(time.Second, 4, "\ncloseout_runs_blocked 4\n")
	})
}

// keeper is a receiver.
type keeper func(ctx context.Context) (webhook.Receipt, error)

func (k keeper) Receive(ctx context.Context, _ zego.Event) (webhook.Receipt, error) {
	return k(ctx)
}

func TestSkewIsOfTakenCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t)
		var fails error
		in := m.Receiver(keeper(func(context.Context) (webhook.Receipt, error) { return webhook.Receipt{}, fails }))
		for _, behind := range []time.Duration{3 * time.Second, -time.Minute} {
			_, _ = in.Receive(t.Context(), &zego.RoomClose{Common: zego.Common{Timestamp: time.Now().Add(-behind).Unix()}})
		}
		fails = errors.New("no room")
		if _, err := in.Receive(t.Context(), &zego.RoomClose{}); !errors.Is(err, fails) {
			t.Error(err)
		}
		text := scrape(t, m)
		for _, want := range []string{`_bucket{le="-300"} 0`, `_bucket{le="-60"} 1`, `_bucket{le="2"} 1`, `_bucket{le="5"} 2`, `_count 2`} {
			if !strings.Contains(text, "closeout_callback_skew_seconds"+want+"\n") {
				t.Errorf("no %s in:\n%s", want, text[:strings.Index(text, "# HELP go_")])
			}
		}
	})
}

// The first of a kind would not be seen as growth if its count began with it.
func TestCountsBeginAtZero(t *testing.T) {
	m := newMetrics(t)
	m.Receiver(nil)
	m.Steps(&steps.Standard{Billing: &steps.Billing{}, Recordings: &steps.Recordings{}})
	text := scrape(t, m)
	for _, want := range []string{
		`closeout_callbacks_total{event="room_close",outcome="unavailable"}`, `closeout_callbacks_total{event="",outcome="bad_signature"}`,
		`closeout_callbacks_total{event="other",outcome="ignored"}`, `closeout_starts_total{outcome="failed",relayed="true"}`,
		`closeout_bills_total{outcome="found"}`, `closeout_archived_files_total`, `closeout_archived_bytes_total`,
	} {
		if !strings.Contains(text, "\n"+want+" 0\n") {
			t.Errorf("no %s", want)
		}
	}
}

// Where there are no traces, nothing is between the webhook, the intake and
// Temporal that could make one.
func TestWithoutTracesNothingIsInTheWay(t *testing.T) {
	var none *Traces
	handler, in, log := http.NotFoundHandler(), &keeping{}, slog.New(slog.DiscardHandler)
	if got := none.Callbacks(handler); reflect.ValueOf(got).Pointer() != reflect.ValueOf(handler).Pointer() {
		t.Errorf("the handler is a %T", got)
	}
	if got := none.Receiver(in); got != webhook.Receiver(in) {
		t.Errorf("the receiver is a %T", got)
	}
	if got := none.Logger(log); got != log {
		t.Error("another logger")
	}
	if got, err := none.Temporal(nil); got != nil || err != nil {
		t.Errorf("interceptors %v, %v", got, err)
	}
	none.Close()
}

type keeping struct{ keeper }

// What a callback's span says of it.
func TestCallbacksAreTraced(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	traces := &Traces{provider: provider, tracer: provider.Tracer("test")}
	closed := &zego.RoomClose{Common: zego.Common{AppID: 1, Event: zego.EventRoomClose}, RoomSessionID: 5}
	take := func(receipt webhook.Status, err error) http.HandlerFunc {
		in := traces.Receiver(keeper(func(context.Context) (webhook.Receipt, error) {
			return webhook.Receipt{Status: receipt}, err
		}))
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := in.Receive(r.Context(), closed); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	tests := []struct {
		name           string
		path           string
		handler        http.HandlerFunc
		event, outcome string
		status         int64
	}{
		{"taken", webhook.Path, take(webhook.Started, nil), "room_close", "started", 200},
		{"not taken", webhook.Path + "/t0ken", take("", errors.New("no room")), "room_close", "unavailable", 503},
		{"of no use", webhook.Path, status(200), "other", "ignored", 200},
		{"refused", webhook.Path, status(401), "", "refused", 401},
		{"too many large ones", webhook.Path, status(503), "", "refused", 503},
	}
	for _, tt := range tests {
		exporter.Reset()
		r := httptest.NewRequest(http.MethodPost, tt.path, nil)
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		traces.Callbacks(tt.handler).ServeHTTP(httptest.NewRecorder(), r)
		spans := exporter.GetSpans()
		if len(spans) != 1 || spans[0].Parent.IsValid() {
			t.Fatalf("%s: spans %v", tt.name, spans)
		}
		want := []attribute.KeyValue{attribute.String("event", tt.event), attribute.String("outcome", tt.outcome), attribute.Int64("http.response.status_code", tt.status)}
		if !reflect.DeepEqual(spans[0].Attributes, want) {
			t.Errorf("%s: %v, want %v", tt.name, spans[0].Attributes, want)
		}
	}

	spans := len(exporter.GetSpans())
	traces.Callbacks(status(200)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, webhook.HooksPath+"/x", nil))
	if len(exporter.GetSpans()) != spans {
		t.Error("a hook was traced as a callback")
	}
}

// A body that is too large ends its connection, with traces as without.
func TestATooLargeBodyEndsItsConnection(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	traces := &Traces{provider: provider, tracer: provider.Tracer("test")}
	w := httptest.NewRecorder()
	traces.Callbacks(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })).
		ServeHTTP(w, httptest.NewRequest(http.MethodPost, webhook.Path, nil))
	if w.Result().Header.Get("Connection") != "close" {
		t.Error("it goes on")
	}
}

// A line that is about what is traced names the trace.
func TestLinesNameTheirTrace(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	traces := &Traces{provider: provider, tracer: provider.Tracer("test")}
	var out strings.Builder
	log := traces.Logger(NewLogger(&out, slog.LevelInfo, false)).With("a", 1)
	log.Info("m")
	ctx, span := traces.tracer.Start(t.Context(), "callback")
	log.InfoContext(ctx, "n")
	if want := "msg=n a=1 trace_id=" + span.SpanContext().TraceID().String() + " span_id=" + span.SpanContext().SpanID().String() + "\n"; !strings.HasSuffix(out.String(), want) || strings.Count(out.String(), "trace_id") != 1 {
		t.Errorf("%s", &out)
	}
}
