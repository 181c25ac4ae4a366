// Package telemetry makes Closeout's logs and metrics.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"

	"github.com/closeouthq/closeout/webhook"
)

// NewLogger makes a logger that writes lines of text or of JSON.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// Metrics are the metrics of one process. There is no label for a room, a user
// or anything else of which there is no small number.
type Metrics struct {
	registry  *prom.Registry
	provider  *sdkmetric.MeterProvider
	callbacks metric.Int64Counter
	durations metric.Float64Histogram
}

// NewMetrics makes the metrics, with those of the Go runtime and the process.
func NewMetrics() (*Metrics, error) {
	registry := prom.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	m := &Metrics{registry: registry, provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))}
	meter := m.provider.Meter("closeout")
	if m.callbacks, err = meter.Int64Counter("closeout.callbacks",
		metric.WithDescription("Callbacks by event and outcome.")); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	if m.durations, err = meter.Float64Histogram("closeout.callback.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to answer a callback, by outcome."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10)); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	return m, nil
}

// Callback counts an answered callback. Its signature is that of
// [webhook.Options].Observe.
func (m *Metrics) Callback(event string, outcome webhook.Outcome, took time.Duration) {
	o := attribute.String("outcome", string(outcome))
	m.callbacks.Add(context.Background(), 1, metric.WithAttributes(attribute.String("event", event), o))
	m.durations.Record(context.Background(), took.Seconds(), metric.WithAttributes(o))
}

// Temporal takes the metrics of Temporal's SDK.
func (m *Metrics) Temporal() client.MetricsHandler {
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{Meter: m.provider.Meter("temporal")})
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
