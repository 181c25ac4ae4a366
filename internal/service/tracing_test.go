package service

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// A callback's span has the event, the outcome and the HTTP status. It doesn't continue the
// sender's trace.
func TestCallbacksAreTraced(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	common := zego.Common{Event: zego.EventRoomClose, AppID: 1}
	closed := &zego.RoomClose{Common: common, RoomSessionID: 5}
	take := func(event zego.Event, receipt webhook.Status, err error) http.HandlerFunc {
		in := observed{received(func() (webhook.Receipt, error) { return webhook.Receipt{Status: receipt}, err }), newMetrics().skew}
		return func(w http.ResponseWriter, r *http.Request) {
			if _, err := in.Receive(r.Context(), event); err != nil {
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
		{"taken", webhook.Path, take(closed, webhook.Started, nil), "room_close", "started", 200},
		{"not taken", webhook.Path + "/t0ken", take(closed, "", errors.New("no room")), "room_close", "unavailable", 503},
		{"of no use", webhook.Path, take(&zego.Other{Common: common}, webhook.Ignored, nil), "other", "ignored", 200},
		{"refused", webhook.Path, status(401), "", "refused", 401},
		{"genuine and refused", webhook.Path, take(&zego.Unreadable{Common: common}, webhook.Stored, nil), "", "refused", 200},
		{"too many large ones", webhook.Path, status(503), "", "refused", 503},
	}
	for _, tt := range tests {
		exporter.Reset()
		r := httptest.NewRequest(http.MethodPost, tt.path, nil)
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		traceCallbacks(provider.Tracer("test"), tt.handler).ServeHTTP(httptest.NewRecorder(), r)
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
	traceCallbacks(provider.Tracer("test"), status(200)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, webhook.HooksPath+"/x", nil))
	if len(exporter.GetSpans()) != spans {
		t.Error("a hook was traced as a callback")
	}
}

// A body that is too large ends its connection, even if callbacks are traced.
func TestTooLargeBodyEndsItsConnection(t *testing.T) {
	provider := sdktrace.NewTracerProvider()
	w := httptest.NewRecorder()
	traceCallbacks(provider.Tracer("test"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })).
		ServeHTTP(w, httptest.NewRequest(http.MethodPost, webhook.Path, nil))
	if w.Result().Header.Get("Connection") != "close" {
		t.Error("the connection stays open")
	}
}
