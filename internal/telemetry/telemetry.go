// Package telemetry makes Closeout's logs and metrics.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
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
	starts    metric.Int64Counter
	labels    sync.Map // of callback to labels
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
	if m.starts, err = meter.Int64Counter("closeout.starts",
		metric.WithDescription("Starts of workflows by outcome, and whether the callback came from the inbox.")); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	return m, nil
}

// Start counts a start. Its outcome is one of "started", "duplicate", "refused"
// and "failed".
func (m *Metrics) Start(outcome string, relayed bool) {
	m.starts.Add(context.Background(), 1, metric.WithAttributes(attribute.String("outcome", outcome), attribute.Bool("relayed", relayed)))
}

// Inbox is what is known of an inbox when metrics are asked for.
type Inbox struct {
	// Waiting and SetAside are how many callbacks wait for Temporal, and for a
	// person.
	Waiting, SetAside int64
	// Oldest is how long the first of those that wait for Temporal has waited.
	Oldest time.Duration
	// Takes says whether Temporal takes callbacks, as far as is known.
	Takes bool
	// Limit is how many starts may be in flight, and InFlight how many are.
	Limit, InFlight int
}

// Inbox has the inbox looked at whenever the metrics are read. While it can't be
// read, its depth and age are missing.
func (m *Metrics) Inbox(look func(context.Context) (Inbox, error)) error {
	meter := m.provider.Meter("closeout")
	var faults []error
	gauge := func(name, description string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(description))
		faults = append(faults, err)
		return g
	}
	depth := gauge("closeout.inbox.depth", "Callbacks in the inbox, by whether they wait for Temporal or were set aside for a person.")
	age, err := meter.Float64ObservableGauge("closeout.inbox.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest callback that waits for Temporal has been in the inbox; 0 without any."))
	faults = append(faults, err)
	takes := gauge("closeout.temporal.takes", "1 while Temporal takes callbacks, 0 while it is left alone after failures.")
	limit := gauge("closeout.starts.limit", "How many starts may be in flight, as found out from how long they take.")
	inFlight := gauge("closeout.starts.in_flight", "How many starts are in flight.")
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		s, err := look(ctx)
		if err == nil {
			o.ObserveInt64(depth, s.Waiting, metric.WithAttributes(attribute.String("state", "waiting")))
			o.ObserveInt64(depth, s.SetAside, metric.WithAttributes(attribute.String("state", "set_aside")))
			o.ObserveFloat64(age, s.Oldest.Seconds())
		}
		up := int64(0)
		if s.Takes {
			up = 1
		}
		o.ObserveInt64(takes, up)
		o.ObserveInt64(limit, int64(s.Limit))
		o.ObserveInt64(inFlight, int64(s.InFlight))
		return nil // the other metrics are as good as ever
	}, depth, age, takes, limit, inFlight)
	if err := errors.Join(append(faults, err)...); err != nil {
		return fmt.Errorf("make metrics: %w", err)
	}
	return nil
}

// Callback counts an answered callback. Its signature is that of
// [webhook.Options].Observe.
func (m *Metrics) Callback(event string, outcome webhook.Outcome, took time.Duration) {
	key := callback{event, outcome}
	known, ok := m.labels.Load(key)
	if !ok {
		o := attribute.String("outcome", string(outcome))
		known, _ = m.labels.LoadOrStore(key, labels{
			[]metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("event", event), o))},
			[]metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(o))},
		})
	}
	l := known.(labels)
	m.callbacks.Add(context.Background(), 1, l.count...)
	m.durations.Record(context.Background(), took.Seconds(), l.duration...)
}

// callback and labels spare each callback the making of its labels. There are
// some dozens of them.
type callback struct {
	event   string
	outcome webhook.Outcome
}

type labels struct {
	count    []metric.AddOption
	duration []metric.RecordOption
}

// Temporal takes the metrics of Temporal's SDK.
func (m *Metrics) Temporal() client.MetricsHandler {
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{Meter: m.provider.Meter("temporal")})
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
