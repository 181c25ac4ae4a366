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

// Report is what came of a run. At its end,
//
//	Sessions = Acknowledged + Lost + Undecided
//	Acknowledged = FirstAttempt + LaterAttempt + ByDuplicate
type Report struct {
	// Seed repeats the run, with the same options. It is a string in JSON, as it may
	// be beyond 2^53.
	Seed uint64 `json:"seed,string"`
	// URL is where the callbacks went, without what may be secret in it.
	URL string `json:"url"`
	// StartedAt is when the first session was offered, by this machine's clock.
	StartedAt time.Time `json:"started_at"`
	// Duration is how long the run took, in seconds.
	Duration float64 `json:"duration_s"`

	// Count is how many sessions there were to be, and Sessions of how many at least
	// one callback was sent: fewer only if the run was stopped.
	Count    int   `json:"count"`
	Sessions int64 `json:"sessions"`
	// Acknowledged is of how many sessions a delivery got a 2XX.
	Acknowledged int64 `json:"acknowledged"`
	// FirstAttempt and LaterAttempt are sessions whose original got it, at its
	// first attempt or after a retry.
	FirstAttempt int64 `json:"acknowledged_first_attempt"`
	LaterAttempt int64 `json:"acknowledged_later_attempt"`
	// ByDuplicate are sessions whose copy got it and whose original never did.
	ByDuplicate int64 `json:"acknowledged_by_duplicate"`
	// Lost are those that ZEGO would have forgotten, unacknowledged.
	Lost int64 `json:"lost"`
	// Undecided are those for which it was too early to say when the run was stopped.
	Undecided int64 `json:"undecided"`

	// Attempts is how many attempts had an end, copies included and badly signed ones
	// not.
	Attempts int64 `json:"attempts"`
	// Answers counts the attempts that got a 2XX by the status in the answer's body:
	// "started", "duplicate" and so on, or "unknown".
	Answers map[string]int64 `json:"answers"`
	// Failures counts the others by what happened: "503", "timeout", "connection
	// refused" and so on.
	Failures map[string]int64 `json:"failures"`

	// Duplicates counts the copies.
	Duplicates Duplicates `json:"duplicates"`
	// Events is what became of the callbacks about the sessions' lives; nil if there
	// were none. All else is of room_close alone.
	Events *Events `json:"events,omitempty"`
	// BadlySigned counts what should have been refused.
	BadlySigned BadlySigned `json:"badly_signed"`

	// OfferedRate is how many sessions per second were offered, until the last of
	// them was; 0 if they all were at one instant.
	OfferedRate float64 `json:"offered_per_s"`
	// AcknowledgedRate is how many sessions per second were acknowledged, until the
	// last of them was.
	AcknowledgedRate float64 `json:"acknowledged_per_s"`
	// Latency is how long it took.
	Latency Latency `json:"latency"`
}

// Duplicates counts copies. Those that are neither acknowledged nor lost were
// under way when the run was stopped.
type Duplicates struct {
	// Sent is how many were sent, Acknowledged how many got a 2XX, Lost how many
	// something else, or nothing.
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Lost         int64 `json:"lost"`
}

// BadlySigned counts callbacks whose signature was wrong. Those that are neither
// refused nor accepted got another answer, or none.
type BadlySigned struct {
	// Sent is how many were sent, Refused how many got a 401. Accepted, a 2XX, is a
	// fault of the webhook.
	Sent     int64 `json:"sent"`
	Refused  int64 `json:"refused"`
	Accepted int64 `json:"accepted"`
}

// Latency is how long it took, each counted from when an attempt was due and not
// from when there was a connection for it. Badly signed ones are left out.
type Latency struct {
	// Acknowledged is of the attempts that got a 2XX, All of all attempts.
	Acknowledged Percentiles `json:"acknowledged_attempts"`
	All          Percentiles `json:"all_attempts"`
	// Session is from when a session's first delivery was due to its first 2XX.
	Session Percentiles `json:"sessions"`
	// Waited is the part of All that an attempt waited to be sent. Where it is much,
	// it was Parallel or this machine that was too small, or the webhook that kept
	// the connections.
	Waited Percentiles `json:"waited"`
}

// Percentiles are of durations, in milliseconds and to three digits.
type Percentiles struct {
	// Count is how many durations there were.
	Count int64 `json:"count"`
	// P50 is what half of them didn't exceed, and so on.
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P95  float64 `json:"p95_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	Max  float64 `json:"max_ms"`
}

// WriteText writes the report for people.
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

// number writes x with as many decimals as mean something.
func number(x float64) string {
	switch {
	case x < 10:
		return strconv.FormatFloat(x, 'f', 2, 64)
	case x < 100:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// counts lists what was counted, the most frequent first.
func counts(m map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", m[name], name)
	}
	return cmp.Or(strings.Join(names, ", "), "none")
}

// maxKinds bounds what is counted by name, as the names come from outside.
const maxKinds = 20

// count adds one to a name, or to "other" where there are too many names.
func count(m map[string]int64, name string) {
	if _, known := m[name]; !known && len(m) >= maxKinds {
		name = "other"
	}
	m[name]++
}

// durations collects durations at three digits, from a microsecond to a day,
// in a quarter of a megabyte however many they are.
type durations struct{ histogram *hdrhistogram.Histogram }

const maxDuration = 24 * time.Hour

func newDurations() durations {
	return durations{hdrhistogram.New(1, maxDuration.Microseconds(), 3)}
}

// add records a duration; one that is out of range, as the range's end.
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
