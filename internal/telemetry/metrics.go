// Package telemetry provides logs, metrics and traces. It knows no metric and no span of
// its own: the wiring declares them.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.temporal.io/sdk/client"

	// The version of this package for OpenTelemetry's v2 API is not stable yet.
	"go.temporal.io/sdk/contrib/opentelemetry"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/probe"
)

// Metrics are the metrics of one process. Labels have few values, because each new one
// is a series that is kept here and in Prometheus: none is a room or a user.
type Metrics struct {
	registry *prom.Registry
	provider *sdkmetric.MeterProvider
	meter    metric.Meter
	faults   []error
}

// temporalScope is the meter of Temporal's SDK. Its latencies are in seconds, and
// OpenTelemetry's default buckets have none below five: a task is handed out in
// milliseconds, and one that waits for a minute is what an alert is about.
const temporalScope = "temporal"

var temporalBuckets = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 3600}

// NewMetrics returns metrics with those of the Go runtime and the process.
func NewMetrics() (*Metrics, error) {
	registry := prom.NewRegistry()
	build := buildinfo.Read()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prom.NewGaugeFunc(prom.GaugeOpts{
			Name: "closeout_build_info", Help: "1, labeled with the build of this process.",
			ConstLabels: prom.Labels{"version": build.Version, "revision": build.Commit, "goversion": build.Go},
		}, func() float64 { return 1 }))
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	// Nothing shows exemplars, and choosing them takes time at each measurement.
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram, Scope: instrumentation.Scope{Name: temporalScope}},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: temporalBuckets}})))
	return &Metrics{registry: registry, provider: provider, meter: provider.Meter("closeout")}, nil
}

// Temporal returns a handler for the metrics of Temporal's SDK.
func (m *Metrics) Temporal() client.MetricsHandler {
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{Meter: m.provider.Meter(temporalScope)})
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Err returns the errors of all metrics that were declared.
func (m *Metrics) Err() error {
	if err := errors.Join(m.faults...); err != nil {
		return fmt.Errorf("make metrics: %w", err)
	}
	return nil
}

// Metric describes a metric. The unit is empty, "s" or "By".
type Metric struct {
	Name, Unit, Help string
	Labels           []string
}

// Counter counts.
type Counter struct {
	counter metric.Int64Counter
	labels  labels
}

// Counter declares a counter.
func (m *Metrics) Counter(d Metric) *Counter {
	c, err := m.meter.Int64Counter(d.Name, metric.WithDescription(d.Help), metric.WithUnit(d.Unit))
	m.faults = append(m.faults, err)
	return &Counter{c, labels{names: d.Labels}}
}

// Add adds n to the series with these values of the labels. Add 0 to each series when
// the process starts: growth shows only from a first value.
func (c *Counter) Add(n int64, values ...string) {
	c.counter.Add(context.Background(), n, c.labels.with(values))
}

// Histogram measures durations.
type Histogram struct {
	histogram metric.Float64Histogram
	labels    labels
}

// Histogram declares a histogram with these bounds of its buckets.
func (m *Metrics) Histogram(d Metric, bounds ...float64) *Histogram {
	h, err := m.meter.Float64Histogram(d.Name, metric.WithDescription(d.Help), metric.WithUnit(d.Unit), metric.WithExplicitBucketBoundaries(bounds...))
	m.faults = append(m.faults, err)
	return &Histogram{h, labels{names: d.Labels}}
}

// Record adds a measurement to the series with these values of the labels.
func (h *Histogram) Record(took time.Duration, values ...string) {
	h.histogram.Record(context.Background(), took.Seconds(), h.labels.with(values))
}

// labels caches the sets of a metric's labels.
type labels struct {
	names []string
	sets  sync.Map // from [maxLabels]string to metric.MeasurementOption
}

const maxLabels = 3

func (l *labels) with(values []string) metric.MeasurementOption {
	var key [maxLabels]string
	copy(key[:], values)
	if set, ok := l.sets.Load(key); ok {
		return set.(metric.MeasurementOption)
	}
	attributes := make([]attribute.KeyValue, len(values))
	for i, value := range values {
		attributes[i] = attribute.String(l.names[i], value)
	}
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	l.sets.Store(key, set)
	return set
}

// Set reports a gauge's value for these values of its labels.
type Set func(gauge string, value float64, values ...string)

// readTimeout bounds a cached read. Prometheus gives up a scrape after 10 s.
const readTimeout = 2 * time.Second

// Gauges declares gauges that are read together whenever the metrics are: read calls set
// for each, or leaves out one that is unknown. If every isn't 0, the values are read at
// most that often, and with a timeout, whether or not that failed: an outage of what
// they are read from must not hold up each scrape.
func (m *Metrics) Gauges(every time.Duration, read func(ctx context.Context, set Set), gauges ...Metric) {
	byName := map[string]metric.Float64ObservableGauge{}
	var all []metric.Observable
	names := map[string][]string{}
	for _, d := range gauges {
		g, err := m.meter.Float64ObservableGauge(d.Name, metric.WithDescription(d.Help), metric.WithUnit(d.Unit))
		m.faults = append(m.faults, err)
		byName[d.Name], names[d.Name], all = g, d.Labels, append(all, g)
	}
	if every > 0 {
		read = cached(every, read)
	}
	_, err := m.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		read(ctx, func(gauge string, value float64, values ...string) {
			attributes := make([]attribute.KeyValue, len(values))
			for i, v := range values {
				attributes[i] = attribute.String(names[gauge][i], v)
			}
			o.ObserveFloat64(byName[gauge], value, metric.WithAttributes(attributes...))
		})
		return nil
	}, all...)
	m.faults = append(m.faults, err)
}

// sample is one call of a Set.
type sample struct {
	gauge  string
	value  float64
	values []string
}

func cached(every time.Duration, read func(context.Context, Set)) func(context.Context, Set) {
	var (
		mu      sync.Mutex
		last    time.Time
		samples []sample
	)
	asked := probe.New(readTimeout, func(ctx context.Context) (samples []sample, _ error) {
		read(ctx, func(gauge string, value float64, values ...string) {
			samples = append(samples, sample{gauge, value, values})
		})
		return samples, nil
	})
	return func(ctx context.Context, set Set) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) >= every {
			samples, _ = asked.Get(ctx)
			last = time.Now()
		}
		for _, s := range samples {
			set(s.gauge, s.value, s.values...)
		}
	}
}

// CounterFunc declares a counter that is read whenever the metrics are.
func (m *Metrics) CounterFunc(d Metric, read func() int64) {
	_, err := m.meter.Int64ObservableCounter(d.Name, metric.WithDescription(d.Help), metric.WithUnit(d.Unit),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(read()); return nil }))
	m.faults = append(m.faults, err)
}
