// Package telemetry makes Closeout's logs, metrics and traces.
package telemetry

import (
	"context"
	"fmt"
	"math"
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
	"go.temporal.io/sdk/contrib/opentelemetry"

	"github.com/closeouthq/closeout/internal/buildinfo"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Metrics are the metrics of one process. There is no label for a room, a user
// or anything else of which there is no small number: each new value of a label
// is a series that is kept here and in Prometheus, and who may close a room could
// fill both.
type Metrics struct {
	registry   *prom.Registry
	provider   *sdkmetric.MeterProvider
	callbacks  metric.Int64Counter
	durations  metric.Float64Histogram
	fields     metric.Int64Counter
	faults     metric.Int64Counter
	starts     metric.Int64Counter
	writes     metric.Int64Counter
	skew       metric.Float64Histogram
	bills      metric.Int64Counter
	files      metric.Int64Counter
	bytes      metric.Int64Counter
	reconciled metric.Int64Counter
	labels     sync.Map // of callback to labels
}

// temporalScope is the meter of Temporal's SDK. Its latencies are in seconds, of which OpenTelemetry's default buckets have none below
// five: a task is handed out in milliseconds, and one that waits for a minute is what an alert is about.
const temporalScope = "temporal"

var temporalBuckets = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 3600}

// NewMetrics makes the metrics, with those of the Go runtime and the process.
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
	// Nothing shows exemplars, and to choose them takes time at each measurement.
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram, Scope: instrumentation.Scope{Name: temporalScope}},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: temporalBuckets}})))
	m := &Metrics{registry: registry, provider: provider}
	i := m.instruments()
	m.callbacks = i.counter("closeout.callbacks", "Callbacks by event and outcome.")
	m.durations = i.seconds("closeout.callback.duration",
		"Time to answer a callback, by outcome.",
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10))
	m.fields = i.counter("closeout.callback.fields", "Fields of callbacks that could not be read, and whether the callback was refused for it.")
	m.faults = i.counter("closeout.connections.refused", "Connections to the listener for callbacks that brought no request, by what was wrong.")
	m.starts = i.counter("closeout.starts", "Starts of workflows by outcome, and whether the callback came from the inbox.")
	m.writes = i.counter("closeout.usage.writes", "Usage callbacks that were written to the ledger, by outcome, and whether they came from the inbox.")
	m.skew = i.seconds("closeout.callback.skew",
		"Our clock less ZEGO's timestamp, of room_close callbacks that were taken. ZEGO's clock has whole seconds.",
		metric.WithExplicitBucketBoundaries(-300, -60, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 60, 120, 300, 600))
	m.bills = i.counter("closeout.bills", "Bills that were made, that a repeat found made, and that the billing API has taken.")
	m.files = i.counter("closeout.archived.files", "Recordings that were copied to the archive and checked.")
	m.bytes = i.counter("closeout.archived",
		"How large those recordings are together.", metric.WithUnit("By"))
	m.reconciled = i.counter("closeout.sessions.reconciled", "Sessions that were found gone without a room_close and closed out, and those with which something failed, once in each run.")
	return m, i.fault()
}

// Receiver measures by how much ZEGO's clock differs from ours. It has the counts
// of callbacks and starts begin at 0: a count that began with the first one of its
// kind would hide it from whoever looks for growth.
func (m *Metrics) Receiver(next webhook.Receiver) webhook.Receiver {
	for event, outcomes := range webhook.Outcomes() {
		for _, outcome := range outcomes {
			m.callbacks.Add(context.Background(), 0, m.labelsOf(event, outcome).count...)
		}
	}
	for _, fault := range webhook.ConnectionFaults() {
		m.connectionFault(0, fault)
	}
	for _, outcome := range []string{"started", "duplicate", "refused", "failed", "ended", "contradicted"} {
		m.start(0, outcome, false)
		m.start(0, outcome, true)
	}
	return measured{m.skew, next}
}

type measured struct {
	skew metric.Float64Histogram
	webhook.Receiver
}

// Receive implements [webhook.Receiver].
func (i measured) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	skew := time.Since(event.Head().SentAt())
	receipt, err := i.Receiver.Receive(ctx, event)
	if _, closed := event.(*zego.RoomClose); closed && err == nil {
		i.skew.Record(context.Background(), skew.Seconds())
	}
	return receipt, err
}

// Steps has the standard steps counted.
func (m *Metrics) Steps(steps *steps.Standard) {
	bill := func(n int64, outcome string) {
		m.bills.Add(context.Background(), n, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
	for _, outcome := range []string{"made", "found", "restored", "posted", "adjusted"} {
		bill(0, outcome)
	}
	archived := func(files, size int64) {
		m.files.Add(context.Background(), files)
		m.bytes.Add(context.Background(), size)
	}
	archived(0, 0)
	for _, outcome := range []string{"closed_out", "failed"} {
		m.Reconciled(outcome, 0)
	}
	steps.Billing.Observe = func(outcome string) { bill(1, outcome) }
	steps.Recordings.Observe = func(size int64) { archived(1, size) }
}

const (
	// countEvery is how often Temporal is asked for what is blocked, at most, and
	// countWithin how long it may take. Prometheus gives up a scrape after 10 s.
	countEvery  = 30 * time.Second
	countWithin = 2 * time.Second
)

// Fact is what may be unknown.
type Fact[T any] struct {
	value T
	known bool
}

// Known returns a fact, which is unknown if err isn't nil.
func Known[T any](value T, err error) Fact[T] {
	if err != nil {
		return Fact[T]{}
	}
	return Fact[T]{value, true}
}

// Runs is what Temporal says of all runs, the same to each process.
type Runs struct {
	// Blocked is how many wait for a person, and Unset whether that can't be counted, as
	// the namespace lacks the search attributes.
	Blocked Fact[int64]
	Unset   Fact[bool]
	// Stranded is how many tasks wait in the task queue that no poller may take.
	Stranded Fact[int64]
	// OldestOpen is the age that the oldest open run has reached.
	OldestOpen Fact[time.Duration]
}

// Runs has runs looked at when the metrics are read, every 30 s at most. What is
// unknown is missing.
func (m *Metrics) Runs(look func(context.Context) (Runs, error)) error {
	i := m.instruments()
	blocked := i.gauge("closeout.runs.blocked", "Runs that wait for a person, in the whole namespace: the same from each process.")
	unset := i.gauge("closeout.search_attributes.missing", "1 while the namespace lacks Closeout's search attributes, so that blocked runs can't be counted.")
	stranded := i.gauge("closeout.tasks.stranded", "Tasks in the task queue that no worker may take: none polls it, or all are versioned and no version is current.")
	oldest := i.age("closeout.runs.oldest.open.age", "Age that the oldest open run has reached: 0, 1 or 10 minutes, 1 or 6 hours, or 1, 2, 3, 7 or 30 days.")
	look = recently(look)
	i.observe(func(ctx context.Context, o metric.Observer) {
		r, err := look(ctx)
		if err != nil {
			return
		}
		if r.Blocked.known {
			o.ObserveInt64(blocked, r.Blocked.value)
		}
		if r.Unset.known {
			o.ObserveInt64(unset, one(r.Unset.value))
		}
		if r.Stranded.known {
			o.ObserveInt64(stranded, r.Stranded.value)
		}
		if r.OldestOpen.known {
			o.ObserveFloat64(oldest, r.OldestOpen.value.Seconds())
		}
	}, blocked, unset, stranded, oldest)
	return i.fault()
}

// Overdue has the overdue sessions counted when the metrics are read, every 30 s at
// most. While that fails, their number is missing.
func (m *Metrics) Overdue(count func(context.Context) (ledger.Overdues, error)) error {
	i := m.instruments()
	overdue := i.gauge("closeout.sessions.overdue",
		"Open sessions without a sign of life for too long, by whether all participants have left or some may be silent; at most 10,000, in the whole ledger.")
	count = recently(count)
	i.observe(func(ctx context.Context, o metric.Observer) {
		if n, err := count(ctx); err == nil {
			o.ObserveInt64(overdue, n.Left, inState("left"))
			o.ObserveInt64(overdue, n.Silent, inState("silent"))
		}
	}, overdue)
	return i.fault()
}

// recently counts every 30 s at most, and gives the same in between. A failure
// counts: while Temporal is away, not each scrape shall wait for it.
func recently[T any](count func(context.Context) (T, error)) func(context.Context) (T, error) {
	var (
		mu    sync.Mutex
		asked time.Time
		n     T
		err   error
	)
	question := probe.New(countWithin, count)
	return func(ctx context.Context) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) >= countEvery {
			n, err = question.Get(ctx)
			asked = time.Now()
		}
		return n, err
	}
}

// Reconciled counts sessions that were "closed_out" without a room_close, and those
// with which that "failed".
func (m *Metrics) Reconciled(outcome string, sessions int) {
	m.reconciled.Add(context.Background(), int64(sessions), metric.WithAttributes(attribute.String("outcome", outcome)))
}

// Start counts a start. Its outcome is one of "started", "duplicate", "refused",
// "failed" and, of a duplicate that is counted already, "ended".
func (m *Metrics) Start(outcome string, relayed bool) {
	m.start(1, outcome, relayed)
}

func (m *Metrics) start(n int64, outcome string, relayed bool) {
	m.starts.Add(context.Background(), n, metric.WithAttributes(attribute.String("outcome", outcome), attribute.Bool("relayed", relayed)))
}

// Collected counts a usage callback that was delivered to the ledger. The outcome is one of
// "stored", "refused" and "failed".
func (m *Metrics) Collected(outcome string, relayed bool) { m.collected(1, outcome, relayed) }

func (m *Metrics) collected(n int64, outcome string, relayed bool) {
	m.writes.Add(context.Background(), n, metric.WithAttributes(attribute.String("outcome", outcome), attribute.Bool("relayed", relayed)))
}

// Inbox is what is known of an inbox when metrics are asked for.
type Inbox struct {
	// Waiting and SetAside are how many callbacks wait for Temporal or the ledger,
	// and for a person.
	Waiting, SetAside int64
	// Oldest is how long the first of those that don't wait for a person has waited.
	Oldest time.Duration
	// Takes says whether what they wait for takes callbacks, as far as is known.
	Takes bool
	// Limit is how many starts may be in flight, and InFlight how many are. Of the
	// inbox of usage they are 0.
	Limit, InFlight int
}

// Usage has the inbox of usage looked at whenever the metrics are read, as
// [Metrics.Inbox] has the other one.
func (m *Metrics) Usage(look func(context.Context) (Inbox, error)) error {
	for _, outcome := range []string{"stored", "refused", "failed"} {
		m.collected(0, outcome, false)
		m.collected(0, outcome, true)
	}
	i := m.instruments()
	depth := i.gauge("closeout.usage.inbox.depth", "Usage callbacks on the disk, by whether they wait for the ledger or were set aside for a person.")
	age := i.age("closeout.usage.inbox.oldest.age", "How long the oldest usage callback that waits for the ledger has been on the disk; 0 without any.")
	takes := i.gauge("closeout.ledger.takes", "1 while the ledger takes usage, 0 while it didn't take the last of it.")
	i.observe(func(ctx context.Context, o metric.Observer) {
		s, err := look(ctx)
		s.observe(o, err, depth, age, takes)
	}, depth, age, takes)
	return i.fault()
}

// observe tells of what all inboxes have; of their depth and age only without an
// error.
func (s Inbox) observe(o metric.Observer, err error, depth metric.Int64Observable, age metric.Float64Observable, takes metric.Int64Observable) {
	if err == nil {
		o.ObserveInt64(depth, s.Waiting, inState("waiting"))
		o.ObserveInt64(depth, s.SetAside, inState("set_aside"))
		o.ObserveFloat64(age, s.Oldest.Seconds())
	}
	o.ObserveInt64(takes, one(s.Takes))
}

// one is 1 for what holds, and else 0.
func one(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}

// Inbox has the inbox looked at whenever the metrics are read. While it can't be
// read, its depth and age are missing.
func (m *Metrics) Inbox(look func(context.Context) (Inbox, error)) error {
	i := m.instruments()
	depth := i.gauge("closeout.inbox.depth", "Callbacks in the inbox, by whether they wait for Temporal or were set aside for a person.")
	age := i.age("closeout.inbox.oldest.age", "How long the oldest callback that waits for Temporal has been in the inbox; 0 without any.")
	takes := i.gauge("closeout.temporal.takes", "1 while Temporal takes callbacks, 0 while it is left alone after failures.")
	limit := i.gauge("closeout.starts.limit", "How many starts may be in flight, as found out from how long they take.")
	inFlight := i.gauge("closeout.starts.in_flight", "How many starts are in flight.")
	i.observe(func(ctx context.Context, o metric.Observer) {
		s, err := look(ctx)
		s.observe(o, err, depth, age, takes)
		o.ObserveInt64(limit, int64(s.Limit))
		o.ObserveInt64(inFlight, int64(s.InFlight))
	}, depth, age, takes, limit, inFlight)
	return i.fault()
}

// LogDropped reports how many lines of the log were dropped whenever the metrics are read.
func (m *Metrics) LogDropped(dropped func() int64) error {
	i := m.instruments()
	lines, err := i.Int64ObservableCounter("closeout.log.dropped", metric.WithDescription("Lines of the log that were dropped, as nobody read them or writing them failed."))
	i.faults = append(i.faults, err)
	i.observe(func(_ context.Context, o metric.Observer) { o.ObserveInt64(lines, dropped()) }, lines)
	return i.fault()
}

// Disk reports the room on the disk of the inbox whenever the metrics are read. While it is unknown, the metrics are missing.
func (m *Metrics) Disk(look func() (free, size uint64, err error)) error {
	i := m.instruments()
	free := i.bytes("closeout.data.free", "Bytes that CLOSEOUT_DATA's disk has left.")
	size := i.bytes("closeout.data.size", "Bytes that CLOSEOUT_DATA's disk has in all.")
	i.observe(func(_ context.Context, o metric.Observer) {
		if f, s, err := look(); err == nil {
			o.ObserveInt64(free, int64(min(f, math.MaxInt64)))
			o.ObserveInt64(size, int64(min(s, math.MaxInt64)))
		}
	}, free, size)
	return i.fault()
}

// Callback counts an answered callback. Its signature is that of
// [webhook.Options].Observe.
func (m *Metrics) Callback(event string, outcome webhook.Outcome, took time.Duration) {
	l := m.labelsOf(event, outcome)
	m.callbacks.Add(context.Background(), 1, l.count...)
	m.durations.Record(context.Background(), took.Seconds(), l.duration...)
}

// CallbackField counts a field that could not be read. Its signature is that of
// [webhook.Options].ObserveField.
func (m *Metrics) CallbackField(event, field string, refused bool) {
	m.fields.Add(context.Background(), 1, metric.WithAttributes(
		attribute.String("event", event), attribute.String("field", field), attribute.Bool("refused", refused)))
}

// ConnectionFault counts a connection that brought no request. Its signature is that
// of [webhook.ServerOptions].Observe.
func (m *Metrics) ConnectionFault(fault webhook.ConnectionFault) { m.connectionFault(1, fault) }

func (m *Metrics) connectionFault(n int64, fault webhook.ConnectionFault) {
	m.faults.Add(context.Background(), n, metric.WithAttributes(attribute.String("fault", string(fault))))
}

func (m *Metrics) labelsOf(event string, outcome webhook.Outcome) labels {
	key := callback{event, outcome}
	known, ok := m.labels.Load(key)
	if !ok {
		o := attribute.String("outcome", string(outcome))
		known, _ = m.labels.LoadOrStore(key, labels{
			[]metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("event", event), o))},
			[]metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(o))},
		})
	}
	return known.(labels)
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
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{Meter: m.provider.Meter(temporalScope)})
}

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
