package telemetry

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

// temporalBuckets are in seconds. A task usually starts within milliseconds; an alert fires
// if one waits for a minute.
var temporalBuckets = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 3600}

// temporalMetrics holds the metrics of Temporal's SDK and those that steps record with it.
// Their names and tags are unknown until then.
type temporalMetrics struct {
	series sync.Map // from its kind, name and tags to its prometheus.Metric
}

// Describe implements [prometheus.Collector]. Without a description, metrics of one name may
// have different labels.
func (t *temporalMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (t *temporalMetrics) Collect(out chan<- prometheus.Metric) {
	t.series.Range(func(_, series any) bool {
		out <- series.(prometheus.Metric)
		return true
	})
}

// Temporal returns a handler for the metrics of Temporal's SDK.
func (m *Metrics) Temporal() client.MetricsHandler { return temporalHandler{all: &m.temporal} }

// temporalHandler makes metrics with certain tags.
type temporalHandler struct {
	all  *temporalMetrics
	tags prometheus.Labels
	key  string // the tags as text
}

// WithTags implements [client.MetricsHandler].
func (h temporalHandler) WithTags(tags map[string]string) client.MetricsHandler {
	all := prometheus.Labels{}
	maps.Copy(all, h.tags)
	for name, value := range tags {
		all[plain(name)] = strings.ToValidUTF8(value, "\uFFFD")
	}
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		key.WriteString(name + "\xff" + all[name] + "\xff")
	}
	return temporalHandler{h.all, all, key.String()}
}

// Counter implements [client.MetricsHandler].
func (h temporalHandler) Counter(name string) client.MetricsCounter {
	return counter{series(h, "counter", name, func() prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: plain(name), ConstLabels: h.tags})
	})}
}

// Gauge implements [client.MetricsHandler].
func (h temporalHandler) Gauge(name string) client.MetricsGauge {
	return gauge{series(h, "gauge", name, func() prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: plain(name), ConstLabels: h.tags})
	})}
}

// Timer implements [client.MetricsHandler].
func (h temporalHandler) Timer(name string) client.MetricsTimer {
	return timer{series(h, "timer", name, func() prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: plain(name) + "_seconds", ConstLabels: h.tags, Buckets: temporalBuckets})
	})}
}

func series[M prometheus.Metric](h temporalHandler, kind, name string, make func() M) M {
	key := kind + "\xff" + name + "\xff" + h.key
	s, ok := h.all.series.Load(key)
	if !ok {
		s, _ = h.all.series.LoadOrStore(key, make())
	}
	return s.(M)
}

// plain returns a name that Prometheus accepts without quotes.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '_'
	}, name)
}

type counter struct{ prometheus.Counter }

// Inc implements [client.MetricsCounter].
func (c counter) Inc(n int64) { c.Add(max(0, float64(n))) } // less than 0 would panic

type gauge struct{ prometheus.Gauge }

// Update implements [client.MetricsGauge].
func (g gauge) Update(value float64) { g.Set(value) }

type timer struct{ prometheus.Histogram }

// Record implements [client.MetricsTimer].
func (t timer) Record(took time.Duration) { t.Observe(took.Seconds()) }
