package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Entry is a line of the journal: what ZEGO would know of a session. A session
// of which nothing was ever sent has none.
type Entry struct {
	session.ID
	// RoomID, CloseReason and RoomCloseTime are what the callback said.
	RoomID        string    `json:"room_id"`
	CloseReason   zego.Code `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`
	// Acknowledged says whether any delivery of the callback, original or copy, got
	// a 2XX: they say the same, so whoever acknowledged one has to see to the session.
	Acknowledged bool `json:"acknowledged"`
	// Undecided says that the run was stopped when nothing had been acknowledged and
	// not all had been tried. The webhook may have taken the callback all the same.
	Undecided bool `json:"undecided,omitempty"`
	// Status is what the first acknowledgement said, such as "started".
	Status string `json:"status,omitempty"`
	// Attempts is how many attempts of the original were begun.
	Attempts int `json:"attempts"`
	// Duplicates is how many copies were sent.
	Duplicates int `json:"duplicates"`
	// Events are what happened in the session, if that was played: who was there, and
	// which callbacks told of it.
	Events []Told `json:"events,omitempty"`
	// OfferedAt is when the first delivery was due, by this machine's clock.
	OfferedAt time.Time `json:"offered_at"`
	// AcknowledgedAfter is how long it then took to the first 2XX, in milliseconds.
	AcknowledgedAfter float64 `json:"acknowledged_after_ms,omitempty"`
}

// Told is a callback about a session's life: what happened, whether or not it was
// sent.
type Told struct {
	// Event is [zego.EventRoomCreate], [zego.EventRoomLogin] or [zego.EventRoomLogout].
	Event string `json:"event"`
	// Stay, User and Role are of a user's stay; empty of a room_create.
	Stay string    `json:"stay,omitempty"`
	User string    `json:"user,omitempty"`
	Role zego.Code `json:"role,omitempty"`
	// The times are those in the callback, to the millisecond.
	RoomCreateTime time.Time `json:"room_create_time,omitzero"`
	LoginTime      time.Time `json:"login_time,omitzero"`
	LogoutTime     time.Time `json:"logout_time,omitzero"`
	// Withheld says that it was never sent.
	Withheld bool `json:"withheld,omitempty"`
	// Acknowledged says whether any delivery got a 2XX, and Undecided that the run was
	// stopped before that or its end.
	Acknowledged bool `json:"acknowledged"`
	Undecided    bool `json:"undecided,omitempty"`
	// Attempts and Duplicates are how many were begun.
	Attempts   int `json:"attempts"`
	Duplicates int `json:"duplicates"`
}

// Journal reads a file of JSON Lines as `go run -C dev ./load --journal` writes it. It opens the file anew whenever it is
// ranged over. An error names the line and ends it.
//
// The file may be written to meanwhile: a last line that is cut off is skipped.
func Journal(path string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		file, err := os.Open(path) // #nosec G304 -- it is what the operator named
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer file.Close()
		lines := bufio.NewReaderSize(file, 64<<10)
		for n := 1; ; n++ {
			line, readErr := lines.ReadBytes('\n')
			last := errors.Is(readErr, io.EOF)
			if readErr != nil && !last {
				yield(Entry{}, fmt.Errorf("%s:%d: %w", path, n, readErr))
				return
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				parsed, err := parse(line)
				if last && !json.Valid(line) {
					return
				}
				if err != nil {
					err = fmt.Errorf("%s:%d: %w", path, n, err)
				}
				if !yield(parsed, err) || err != nil {
					return
				}
			}
			if last {
				return
			}
		}
	}
}

// parse parses a line. What the writer never leaves out is required: a default for it would be a wrong answer.
func parse(line []byte) (Entry, error) {
	var l struct {
		Entry
		AppID         *uint32 `json:"appid"`
		RoomSessionID *uint64 `json:"room_session_id,string"`
		Acknowledged  *bool   `json:"acknowledged"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return Entry{}, fmt.Errorf(`%w, want {"appid": 1, "room_session_id": "858012925204410417", "acknowledged": true}`, err)
	}
	switch {
	case l.AppID == nil:
		return Entry{}, errors.New("appid: missing")
	case l.RoomSessionID == nil:
		return Entry{}, errors.New("room_session_id: missing")
	case l.Acknowledged == nil:
		return Entry{}, errors.New("acknowledged: missing")
	}
	l.Entry.ID, l.Entry.Acknowledged = session.ID{AppID: *l.AppID, RoomSessionID: *l.RoomSessionID}, *l.Acknowledged
	return l.Entry, nil
}
