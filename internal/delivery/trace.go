package delivery

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// traceOf returns the traceparent of ctx, or "" without one.
func traceOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// withTrace returns ctx with the traceparent of a queued callback.
func withTrace(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent})
}
