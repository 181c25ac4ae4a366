package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"

	"github.com/closeouthq/closeout/internal/buildinfo"
)

// serviceVersion is OpenTelemetry's attribute for the program's version.
const serviceVersion = "service.version"

// lastExport bounds the export of the last spans at a stop.
const lastExport = 3 * time.Second

// Traces are the traces of one process.
type Traces struct {
	// Tracer begins spans.
	Tracer trace.Tracer

	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// NewTraces returns traces that are exported by OTLP over HTTP, as OpenTelemetry's variables
// say. An outage of the collector is logged and delays nothing.
func NewTraces(ctx context.Context, log *slog.Logger) (*Traces, error) {
	var logged atomic.Int64 // Unix nanoseconds
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		// A busy process exports several times a second.
		now, last := time.Now().UnixNano(), logged.Load()
		if now-last > int64(time.Minute) && logged.CompareAndSwap(last, now) {
			log.Warn("traces not exported", "error", err)
		}
	}))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_*: make an exporter of traces: %w", err)
	}
	of, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "closeout"), attribute.String(serviceVersion, buildinfo.Read().Version)),
		resource.WithFromEnv()) // the last one wins
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(of))
	return &Traces{Tracer: provider.Tracer("closeout"), provider: provider, log: log}, nil
}

// Close exports the remaining spans, for at most three seconds.
func (t *Traces) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastExport)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("last traces not exported", "error", err)
	}
}

// Interceptor returns an interceptor of Temporal's client that traces starts,
// Workflows, Activities, Signals and Updates, and passes the trace from one to the
// next.
func (t *Traces) Interceptor() (interceptor.ClientInterceptor, error) {
	i, err := opentelemetry.NewTracingInterceptor(opentelemetry.TracerOptions{Tracer: t.Tracer, DisableQueryTracing: true})
	if err != nil {
		return nil, fmt.Errorf("trace Temporal's client: %w", err)
	}
	return i, nil
}
