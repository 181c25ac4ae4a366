package audit_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/session"
)

// entry has the fields of an audit.Entry that the tests compare.
type entry struct {
	session.ID
	acknowledged, undecided bool
}

// readJournal returns the journal's entries and its error.
func readJournal(path string) (lines []entry, failed error) {
	for o, err := range audit.Journal(path) {
		if err != nil {
			failed = err
			continue
		}
		lines = append(lines, entry{o.ID, o.Acknowledged, o.Undecided})
	}
	return lines, failed
}

func TestJournal(t *testing.T) {
	const good = `{"appid":1,"room_session_id":"858012925204410417","room_id":"lobby","acknowledged":true,"attempts":2}` + "\n"
	one := entry{session.ID{AppID: 1, RoomSessionID: 858012925204410417}, true, false}
	tests := []struct {
		name, text string
		want       []entry
		fails      string
	}{
		{"empty", "", nil, ""},
		{"one", good, []entry{one}, ""},
		{"largest", `{"appid":4294967295,"room_session_id":"18446744073709551615","acknowledged":false}` + "\n",
			[]entry{{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: math.MaxUint64}}}, ""},
		{"undecided", `{"appid":1,"room_session_id":"2","acknowledged":false,"undecided":true}` + "\n",
			[]entry{{session.ID{AppID: 1, RoomSessionID: 2}, false, true}}, ""},
		{"empty lines and CRLF", "\n" + strings.TrimSpace(good) + "\r\n\n" + good, []entry{one, one}, ""},
		{"a long line", strings.Replace(good, "lobby", strings.Repeat("é", 1<<20), 1), []entry{one}, ""},
		{"the last line lacks only its end", good + strings.TrimSpace(good), []entry{one, one}, ""},
		{"the last line is cut off", good + good[:40], []entry{one}, ""},
		{"a line is cut off", good + good[:40] + "\n" + good, []entry{one}, "j.jsonl:2: "},
		{"the last line is JSON, and of something else", good + "{}", []entry{one}, "j.jsonl:2: appid: missing"},
		{"no JSON", "\nhello\n", nil, "j.jsonl:2: "},
		{"a number", `{"appid":1,"room_session_id":858012925204410417,"acknowledged":true}` + "\n", nil, "j.jsonl:1: "},
		{"too large", `{"appid":1,"room_session_id":"18446744073709551616","acknowledged":true}` + "\n", nil, "j.jsonl:1: "},
		{"a negative app", `{"appid":-1,"room_session_id":"1","acknowledged":true}` + "\n", nil, "j.jsonl:1: "},
		{"no session", `{"appid":1,"acknowledged":true}` + "\n", nil, "j.jsonl:1: room_session_id: missing"},
		{"no answer", `{"appid":1,"room_session_id":"1"}` + "\n", nil, "j.jsonl:1: acknowledged: missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "j.jsonl")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readJournal(path)
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, tt.want, tt.fails)
			}
		})
	}
	if got, err := readJournal(filepath.Join(t.TempDir(), "none")); len(got) > 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

// Journal reads the entries as the sender writes them.
func TestJournalOfASender(t *testing.T) {
	var text []byte
	for _, e := range []audit.Entry{
		{ID: session.ID{AppID: 1, RoomSessionID: math.MaxUint64}, RoomID: strings.Repeat("<", 1024), Acknowledged: true, Status: "started"},
		{ID: session.ID{AppID: math.MaxUint32, RoomSessionID: 2}, RoomID: "lobby", Undecided: true},
		{},
	} {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	path := filepath.Join(t.TempDir(), "j.jsonl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{session.ID{AppID: 1, RoomSessionID: math.MaxUint64}, true, false},
		{session.ID{AppID: math.MaxUint32, RoomSessionID: 2}, false, true},
		{},
	}
	if got, err := readJournal(path); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}
