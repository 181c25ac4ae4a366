package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// serviceVersion is OpenTelemetry's name for the program's version, in traces and in lines of JSON.
const serviceVersion = "service.version"

// lastExport is how long a stop waits for the spans that are not exported yet.
const lastExport = 3 * time.Second

// Traces are the traces of one process. Where there are none it is nil, and then
// each method gives back what it was given: what isn't traced pays nothing.
type Traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	log      *slog.Logger
}

// NewTraces makes traces that are exported by OTLP over HTTP, as OpenTelemetry's
// variables say. A collector that is away holds up nothing; log hears of it.
func NewTraces(ctx context.Context, log *slog.Logger) (*Traces, error) {
	var told atomic.Int64 // in Unix nanoseconds
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		// A busy process exports several times a second.
		now, last := time.Now().UnixNano(), told.Load()
		if now-last > int64(time.Minute) && told.CompareAndSwap(last, now) {
			log.Warn("traces are not exported", "error", err)
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
	return &Traces{provider: provider, tracer: provider.Tracer("closeout"), log: log}, nil
}

// Close exports what wasn't yet, for a moment.
func (t *Traces) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastExport)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last traces are not exported", "error", err)
	}
}

// Temporal adds to a client's interceptors the one that traces starts, workflows,
// activities, signals and updates, and hands the trace on from one to the next.
func (t *Traces) Temporal(others []interceptor.ClientInterceptor) ([]interceptor.ClientInterceptor, error) {
	if t == nil {
		return others, nil
	}
	ours, err := opentelemetry.NewTracingInterceptor(opentelemetry.TracerOptions{Tracer: t.tracer, DisableQueryTracing: true})
	if err != nil {
		return nil, fmt.Errorf("trace Temporal's client: %w", err)
	}
	return append(others[:len(others):len(others)], ours), nil
}

// Callbacks traces callbacks. A span says of which event it is and what became of
// it: what was refused isn't ZEGO's word, and so it is "refused" and no more. A
// trace of the sender's is not gone on with, as anybody could send one.
func (t *Traces) Callbacks(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, webhook.Path) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, span := t.tracer.Start(r.Context(), "callback", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		a := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(a, r.WithContext(context.WithValue(ctx, answerKey{}, a)))
		switch {
		case a.outcome != "": // the intake's
		case a.status == http.StatusOK:
			a.event, a.outcome = "other", string(webhook.Ignored)
		default:
			a.outcome = "refused"
		}
		span.SetAttributes(attribute.String("event", a.event), attribute.String("outcome", a.outcome), attribute.Int("http.response.status_code", a.status))
	})
}

type answerKey struct{}

// answer remembers what a callback is answered, and what the intake said of it.
type answer struct {
	http.ResponseWriter
	status         int
	event, outcome string
}

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	a.status = status
	if status == http.StatusRequestEntityTooLarge {
		a.Header().Set("Connection", "close") // as [http.MaxBytesReader] does where it knows the writer
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Receiver notes in the span of a callback what became of it.
func (t *Traces) Receiver(next webhook.Receiver) webhook.Receiver {
	if t == nil {
		return next
	}
	return tracedReceiver{next}
}

type tracedReceiver struct{ next webhook.Receiver }

// Receive implements [webhook.Receiver].
func (r tracedReceiver) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	receipt, err := r.next.Receive(ctx, event)
	answered(ctx, event, receipt, err)
	return receipt, err
}

// answered notes what became of a callback, for its span.
func answered(ctx context.Context, event zego.Event, receipt webhook.Receipt, err error) {
	switch event.(type) {
	case *zego.Other, *zego.Unreadable: // one has a free name, the other was refused
		return
	}
	outcome := string(receipt.Status)
	if err != nil {
		outcome = string(webhook.Unavailable)
		trace.SpanFromContext(ctx).SetStatus(codes.Error, err.Error())
	}
	if a, ok := ctx.Value(answerKey{}).(*answer); ok {
		a.event, a.outcome = event.Head().Event, outcome
	}
}
