package audit

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/session"
)

// Kind is a kind of fault.
type Kind string

// The kinds of faults: a session ...
const (
	Lost            Kind = "lost"              // that was acknowledged and is in no place
	DeadLetter      Kind = "dead_letter"       // in the inbox as a dead letter
	SeveralRuns     Kind = "several_runs"      // that was started more than once, apart from resets
	Stuck           Kind = "stuck"             // with an open run whose Workflow Task fails
	Unindexed       Kind = "unindexed"         // with an open run without Search Attributes, which may be blocked
	RunFailed       Kind = "run_failed"        // with a failed run
	RunTerminated   Kind = "run_terminated"    // with a terminated run
	RunTimedOut     Kind = "run_timed_out"     // with a run that timed out
	RunCanceled     Kind = "run_canceled"      // with a canceled run
	NoBill          Kind = "no_bill"           // with a completed run but no bill, and the step was neither skipped nor given up
	NoAdjustment    Kind = "no_adjustment"     // with an adjustment by a run that the ledger lacks
	NotClosedOut    Kind = "not_closed_out"    // that is closed in the ledger, without a bill or a run
	NoManifest      Kind = "no_manifest"       // with a completed run but no manifest, as for no_bill
	NoRun           Kind = "no_run"            // with a bill or a manifest, but without a run that Temporal should still keep
	Phantom         Kind = "phantom"           // that is billed without an acknowledgement in the journal
	BillDiffers     Kind = "bill_differs"      // with a bill that contradicts the input of its run
	Contradicted    Kind = "contradicted"      // with a second room_close that has another room or close time
	EventLost       Kind = "event_lost"        // with an acknowledged event in neither the ledger nor the inbox
	EventDeadLetter Kind = "event_dead_letter" // with an event in the inbox that the ledger refuses
	BillUntrue      Kind = "bill_untrue"       // with entries that contradict the journal and are not marked as an estimate
)

// MaxFaults bounds the faults of a kind that are reported in detail.
const MaxFaults = 1000

// Report is the result of an audit. It counts sessions.
type Report struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Journal and Inbox report whether they were compared.
	Journal      bool  `json:"journal"`
	Inbox        bool  `json:"inbox"`
	Offered      int64 `json:"offered"` // in the journal
	Acknowledged int64 `json:"acknowledged"`
	Waiting      int64 `json:"waiting"` // in the inbox, to be delivered
	DeadLetters  int64 `json:"dead_letters"`
	Runs         Runs  `json:"runs"`
	Bills        int64 `json:"bills"`
	Manifests    int64 `json:"manifests"` // of closed runs
	// Skipped counts sessions without a bill or manifest because its step was skipped or given up.
	Skipped int64 `json:"skipped"`
	// Expired counts sessions with a bill or a manifest and a deleted run.
	Expired int64 `json:"expired"`
	// Unsettled counts sessions with a bill younger than [Options.Grace] and no entry in the journal yet.
	Unsettled int64 `json:"unsettled"`
	// Outside counts sessions with a run outside of Since and Until. They were not checked.
	Outside int64 `json:"outside"`
	// Foreign counts Workflow IDs with the prefix of sessions that are not session IDs.
	Foreign int64 `json:"foreign"`
	// EventsAcknowledged counts events in the journal, EventsWaiting and EventDeadLetters those in the inbox.
	EventsAcknowledged int64 `json:"events_acknowledged"`
	EventsWaiting      int64 `json:"events_waiting"`
	EventDeadLetters   int64 `json:"event_dead_letters"`
	// SessionsCompared counts bills compared with the journal, and Adjusting those that are due for an adjustment.
	SessionsCompared int64          `json:"sessions_compared"`
	Adjusting        int64          `json:"adjusting"`
	Kinds            map[Kind]int64 `json:"faults_by_kind"`
	// Losses lists the times from which the ledger has lost events.
	Losses []ledger.Loss `json:"losses,omitempty"`
	// Refused lists up to [MaxFaults] refused genuine callbacks, latest first. Their content is lost.
	Refused []ledger.UnreadableCallback `json:"refused,omitempty"`
	// Faults lists up to [MaxFaults] faults of each kind, sorted by session.
	Faults []Fault `json:"faults"`

	found      func(Fault)
	repairable int64
}

// Runs counts sessions by the state of their run.
type Runs struct {
	Running    int64 `json:"running"` // not blocked
	Blocked    int64 `json:"blocked"`
	Completed  int64 `json:"completed"`
	Failed     int64 `json:"failed"`
	Terminated int64 `json:"terminated"`
	TimedOut   int64 `json:"timed_out"`
	Canceled   int64 `json:"canceled"`
}

// Fault is a fault of one session.
type Fault struct {
	Kind Kind `json:"kind"`
	session.ID
	WorkflowID string `json:"workflow_id"`
	// Problem and Remedy are sentences.
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
	// Repair is the repair that fixes the fault; empty if an operator has to act.
	Repair repair.Kind `json:"repair,omitempty"`

	workflowID, runID string // of the run with the fault, unless that is the session's own
}

// Target returns the repair of the fault.
func (f Fault) Target() repair.Repair {
	return repair.Repair{Kind: f.Repair, ID: f.ID, WorkflowID: f.WorkflowID, RunID: f.runID}
}

// repair returns the repair for the kind of the fault.
func (f Fault) repair() repair.Kind {
	switch f.Kind {
	case NoBill:
		if f.runID != "" {
			return repair.RestoreBill
		}
	case NoAdjustment:
		return repair.RestoreAdjustment
	case NoRun, NotClosedOut:
		return repair.StartRun
	case NoManifest, RunFailed, RunTerminated, RunTimedOut, RunCanceled:
		return repair.ResetRun
	}
	return ""
}

// OK reports whether there is no fault.
func (r Report) OK() bool { return r.Count() == 0 }

// Count returns the number of faults, including those beyond MaxFaults.
func (r Report) Count() (n int64) {
	for _, of := range r.Kinds {
		n += of
	}
	return n
}

// Pending returns the number of sessions that need no operator.
func (r Report) Pending() int64 {
	return r.Waiting + r.Runs.Running + r.Unsettled + r.EventsWaiting + r.Adjusting
}

func (f *finding) fault(kind Kind, problem, remedy string) {
	f.faults = append(f.faults, Fault{Kind: kind, Problem: problem, Remedy: remedy})
}

func (r *Report) add(k session.ID, f Fault) {
	f.ID, f.WorkflowID = k, cmp.Or(f.workflowID, k.WorkflowID())
	f.Repair = f.repair()
	if r.Kinds[f.Kind]++; r.Kinds[f.Kind] <= MaxFaults {
		r.Faults = append(r.Faults, f)
	}
	if f.Repair != "" {
		r.repairable++
	}
	if r.found != nil {
		r.found(f)
	}
}

func (r *Report) sort() {
	slices.SortFunc(r.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.RoomSessionID, b.RoomSessionID), cmp.Compare(a.Kind, b.Kind))
	})
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 0, ' ', tabwriter.AlignRight)
	for _, line := range []struct {
		name   string
		n      int64
		always bool
	}{
		{"offered", r.Offered, r.Journal},
		{"acknowledged", r.Acknowledged, r.Journal},
		{"waiting in the inbox", r.Waiting, r.Inbox},
		{"dead letters in the inbox", r.DeadLetters, false},
		{"with a run under way", r.Runs.Running, true},
		{"with a run that waits for a person", r.Runs.Blocked, true},
		{"with a completed run", r.Runs.Completed, true},
		{"with a failed run", r.Runs.Failed, false},
		{"with a terminated run", r.Runs.Terminated, false},
		{"with a run that timed out", r.Runs.TimedOut, false},
		{"with a canceled run", r.Runs.Canceled, false},
		{"with a bill", r.Bills, true},
		{"closed out with a manifest", r.Manifests, true},
		{"without a bill or manifest, as its step was skipped or given up", r.Skipped, false},
		{"closed out so long ago that the run isn't kept", r.Expired, false},
		{"with a bill too young to be missing in the journal", r.Unsettled, false},
		{"with a run out of the time looked at", r.Outside, false},
		{"workflows whose ID is like a session's and isn't one", r.Foreign, false},
		{"callbacks of participants acknowledged", r.EventsAcknowledged, false},
		{"callbacks of participants waiting for the ledger", r.EventsWaiting, false},
		{"dead letters among callbacks of participants", r.EventDeadLetters, false},
		{"with a bill that was compared with what happened", r.SessionsCompared, false},
		{"with a bill that is still to be adjusted", r.Adjusting, false},
	} {
		if line.always || line.n > 0 {
			fmt.Fprintf(table, "%d\t %s\n", line.n, line.name)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&b)
	for _, loss := range r.Losses {
		fmt.Fprintf(&b, "The ledger was restored from a copy and has lost the callbacks that it received %v.\n", loss)
	}
	for _, u := range r.Refused {
		fmt.Fprintf(&b, "A genuine callback of app %d was refused, the last at %s: %s of room %s: %s: %s\n", u.AppID,
			u.Last.UTC().Format(time.RFC3339), printable.Line(u.Event), printable.Line(u.RoomID), printable.Line(u.Field), printable.Line(u.Problem))
	}
	if r.OK() {
		fmt.Fprintln(&b, "No faults.")
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "%s: %s\n    %s\n    %s\n", f.WorkflowID, f.Kind, printable.Line(f.Problem), printable.Line(f.Remedy))
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		if n := r.Kinds[kind]; n > MaxFaults {
			fmt.Fprintf(&b, "%s: %d in all, of which %d are shown\n", kind, n, MaxFaults)
		}
	}
	if r.repairable > 0 {
		fmt.Fprintf(&b, "closeout repair fixes %d of them.\n", r.repairable)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
