// Package telemetry provides logs, metrics and traces. It knows no metric and no span of
// its own: the wiring declares them.
package telemetry

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/probe"
)

// Metrics holds the metrics of one process. Its Factory declares counters and histograms, and panics at an invalid
// declaration. Add 0 to each series of a counter at start, because Prometheus sees growth only after a first value. Never
// use a room or a user as a label: each value is a series that stays in memory here and in Prometheus.
type Metrics struct {
	promauto.Factory
	registry *prometheus.Registry
	temporal temporalMetrics
}

// NewMetrics returns metrics with those of the Go runtime, the process and Temporal's SDK.
func NewMetrics() *Metrics {
	registry := prometheus.NewRegistry()
	m := &Metrics{Factory: promauto.With(registry), registry: registry}
	build := buildinfo.Read()
	m.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "closeout_build_info", Help: "1, labeled with the build of this process.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Commit, "goversion": build.Go},
	}, func() float64 { return 1 })
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &m.temporal)
	return m
}

// Handler serves the metrics to Prometheus. A faulty metric does not suppress the others.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, ErrorHandling: promhttp.ContinueOnError})
}

// Metric describes a gauge.
type Metric struct {
	Name, Help string
	Labels     []string
}

// Set sets a gauge's value for the given label values.
type Set func(gauge string, value float64, values ...string)

// readTimeout bounds a cached read. Prometheus gives up a scrape after 10 s.
const readTimeout = 2 * time.Second

// Gauges declares gauges that are read together at each scrape: read calls set for each known
// value. If every is not 0, they are read at most once per every and with a timeout, so that
// an outage of their source does not delay scrapes.
func (m *Metrics) Gauges(every time.Duration, read func(ctx context.Context, set Set), gauges ...Metric) {
	if every > 0 {
		read = cached(every, read)
	}
	g := &gaugeReader{read: read, descs: map[string]*prometheus.Desc{}}
	for _, d := range gauges {
		g.descs[d.Name] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
	m.registry.MustRegister(g)
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
