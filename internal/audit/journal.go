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
)

// Journal reads a file of JSON lines as `go run -C dev ./load --journal` writes it. It is
// opened anew whenever it is ranged over. An error names the line and ends it.
//
// The file may be written to meanwhile: a last line that is cut off is left out.
func Journal(path string) iter.Seq2[Offered, error] { return journal(path, parseOffered) }

// JournalLives reads of a journal, as [Journal] does, what happened in the sessions.
func JournalLives(path string) iter.Seq2[Entry, error] {
	return journal(path, func(line []byte) (l Entry, err error) {
		err = json.Unmarshal(line, &l)
		return l, err
	})
}

// journal reads a file with a parser of its lines.
func journal[T any](path string, parse func(line []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		file, err := os.Open(path) // #nosec G304 -- it is what the operator named
		if err != nil {
			yield(none, err)
			return
		}
		defer file.Close()
		lines := bufio.NewReaderSize(file, 64<<10)
		for n := 1; ; n++ {
			line, readErr := lines.ReadBytes('\n')
			last := errors.Is(readErr, io.EOF)
			if readErr != nil && !last {
				yield(none, fmt.Errorf("%s:%d: %w", path, n, readErr))
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

// parseOffered parses a line. What the writer never leaves out is needed: a
// default for it would be a wrong answer.
func parseOffered(line []byte) (Offered, error) {
	var l struct {
		AppID         *uint32 `json:"appid"`
		RoomSessionID *uint64 `json:"room_session_id,string"`
		Acknowledged  *bool   `json:"acknowledged"`
		Undecided     bool    `json:"undecided"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return Offered{}, fmt.Errorf(`%w, want {"appid": 1, "room_session_id": "858012925204410417", "acknowledged": true}`, err)
	}
	switch {
	case l.AppID == nil:
		return Offered{}, errors.New("appid: missing")
	case l.RoomSessionID == nil:
		return Offered{}, errors.New("room_session_id: missing")
	case l.Acknowledged == nil:
		return Offered{}, errors.New("acknowledged: missing")
	}
	return Offered{*l.AppID, *l.RoomSessionID, *l.Acknowledged, l.Undecided}, nil
}
