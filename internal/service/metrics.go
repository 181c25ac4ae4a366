package service

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/internal/telemetry"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// metrics connects what the parts report to the metrics of the process.
type metrics struct {
	*telemetry.Metrics
	callbacks, fields, implausible, faults, starts, writes *prometheus.CounterVec
	bills, reconciled, sweeps                              *prometheus.CounterVec
	files, bytes                                           prometheus.Counter
	durations                                              *prometheus.HistogramVec
	skew                                                   prometheus.Histogram
}

// readEvery is the least time between reads of Temporal and the ledger for metrics.
const readEvery = 30 * time.Second

func newMetrics() *metrics {
	t := telemetry.NewMetrics()
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return t.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		Metrics:   t,
		callbacks: counter("closeout_callbacks_total", "Callbacks by event and outcome.", "event", "outcome"),
		fields: counter("closeout_callback_fields_total", "Fields of callbacks that could not be read, and whether the callback was refused for it.",
			"event", "field", "refused"),
		implausible: counter("closeout_callbacks_implausible_total", "Callbacks with an implausible time: after they were sent, or too long before.", "event"),
		faults:      counter("closeout_connections_refused_total", "Connections to the listener for callbacks without a request, by fault.", "fault"),
		starts:      counter("closeout_starts_total", "Starts of Workflows, by outcome and whether the callback came from the inbox.", "outcome", "relayed"),
		writes:      counter("closeout_event_writes_total", "Callbacks of participants written to the ledger, by outcome and whether they came from the inbox.", "outcome", "relayed"),
		bills:       counter("closeout_bills_total", "Bills, by outcome: made, found by a repeat, restored, adjusted, posted to the billing API.", "outcome"),
		files:       t.NewCounter(prometheus.CounterOpts{Name: "closeout_archived_files_total", Help: "Recordings copied to the archive and verified."}),
		bytes:       t.NewCounter(prometheus.CounterOpts{Name: "closeout_archived_bytes_total", Help: "Size of those recordings."}),
		reconciled:  counter("closeout_sessions_reconciled_total", "Sessions closed out without a room_close, or failed, once per run.", "outcome"),
		sweeps:      counter("closeout_sweeps_total", "Queries of ZEGO's APIs, one per app: of recordings or usage, ok or failed.", "of", "outcome"),
		durations: t.NewHistogramVec(prometheus.HistogramOpts{Name: "closeout_callback_duration_seconds", Help: "Time to answer a callback, by outcome.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10}}, []string{"outcome"}),
		skew: t.NewHistogram(prometheus.HistogramOpts{Name: "closeout_callback_skew_seconds", Help: "Our clock less ZEGO's timestamp, of accepted room_close callbacks. ZEGO sends whole seconds.",
			Buckets: []float64{-300, -60, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 60, 120, 300, 600}}),
	}
}

// webhookStarts sets the counters of a webhook to 0.
func (m *metrics) webhookStarts() {
	for event, outcomes := range webhook.Outcomes() {
		for _, outcome := range outcomes {
			m.callbacks.WithLabelValues(event, string(outcome))
		}
	}
	for _, event := range []string{zego.EventRoomCreate, zego.EventRoomLogin, zego.EventRoomLogout, zego.EventStreamCreate, zego.EventStreamClose} {
		m.implausible.WithLabelValues(event)
	}
	for _, fault := range webhook.ConnectionFaults() {
		m.faults.WithLabelValues(string(fault))
	}
	for _, relayed := range []string{"false", "true"} {
		for _, outcome := range []string{"started", "signaled", "duplicate", "ignored", "refused", "failed", "ended", "contradicted"} {
			m.starts.WithLabelValues(outcome, relayed)
		}
		for _, outcome := range []string{"stored", "refused", "failed"} {
			m.writes.WithLabelValues(outcome, relayed)
		}
	}
}

// callback counts an answered request; see [webhook.Options].
func (m *metrics) callback(event string, outcome webhook.Outcome, took time.Duration) {
	m.callbacks.WithLabelValues(event, string(outcome)).Inc()
	m.durations.WithLabelValues(string(outcome)).Observe(took.Seconds())
}

// field counts a field that could not be read; see [webhook.Options].
func (m *metrics) field(event, field string, refused bool) {
	m.fields.WithLabelValues(event, field, strconv.FormatBool(refused)).Inc()
}

// relays returns a function that counts deliveries by outcome and origin.
func relays(counter *prometheus.CounterVec) func(outcome string, relayed bool) {
	return func(outcome string, relayed bool) {
		counter.WithLabelValues(outcome, strconv.FormatBool(relayed)).Inc()
	}
}

// worker connects the standard steps and the reconciliation of a worker.
func (m *metrics) worker(standard *steps.Standard) {
	for _, outcome := range []string{"made", "found", "restored", "posted", "adjusted"} {
		m.bills.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"closed_out", "failed"} {
		m.reconciled.WithLabelValues(outcome)
	}
	for _, of := range []string{"recordings", "usage"} {
		m.sweeps.WithLabelValues(of, "ok")
		m.sweeps.WithLabelValues(of, "failed")
	}
	standard.Billing.Observe = func(outcome string) { m.bills.WithLabelValues(outcome).Inc() }
	standard.Recordings.Observe = func(size int64) {
		m.files.Inc()
		m.bytes.Add(float64(size))
	}
}

// overdue declares the gauge of overdue sessions.
func (m *metrics) overdue(count func(context.Context) (ledger.Overdues, error)) {
	const name = "closeout_sessions_overdue"
	m.Gauges(readEvery, func(ctx context.Context, set telemetry.Set) {
		if n, err := count(ctx); err == nil {
			set(name, float64(n.Left), "left")
			set(name, float64(n.Silent), "silent")
		}
	}, telemetry.Metric{Name: name, Labels: []string{"state"},
		Help: "Overdue sessions in the ledger: left if all participants have left, silent if some may be in the room; at most 10,000."})
}

// sweep counts a read of ZEGO's APIs.
func (m *metrics) sweep(of string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.sweeps.WithLabelValues(of, outcome).Inc()
}

// unknown declares the gauges of rooms and users that ZEGO counts and the ledger lacks.
func (m *metrics) unknown(read func(context.Context) ([]ledger.Comparison, error)) {
	const rooms, users = "closeout_rooms_unknown", "closeout_users_unknown"
	m.Gauges(readEvery, func(ctx context.Context, set telemetry.Set) {
		all, _ := read(ctx)
		for _, c := range all {
			app := strconv.FormatUint(uint64(c.AppID), 10)
			set(rooms, float64(c.UnknownRooms), app)
			set(users, float64(c.UnknownUsers), app)
		}
	}, telemetry.Metric{Name: rooms, Labels: []string{"appid"}, Help: "Rooms that ZEGO counts and the ledger lacks, by app."},
		telemetry.Metric{Name: users, Labels: []string{"appid"}, Help: "Users that ZEGO counts and the ledger lacks, by app."})
}

// disk declares the gauges of the inbox's disk.
func (m *metrics) disk(usage func(context.Context) ([2]uint64, error)) {
	m.Gauges(0, func(ctx context.Context, set telemetry.Set) {
		if s, err := usage(ctx); err == nil {
			set("closeout_data_free_bytes", float64(min(s[0], math.MaxInt64)))
			set("closeout_data_size_bytes", float64(min(s[1], math.MaxInt64)))
		}
	}, telemetry.Metric{Name: "closeout_data_free_bytes", Help: "Free space of the disk with CLOSEOUT_DATA."},
		telemetry.Metric{Name: "closeout_data_size_bytes", Help: "Size of the disk with CLOSEOUT_DATA."})
}

// inboxMetrics names the gauges of an inbox and its sink.
type inboxMetrics struct {
	depth, age, takes telemetry.Metric
}

var (
	startMetrics = inboxMetrics{
		telemetry.Metric{Name: "closeout_inbox_depth", Labels: []string{"state"}, Help: "Callbacks on disk: waiting for Temporal, or dead letters."},
		telemetry.Metric{Name: "closeout_inbox_oldest_age_seconds", Help: "Age of the oldest callback that waits for Temporal; 0 without any."},
		telemetry.Metric{Name: "closeout_temporal_takes", Help: "1 while Temporal takes callbacks, 0 while the circuit breaker is open."},
	}
	eventMetrics = inboxMetrics{
		telemetry.Metric{Name: "closeout_event_inbox_depth", Labels: []string{"state"}, Help: "Callbacks of participants on disk: waiting for the ledger, or dead letters."},
		telemetry.Metric{Name: "closeout_event_inbox_oldest_age_seconds", Help: "Age of the oldest callback of participants that waits for the ledger; 0 without any."},
		telemetry.Metric{Name: "closeout_ledger_takes", Help: "1 while the ledger takes events, 0 after it did not take the last one."},
	}
)

// inbox declares the gauges of an inbox and of whether its sink takes callbacks.
func (m *metrics) inbox(names inboxMetrics, q *queueQuestions, fault func() error) {
	m.Gauges(0, func(ctx context.Context, set telemetry.Set) {
		set(names.takes.Name, one(fault() == nil))
		stats, err := q.stats.Get(ctx)
		if err != nil {
			return
		}
		set(names.depth.Name, float64(stats.Waiting), "waiting")
		set(names.depth.Name, float64(stats.DeadLetters), "dead_letter")
		age := 0.
		if !stats.Oldest.IsZero() {
			age = time.Since(stats.Oldest).Seconds()
		}
		set(names.age.Name, age)
	}, names.depth, names.age, names.takes)
}

// load declares the gauges of starts in flight.
func (m *metrics) load(read func() (limit, inFlight int)) {
	m.Gauges(0, func(_ context.Context, set telemetry.Set) {
		limit, inFlight := read()
		set("closeout_starts_limit", float64(limit))
		set("closeout_starts_in_flight", float64(inFlight))
	}, telemetry.Metric{Name: "closeout_starts_limit", Help: "Limit of concurrent starts, adapted to how long they take."},
		telemetry.Metric{Name: "closeout_starts_in_flight", Help: "Starts in progress."})
}

// one returns 1 if holds, else 0.
func one(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}
