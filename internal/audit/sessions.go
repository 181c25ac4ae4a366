package audit

import (
	"hash/fnv"
	"io"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// sessions is what is known of each session. There may be a million: a key and a
// record take 20 bytes together, and hold no pointer that the garbage collector
// would have to follow.
type sessions map[session.ID]record

// mark adds flags to what is known of a session.
func (s sessions) mark(k session.ID, f flags) {
	r := s[k]
	r.flags |= f
	s[k] = r
}

// record is what is known of a session.
type record struct {
	flags flags
	told  uint32 // details.sum of its run
}

// has says that it has one of the flags.
func (r record) has(f flags) bool { return r.flags&f != 0 }

type flags uint32

const (
	offered      flags = 1 << iota // in the journal
	acknowledged                   // in the journal, with a 2XX
	undecided                      // in the journal, stopped before it was either
	waiting                        // in the inbox
	deadLetter                     // in the inbox, refused for good
	stillDead                      // the same, when the inbox was read again
	listed                         // by Temporal
	severally                      // more than once
	running                        // the run is under way
	blocked                        // and waits for a person
	stuck                          // or can't go on
	unindexed                      // or it is unknown whether it waits for a person
	completed                      // the run completed
	ended                          // the run closed otherwise
	outside                        // the run started too late to be of interest
	billed                         // in the ledger
	old                            // and for so long that the run need not be there
	young                          // and for so short that the journal need not say so
	differs                        // and not as the run was told
	closed                         // by the ledger's word, and not billed
)

// details are what a run is told of a session and a bill repeats.
type details struct {
	room   string
	reason string
	closed int64 // Unix milliseconds
}

func billDetails(b ledger.Bill) details {
	return details{b.RoomID, zego.CloseReasonText(b.CloseReason), b.RoomCloseTime.UnixMilli()}
}

// sum is a hash of the details, by which most that differ are told apart; 0 if
// there are none.
func (d details) sum() uint32 {
	if d == (details{}) {
		return 0
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, d.room+"\x00"+d.reason+"\x00"+d.time())
	return max(h.Sum32(), 1)
}

func (d details) time() string { return time.UnixMilli(d.closed).UTC().Format(time.RFC3339Nano) }
