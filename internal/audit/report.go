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

// The kinds of faults: a session
const (
	Lost            Kind = "lost"              // that was acknowledged and is nowhere
	DeadLetter      Kind = "dead_letter"       // in the inbox that Temporal has refused for good
	SeveralRuns     Kind = "several_runs"      // that was started more than once; a reset is no start
	Stuck           Kind = "stuck"             // with an open run that the workers' code fails at
	Unindexed       Kind = "unindexed"         // with an open run without Search Attributes, which may be blocked or not
	RunFailed       Kind = "run_failed"        // with a failed run
	RunTerminated   Kind = "run_terminated"    // with a terminated run
	RunTimedOut     Kind = "run_timed_out"     // with a run that timed out
	RunCanceled     Kind = "run_canceled"      // with a canceled run
	NoBill          Kind = "no_bill"           // whose run completed without a bill, though the step was neither skipped nor given up
	NoAdjustment    Kind = "no_adjustment"     // with a run that made an adjustment which the ledger lacks
	NotClosedOut    Kind = "not_closed_out"    // that has closed, as the ledger knows, and has neither a bill nor a run
	NoManifest      Kind = "no_manifest"       // whose run completed without a manifest, likewise
	NoRun           Kind = "no_run"            // with a bill or a manifest, but no run, though it would still be kept, and not in the inbox
	Phantom         Kind = "phantom"           // that is billed, while the journal has no answer that would have kept ZEGO from sending it again
	BillDiffers     Kind = "bill_differs"      // with a bill that contradicts the input of its run
	Contradicted    Kind = "contradicted"      // with a second room_close that has another room or close time
	EventLost       Kind = "event_lost"        // with an acknowledged event that is neither in the ledger nor in the inbox
	EventDeadLetter Kind = "event_dead_letter" // with an event in the inbox that the ledger refuses
	BillUntrue      Kind = "bill_untrue"       // with a bill and adjustments that contradict the journal and are no estimate
)

// MaxFaults is how many faults of a kind are reported in detail.
const MaxFaults = 1000

// Report is what an audit found. Its counts are of sessions.
type Report struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Journal and Inbox report whether there was one to compare with.
	Journal      bool  `json:"journal"`
	Inbox        bool  `json:"inbox"`
	Offered      int64 `json:"offered"` // in the journal
	Acknowledged int64 `json:"acknowledged"`
	Waiting      int64 `json:"waiting"` // in the inbox, to go on by themselves
	DeadLetters  int64 `json:"dead_letters"`
	Runs         Runs  `json:"runs"`
	Bills        int64 `json:"bills"`
	Manifests    int64 `json:"manifests"` // looked for once the run is closed
	// Skipped have no bill or manifest because its step was skipped or given up.
	Skipped int64 `json:"skipped"`
	// Expired have a bill or a manifest, and a run that is not kept any more.
	Expired int64 `json:"expired"`
	// Unsettled have a bill younger than [Options.Grace], and may get an entry in the journal yet.
	Unsettled int64 `json:"unsettled"`
	// Outside have a run started before Since or not before Until. Nothing else was looked at.
	Outside int64 `json:"outside"`
	// Foreign counts Workflows with an ID that is like that of a session, and isn't one.
	Foreign int64 `json:"foreign"`
	// EventsAcknowledged, EventsWaiting and EventDeadLetters count events: in the journal, and in their inbox.
	EventsAcknowledged int64 `json:"events_acknowledged"`
	EventsWaiting      int64 `json:"events_waiting"`
	EventDeadLetters   int64 `json:"event_dead_letters"`
	// SessionsCompared have a bill that was compared with the journal, and Adjusting one that is still to be adjusted.
	SessionsCompared int64          `json:"sessions_compared"`
	Adjusting        int64          `json:"adjusting"`
	Kinds            map[Kind]int64 `json:"faults_by_kind"`
	// Losses are times in which the ledger has lost events.
	Losses []ledger.Loss `json:"losses,omitempty"`
	// Refused are the genuine callbacks that were refused, the latest first, at most [MaxFaults]. Their content is lost.
	Refused []ledger.UnreadableCallback `json:"refused,omitempty"`
	// Faults are sorted by session, and at most [MaxFaults] of each kind.
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

// Fault is something that is wrong with a session.
type Fault struct {
	Kind Kind `json:"kind"`
	session.ID
	WorkflowID string `json:"workflow_id"`
	// Problem and Remedy are sentences.
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
	// Repair is what fixes it; empty if an operator has to act.
	Repair repair.Kind `json:"repair,omitempty"`

	workflowID, runID string // of the run that has it, if it isn't the session's own
}

// Target returns the repair of the fault.
func (f Fault) Target() repair.Repair {
	return repair.Repair{Kind: f.Repair, ID: f.ID, WorkflowID: f.WorkflowID, RunID: f.runID}
}

// repair chooses it by the kind of the fault.
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

// Count returns the number of faults, including those that are not in detail.
func (r Report) Count() (n int64) {
	for _, of := range r.Kinds {
		n += of
	}
	return n
}

// Pending returns the number of sessions that go on by themselves.
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
		fmt.Fprintf(&b, "The ledger was restored from a copy and has lost what it was told %v.\n", loss)
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
		fmt.Fprintf(&b, "closeout repair mends %d of them.\n", r.repairable)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
