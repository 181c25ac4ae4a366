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

// Entry is a line of the journal: one session from ZEGO's point of view. A session without a
// sent callback has none.
type Entry struct {
	session.ID
	// RoomID, CloseReason and RoomCloseTime are those of the callback.
	RoomID        string    `json:"room_id"`
	CloseReason   zego.Code `json:"close_reason"`
	RoomCloseTime time.Time `json:"room_close_time"`
	// Acknowledged reports whether any delivery of the callback, including copies, was answered
	// with a 2XX. Then the session must be closed out.
	Acknowledged bool `json:"acknowledged"`
	// Undecided reports that the sender stopped before an acknowledgement and before the last
	// attempt. The webhook may or may not have the callback.
	Undecided bool `json:"undecided,omitempty"`
	// Status is the status in the first acknowledgement, such as "started".
	Status string `json:"status,omitempty"`
	// Attempts counts the attempts of the original.
	Attempts int `json:"attempts"`
	// Duplicates counts the copies sent.
	Duplicates int `json:"duplicates"`
	// Events lists the participants' callbacks, if the sender played participants.
	Events []Callback `json:"events,omitempty"`
	// OfferedAt is the time of the first delivery, by this machine's clock.
	OfferedAt time.Time `json:"offered_at"`
	// AcknowledgedAfter is the time from there to the first 2XX, in milliseconds.
	AcknowledgedAfter float64 `json:"acknowledged_after_ms,omitempty"`
}

// Callback is a callback about a session's life, sent or withheld.
type Callback struct {
	// Event is [zego.EventRoomCreate], [zego.EventRoomLogin] or [zego.EventRoomLogout].
	Event string `json:"event"`
	// Stay, User and Role describe a user's stay. They are empty for a room_create.
	Stay string    `json:"stay,omitempty"`
	User string    `json:"user,omitempty"`
	Role zego.Code `json:"role,omitempty"`
	// The times are those in the callback, in milliseconds.
	RoomCreateTime time.Time `json:"room_create_time,omitzero"`
	LoginTime      time.Time `json:"login_time,omitzero"`
	LogoutTime     time.Time `json:"logout_time,omitzero"`
	// Withheld reports that the callback was never sent.
	Withheld bool `json:"withheld,omitempty"`
	// Acknowledged reports whether any delivery was answered with a 2XX. Undecided reports that
	// the sender stopped before that and before the last attempt.
	Acknowledged bool `json:"acknowledged"`
	Undecided    bool `json:"undecided,omitempty"`
	// Attempts and Duplicates count deliveries.
	Attempts   int `json:"attempts"`
	Duplicates int `json:"duplicates"`
}

// Journal reads the JSON Lines that `go run -C dev ./load --journal` writes. It reopens the file each time it is ranged
// over. An error names the line and ends the sequence. Journal skips an incomplete last line, because the file may still
// grow.
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

// parse parses a line. Fields that the writer always sets are required, because a default would be wrong.
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
