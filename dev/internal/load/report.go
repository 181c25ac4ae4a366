package load

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is the result of a run. At its end,
//
//	Sessions = Acknowledged + Lost + Undecided
//	Acknowledged = FirstAttempt + LaterAttempt + ByDuplicate
type Report struct {
	// Seed repeats the run with the same options. It is a string in JSON, because it may
	// be larger than 2^53.
	Seed uint64 `json:"seed,string"`
	// URL is the address of the callbacks, without its secret parts.
	URL string `json:"url"`
	// StartedAt is when the first session was offered, by this machine's clock.
	StartedAt time.Time `json:"started_at"`
	// Duration is the duration of the run in seconds.
	Duration float64 `json:"duration_s"`

	// Count is the planned number of sessions. Sessions counts those with at least one
	// callback sent. It is smaller only if the run was stopped.
	Count    int   `json:"count"`
	Sessions int64 `json:"sessions"`
	// Acknowledged counts the sessions with a delivery that got a 2xx.
	Acknowledged int64 `json:"acknowledged"`
	// FirstAttempt and LaterAttempt count the sessions with an acknowledged original, at
	// the first attempt or after a retry.
	FirstAttempt int64 `json:"acknowledged_first_attempt"`
	LaterAttempt int64 `json:"acknowledged_later_attempt"`
	// ByDuplicate counts the sessions with an acknowledged copy and no acknowledged
	// original.
	ByDuplicate int64 `json:"acknowledged_by_duplicate"`
	// Lost counts the sessions that ZEGO would drop without an acknowledgement.
	Lost int64 `json:"lost"`
	// Undecided counts the sessions that were still open when the run was stopped.
	Undecided int64 `json:"undecided"`

	// Attempts counts completed attempts, including copies and without badly signed
	// callbacks.
	Attempts int64 `json:"attempts"`
	// Answers counts attempts that got a 2xx, by the status in the body, such as
	// "started" or "duplicate", or "unknown".
	Answers map[string]int64 `json:"answers"`
	// Failures counts the other attempts by kind, such as "503", "timeout" or "connection
	// refused".
	Failures map[string]int64 `json:"failures"`

	// Duplicates counts the copies.
	Duplicates Duplicates `json:"duplicates"`
	// Events has the outcomes of the callbacks about sessions' lives, or nil without such
	// callbacks. All other fields cover room_close only.
	Events *Events `json:"events,omitempty"`
	// BadlySigned counts the callbacks that must be refused.
	BadlySigned BadlySigned `json:"badly_signed"`

	// OfferedRate is the number of sessions offered a second, until the last one was
	// offered. It is 0 if all were offered at one instant.
	OfferedRate float64 `json:"offered_per_s"`
	// AcknowledgedRate is the number of sessions acknowledged a second, until the last
	// one was acknowledged.
	AcknowledgedRate float64 `json:"acknowledged_per_s"`
	// Latency has the latencies.
	Latency Latency `json:"latency"`
}

// Duplicates counts copies. Copies that are neither acknowledged nor lost were open when
// the run was stopped.
type Duplicates struct {
	// Sent counts the copies sent, Acknowledged those that got a 2xx, and Lost those that
	// got another answer or none.
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Lost         int64 `json:"lost"`
}

// BadlySigned counts callbacks with a wrong signature. Those that are neither refused nor
// accepted got another answer or none.
type BadlySigned struct {
	// Sent counts the callbacks sent, Refused those that got a 401. Accepted counts those
	// that got a 2xx, which is a fault of the webhook.
	Sent     int64 `json:"sent"`
	Refused  int64 `json:"refused"`
	Accepted int64 `json:"accepted"`
}

// Latency has latencies, each counted from when an attempt was due, and not from when it
// got a connection. Badly signed callbacks are left out.
type Latency struct {
	// Acknowledged covers the attempts that got a 2xx, and All all attempts.
	Acknowledged Percentiles `json:"acknowledged_attempts"`
	All          Percentiles `json:"all_attempts"`
	// Session is the time from when a session's first delivery was due to its first 2xx.
	Session Percentiles `json:"sessions"`
	// Waited is the part of All before an attempt was sent. If it is large, Parallel or
	// this machine is too small, or the webhook kept the connections busy.
	Waited Percentiles `json:"waited"`
}

// Percentiles are percentiles of durations, in milliseconds with three digits.
type Percentiles struct {
	// Count is the number of durations.
	Count int64 `json:"count"`
	// P50 is the duration that half of them didn't exceed, and so on.
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P95  float64 `json:"p95_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	Max  float64 `json:"max_ms"`
}

// WriteText writes the report as text.
func (r *Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("sent to", "%s", r.URL)
	row("seed", "%d", r.Seed)
	sessions := fmt.Sprint(r.Sessions)
	if r.Sessions != int64(r.Count) {
		sessions += fmt.Sprintf(" of %d", r.Count)
	}
	row("sessions", "%s in %s s", sessions, number(r.Duration))
	detail := fmt.Sprintf("%d at the first attempt, %d at a later one", r.FirstAttempt, r.LaterAttempt)
	if r.ByDuplicate > 0 {
		detail += fmt.Sprintf(", %d by the duplicate alone", r.ByDuplicate)
	}
	row("  acknowledged", "%d: %s", r.Acknowledged, detail)
	row("  lost", "%d", r.Lost)
	if r.Undecided > 0 {
		row("  undecided", "%d", r.Undecided)
	}
	if r.Duplicates.Sent > 0 {
		row("duplicates", "%d: %d acknowledged, %d lost", r.Duplicates.Sent, r.Duplicates.Acknowledged, r.Duplicates.Lost)
	}
	if u := r.Events; u != nil {
		detail := fmt.Sprintf("%d acknowledged, %d lost", u.Acknowledged, u.Lost)
		if u.Undecided > 0 {
			detail += fmt.Sprintf(", %d undecided", u.Undecided)
		}
		if u.Withheld > 0 {
			detail += fmt.Sprintf("; %d more never sent", u.Withheld)
		}
		row("usage callbacks", "%d: %s", u.Callbacks, detail)
		row("  answers", "%s", counts(u.Answers))
		row("  failures", "%s", counts(u.Failures))
		row("  ms", "p50 %s, p99 %s, max %s", number(u.Latency.P50), number(u.Latency.P99), number(u.Latency.Max))
	}
	if b := r.BadlySigned; b.Sent > 0 {
		detail := fmt.Sprintf("%d refused, %d accepted", b.Refused, b.Accepted)
		if other := b.Sent - b.Refused - b.Accepted; other > 0 {
			detail += fmt.Sprintf(", %d without either", other)
		}
		row("badly signed", "%d: %s", b.Sent, detail)
	}
	row("attempts", "%d", r.Attempts)
	row("  answers", "%s", counts(r.Answers))
	row("  failures", "%s", counts(r.Failures))
	offered := "all at once"
	if r.OfferedRate > 0 {
		offered = number(r.OfferedRate) + "/s"
	}
	row("sessions offered", "%s", offered)
	row("  acknowledged", "%s/s", number(r.AcknowledgedRate))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}

	table := "\nms                                  count       p50       p90       p95       p99     p99.9       max\n"
	for _, line := range []struct {
		name string
		p    Percentiles
	}{
		{"attempts that were acknowledged", r.Latency.Acknowledged}, {"all attempts", r.Latency.All},
		{"  of it waiting to be sent", r.Latency.Waited}, {"sessions until acknowledged", r.Latency.Session},
	} {
		table += fmt.Sprintf("%-31s %9d", line.name, line.p.Count)
		for _, ms := range []float64{line.p.P50, line.p.P90, line.p.P95, line.p.P99, line.p.P999, line.p.Max} {
			table += fmt.Sprintf("%10s", number(ms))
		}
		table += "\n"
	}
	if _, err := io.WriteString(w, table); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// number formats x with up to two decimals: three significant digits.
func number(x float64) string {
	switch {
	case x < 10:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case x < 100:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// counts lists the counts, the largest first.
func counts(m map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", m[name], name)
	}
	return cmp.Or(strings.Join(names, ", "), "none")
}

// maxKinds bounds the number of names that are counted, because names are foreign.
const maxKinds = 20

// count adds one to the count of a name, or of "other" if there are too many names.
func count(m map[string]int64, name string) {
	if _, known := m[name]; !known && len(m) >= maxKinds {
		name = "other"
	}
	m[name]++
}

// durations collects any number of durations with three digits, from a microsecond to a
// day, in a quarter of a megabyte.
type durations struct{ histogram *hdrhistogram.Histogram }

const maxDuration = 24 * time.Hour

func newDurations() durations {
	return durations{hdrhistogram.New(1, maxDuration.Microseconds(), 3)}
}

// add records a duration. A duration out of range counts as the end of the range.
func (d durations) add(took time.Duration) {
	took = min(max(took, 0), maxDuration)
	_ = d.histogram.RecordValue(took.Microseconds()) // it is in range
}

func (d durations) percentiles() Percentiles {
	at := func(percent float64) float64 { return float64(d.histogram.ValueAtPercentile(percent)) / 1000 }
	return Percentiles{
		Count: d.histogram.TotalCount(),
		P50:   at(50), P90: at(90), P95: at(95), P99: at(99), P999: at(99.9),
		Max: float64(d.histogram.Max()) / 1000,
	}
}
