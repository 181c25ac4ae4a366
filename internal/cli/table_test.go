package cli

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTableFitsATerminal(t *testing.T) {
	var out strings.Builder
	list := newTable(&out, "WORKFLOW ID", "STATE", "STARTED", "ROOM", "REASON")
	const id, at = "room-close-1234567890-858012925204410417", "2026-11-30T08:17:24Z"
	list.row(id, "blocked", at, "lobby", "")
	list.row(id, "stuck", at, "会议室-of-a-long-name", "too large")
	list.row(id, "stuck", at, "", strings.Repeat("x", 70))
	if err := list.print(); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(out.String(), "\n")[:4] {
		if utf8.RuneCountInString(line) < 70 {
			t.Errorf("cut, though it is no terminal: %q", line)
		}
	}

	out.Reset()
	list.max = terminalWidth
	if err := list.print(); err != nil {
		t.Fatal(err)
	}
	want := `WORKFLOW ID                               STATE    STARTED
room-close-1234567890-858012925204410417  blocked  2026-11-30T08:17:24Z
    room lobby
room-close-1234567890-858012925204410417  stuck    2026-11-30T08:17:24Z
    room 会议室-of-a-long-name  reason too large
room-close-1234567890-858012925204410417  stuck    2026-11-30T08:17:24Z
    reason ` + strings.Repeat("x", 70) + "\n"
	if out.String() != want {
		t.Errorf("found\n%swant\n%s", out.String(), want)
	}
}
