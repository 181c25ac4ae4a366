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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/probe"
)

// Metrics are the metrics of one process. Labels have few values, because each new one
// is a series that is kept here and in Prometheus: none is a room or a user.
type Metrics struct {
	registry *prometheus.Registry
	temporal temporalMetrics
	faults   []error
}

// NewMetrics returns metrics with those of the Go runtime, the process and Temporal's SDK.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	build := buildinfo.Read()
	m.register(collectors.NewGoCollector())
	m.register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "closeout_build_info", Help: "1, labeled with the build of this process.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Commit, "goversion": build.Go},
	}, func() float64 { return 1 }))
	m.register(&m.temporal)
	return m
}

func (m *Metrics) register(c prometheus.Collector) {
	m.faults = append(m.faults, m.registry.Register(c))
}

// Handler serves the metrics to Prometheus. A metric that is at fault doesn't keep the
// others from it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, ErrorHandling: promhttp.ContinueOnError})
}

// Err returns the errors of all metrics that were declared.
func (m *Metrics) Err() error {
	if err := errors.Join(m.faults...); err != nil {
		return fmt.Errorf("make metrics: %w", err)
	}
	return nil
}

// Metric describes a metric.
type Metric struct {
	Name, Help string
	Labels     []string
}

// Counter counts.
type Counter struct{ vec *prometheus.CounterVec }

// Counter declares a counter.
func (m *Metrics) Counter(d Metric) Counter {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
	m.register(c)
	return Counter{c}
}

// Add adds n to the series with these values of the labels. Add 0 to each series when
// the process starts: growth shows only from a first value.
func (c Counter) Add(n int64, values ...string) { c.vec.WithLabelValues(values...).Add(float64(n)) }

// Histogram measures durations.
type Histogram struct{ vec *prometheus.HistogramVec }

// Histogram declares a histogram of seconds with these bounds of its buckets.
func (m *Metrics) Histogram(d Metric, bounds ...float64) Histogram {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: bounds}, d.Labels)
	m.register(h)
	return Histogram{h}
}

// Record adds a measurement to the series with these values of the labels.
func (h Histogram) Record(took time.Duration, values ...string) {
	h.vec.WithLabelValues(values...).Observe(took.Seconds())
}

// CounterFunc declares a counter that is read whenever the metrics are.
func (m *Metrics) CounterFunc(d Metric, read func() int64) {
	m.register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, func() float64 { return float64(read()) }))
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
	if every > 0 {
		read = cached(every, read)
	}
	g := &gaugeReader{read: read, descs: map[string]*prometheus.Desc{}}
	for _, d := range gauges {
		g.descs[d.Name] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
	m.register(g)
}

// gaugeReader reads gauges when Prometheus does.
type gaugeReader struct {
	read  func(ctx context.Context, set Set)
	descs map[string]*prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (g *gaugeReader) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range g.descs {
		out <- desc
	}
}

// Collect implements [prometheus.Collector].
func (g *gaugeReader) Collect(out chan<- prometheus.Metric) {
	g.read(context.Background(), func(gauge string, value float64, values ...string) {
		out <- prometheus.MustNewConstMetric(g.descs[gauge], prometheus.GaugeValue, value, values...)
	})
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
