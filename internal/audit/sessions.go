package audit

import (
	"hash/fnv"
	"io"
	"time"

	"go.temporal.io/api/enums/v1"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// sessions holds a record of each session. There may be a million, so a key and a record take 20
// bytes together and have no pointers for the garbage collector to follow.
type sessions map[session.ID]record

// mark adds flags to the record of a session.
func (s sessions) mark(k session.ID, f flags) {
	r := s[k]
	r.flags |= f
	s[k] = r
}

// record is the state of a session.
type record struct {
	flags
	stated uint32 // details.sum of its run
}

// flags are facts about a session, in a [record] as the places list them, and in a [finding] as
// they are.
type flags uint32

// has reports whether f has any of the others.
func (f flags) has(others flags) bool { return f&others != 0 }

func (f *flags) set(others flags, holds bool) {
	if holds {
		*f |= others
	}
}

const (
	offered      flags = 1 << iota // in the journal
	acknowledged                   // in the journal, with a 2XX
	undecided                      // in the journal, and unknown
	waiting                        // in the inbox
	deadLetter                     // in the inbox as a dead letter
	stillDead                      // still a dead letter when the inbox was read again
	listed                         // by Temporal
	severally                      // listed more than once
	running                        // the run is open
	blocked                        // the open run waits for an operator
	stuck                          // its Workflow Task fails
	unindexed                      // the open run lacks Search Attributes
	completed                      // the run completed
	failed                         // the run failed
	terminated                     // the run was terminated
	timedOut                       // the run timed out
	canceled                       // the run was canceled
	outside                        // the run started at Until or later
	billed                         // in the ledger
	old                            // billed so long ago that the run may be deleted
	young                          // billed too recently to be in the journal
	differs                        // the bill differs from the run's input
	closed                         // closed in the ledger, and not billed
	archived                       // in the archive
	skipped                        // the step of the bill or the manifest was skipped or given up
	expired                        // closed out, and its run is deleted
)

// ofStatus are the flags of a run, by its status.
var ofStatus = map[enums.WorkflowExecutionStatus]flags{
	enums.WORKFLOW_EXECUTION_STATUS_RUNNING:          running,
	enums.WORKFLOW_EXECUTION_STATUS_PAUSED:           running,
	enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:        completed,
	enums.WORKFLOW_EXECUTION_STATUS_FAILED:           failed,
	enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:       terminated,
	enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:        timedOut,
	enums.WORKFLOW_EXECUTION_STATUS_CANCELED:         canceled,
	enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: severally,
}

// details holds the facts that both a run's input and a bill state.
type details struct {
	room   string
	reason string
	closed int64 // Unix milliseconds
}

func billDetails(b ledger.Bill) details {
	return details{b.RoomID, zego.CloseReasonText(b.CloseReason), b.RoomCloseTime.UnixMilli()}
}

// sum returns a hash of the details, or 0 without any. Different details may have the same.
func (d details) sum() uint32 {
	if d == (details{}) {
		return 0
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, d.room+"\x00"+d.reason+"\x00"+d.time())
	return max(h.Sum32(), 1)
}

func (d details) time() string { return time.UnixMilli(d.closed).UTC().Format(time.RFC3339Nano) }
