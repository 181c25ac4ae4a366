package cli_test

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/inbox"
)

// The commands work while a process owns the inbox.
func TestInboxCommands(t *testing.T) {
	data := t.TempDir()
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	put := func(key, body string) {
		t.Helper()
		if _, err := box.Put(t.Context(), inbox.Entry{Key: key, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	put("room-close-1-1", `{"appid":1,"room_id":"lobby","room_session_id":"858012925204410417"}`)
	put("room-close-1-2", `{"appid":1,"room_id":"huge"}`)
	put("room-close-1-3", `not JSON`)
	for _, key := range []string{"room-close-1-2", "room-close-1-3"} {
		if err := box.DeadLetter(t.Context(), key, "too large"); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args string) (code int, stdout, stderr string) {
		t.Helper()
		words := strings.Fields(args)
		return closeout("inbox " + words[0] + " --data " + data + " " + strings.Join(words[1:], " "))
	}

	tests := []struct {
		args   string
		want   []string // in stdout, or in stderr if the command fails
		absent string
		code   int
	}{
		{"list", []string{"room-close-1-1", "waiting", "lobby", "room-close-1-2", "dead letter", "huge", "too large", "room-close-1-3", "inbox room_close: 1 waiting, 2 dead letters\ninbox events: none\n"}, "", 0},
		{"list --dead-letters", []string{"room-close-1-2", "room-close-1-3"}, "room-close-1-1", 0},
		{"list --limit 1", []string{"room-close-1-1", "--limit 0 lists all"}, "room-close-1-2", 0},
		{"show room-close-1-1", []string{`"room_session_id": "858012925204410417"`, `"queued_at"`}, "dead_at", 0},
		{"show room-close-1-3", []string{`"not JSON"`, `"reason": "too large"`}, "", 0},
		{"show room-close-1-9", []string{"room-close-1-9: not in the inbox"}, "", 1},
		{"show", []string{"no ID\nhint: for example: closeout inbox show room-close-1-"}, "", 2},
		{"retry room-close-1-2", []string{"room-close-1-2: delivery starts again"}, "", 0},
		{"list", []string{"2 waiting, 1 dead letters\n"}, "", 0},
		{"retry --all room-close-1-2", []string{"want one of the two"}, "", 2},
		{"retry --all", []string{"room-close-1-3: delivery starts again"}, "room-close-1-2", 0},
		{"list", []string{"3 waiting, 0 dead letters\n"}, "", 0},
		{"drop room-close-1-9", []string{"room-close-1-9: not in the inbox"}, "", 1},
		{"drop room-close-1-3 room-close-1-2", []string{`"not JSON"`, "room-close-1-3: dropped", "room-close-1-2: dropped"}, "", 0},
		{"list", []string{"1 waiting, 0 dead letters\n"}, "room-close-1-3", 0},
	}
	for _, tt := range tests {
		code, stdout, stderr := run(tt.args)
		text := stdout
		if tt.code != 0 {
			text = stderr
		}
		if code != tt.code || tt.absent != "" && strings.Contains(text, tt.absent) {
			t.Errorf("%s: exit code %d\n%s%s", tt.args, code, stdout, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s%s", tt.args, want, stdout, stderr)
			}
		}
	}

	_, stdout, _ := run("show room-close-1-1")
	var shown struct {
		ID string
	}
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil || shown.ID != "room-close-1-1" {
		t.Errorf("show doesn't write JSON: %v\n%s", err, stdout)
	}
}

func TestInboxCommandsKnowWhichInboxAnIDIsOf(t *testing.T) {
	data := t.TempDir()
	open := func(name string) *inbox.Inbox {
		box, err := inbox.Open(t.Context(), filepath.Join(data, name), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = box.Close() })
		return box
	}
	const login, logout = "room_login-1-7-aa", "room_logout-1-7-bb"
	for box, keys := range map[*inbox.Inbox][]string{open("inbox"): {"room-close-1-7"}, open("events"): {login, logout}} {
		for _, key := range keys {
			if _, err := box.Put(t.Context(), inbox.Entry{Key: key, Body: []byte(`{"room_id":"lobby"}`)}); err != nil {
				t.Fatal(err)
			}
			if err := box.DeadLetter(t.Context(), key, "refused"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct{ args, want, absent string }{
		{"list", "inbox room_close: 0 waiting, 1 dead letters\n", ""},
		{"list --events", "inbox events: 0 waiting, 2 dead letters\n", "room_close:"},
		{"show " + login, `"id": "` + login + `"`, "room-close"},
		{"drop " + login, login + ": dropped", ""},
		{"retry --all", logout + ": delivery starts again", login},
		{"list --events", "inbox events: 1 waiting, 0 dead letters\n", ""},
		{"list", "inbox room_close: 1 waiting, 0 dead letters\n", ""},
	} {
		words := strings.Fields(test.args)
		code, stdout, stderr := closeout("inbox " + words[0] + " --data " + data + " " + strings.Join(words[1:], " "))
		if code != 0 || !strings.Contains(stdout, test.want) || test.absent != "" && strings.Contains(stdout, test.absent) {
			t.Errorf("%s: exit code %d, want %q\n%s%s", test.args, code, test.want, stdout, stderr)
		}
	}
}

func TestInboxCommandsBeforeTheFirstWebhook(t *testing.T) {
	data := t.TempDir()
	code, _, stderr := closeout("inbox list --data " + data)
	if code != 1 || !strings.Contains(stderr, "no webhook has run in "+data) {
		t.Errorf("%d %s", code, stderr)
	}
}
