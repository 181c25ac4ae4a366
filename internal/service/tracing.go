package service

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// traceCallbacks traces callbacks. A span has the event and the outcome. For a refused callback it
// has only the outcome, because its content is not trusted. For the same reason, the sender's
// trace is not continued.
func traceCallbacks(tracer trace.Tracer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, webhook.Path) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, span := tracer.Start(r.Context(), "callback", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(a, r.WithContext(context.WithValue(ctx, answerKey{}, a)))
		if a.outcome == "" {
			a.outcome = "refused"
		}
		span.SetAttributes(attribute.String("event", a.event), attribute.String("outcome", a.outcome), attribute.Int("http.response.status_code", a.status))
	})
}

type answerKey struct{}

// answer records the answer to a callback, and the receiver's outcome.
type answer struct {
	http.ResponseWriter
	status         int
	event, outcome string
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	a.status = status
	if status == http.StatusRequestEntityTooLarge {
		a.Header().Set("Connection", "close") // as [http.MaxBytesReader] does for a writer it knows
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// observed measures the difference between ZEGO's clock and ours, and records the outcome of each callback for its span.
type observed struct {
	webhook.Receiver
	skew prometheus.Observer
}

// Receive implements [webhook.Receiver].
func (o observed) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	skew := time.Since(event.Head().SentAt())
	receipt, err := o.Receiver.Receive(ctx, event)
	if _, closed := event.(*zego.RoomClose); closed && err == nil {
		o.skew.Observe(skew.Seconds())
	}
	a, ok := ctx.Value(answerKey{}).(*answer)
	if !ok {
		return receipt, err
	}
	a.event, a.outcome = event.Head().Event, string(receipt.Status)
	switch event.(type) {
	case *zego.Unreadable:
		a.event, a.outcome = "", "" // it was refused
		return receipt, err
	case *zego.Other:
		a.event = "other"
	}
	if err != nil {
		a.outcome = string(webhook.Unavailable)
		trace.SpanFromContext(ctx).SetStatus(codes.Error, err.Error())
	}
	return receipt, err
}
