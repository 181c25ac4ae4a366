package delivery

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// traceOf returns the trace of a callback as the inbox keeps it; empty without one.
func traceOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// withTrace returns ctx with the trace of a callback that was queued.
func withTrace(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}
