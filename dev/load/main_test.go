package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CLOSEOUT_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func send(args string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = run(context.Background(), append([]string{"load"}, strings.Fields(args)...), &out, &err)
	return code, out.String(), err.String()
}

// receiver starts a webhook that answers genuine callbacks with code and others with forged. It
// returns the flags to send to it.
func receiver(t *testing.T, code, forged int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		event, err := zego.Parse("", body)
		if err != nil {
			t.Errorf("%v: %s", err, body)
			return
		}
		if head := event.Head(); head.Signature != zego.Sign("s", head.Timestamp, head.Nonce) {
			w.WriteHeader(forged)
			return
		}
		w.WriteHeader(code)
		fmt.Fprintln(w, `{"status":"started"}`)
	}))
	t.Cleanup(server.Close)
	return "--apps 1=s --url " + server.URL + webhook.Path + " "
}

// The line of a single callback is the only output.
func TestSendOne(t *testing.T) {
	const line = "room_session_id 858012925204410417, attempt 1: 200 OK {\"status\":\"started\"}\n"
	if code, stdout, stderr := send(receiver(t, 200, 401) + "--session 858012925204410417"); code != 0 || stdout != line || stderr != "" {
		t.Errorf("exit code %d, stdout:\n%sstderr:\n%s", code, stdout, stderr)
	}
}

func TestSendMany(t *testing.T) {
	tests := []struct {
		name           string
		code, forged   int
		args           string
		exit           int
		stdout, stderr string // expected to be contained
	}{
		{"a few", 200, 401, "--count 3 --session 7", 0, "room_session_id 9, attempt 1: 200 OK", ""},
		{"a few, reported", 200, 401, "--count 3 --seed 5", 0, "\nseed              5\nsessions          3 in ", ""},
		{"many", 200, 401, "--count 30 --seed 5", 0, "seed              5\nsessions          30 in ", "sending 30 sessions to http://127.0.0.1:"},
		{"many, each with a line", 200, 401, "--count 30 --session 7 --verbose", 0, "room_session_id 36, attempt 1: 200 OK", ""},
		{"one, and what goes with it", 200, 401, "--duplicates 1 --bad-signatures 1", 0, "badly signed      1: 1 refused, 0 accepted\n", ""},
		{"lost", 503, 401, "--count 2 --once", 1, "  lost            2\n", "error: 2 of 2 callbacks were not acknowledged\n"},
		{"forgeries accepted", 200, 200, "--count 2 --bad-signatures 1", 1, "badly signed      2: 0 refused, 2 accepted\n", "error: 2 of 2 badly signed callbacks were accepted\n"},
		{"open loop", 200, 401, "--count 40 --rate 10000 --burst 10 --burst-every 1ms --spread 1ms --rooms 3 --resign 1", 0, "sessions          40 in ", "seed "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := send(receiver(t, tt.code, tt.forged) + tt.args)
			if code != tt.exit || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("exit code %d, stdout:\n%sstderr:\n%s", code, stdout, stderr)
			}
		})
	}
}

// Without --session, the seed determines the sessions.
func TestSendRepeatsSessions(t *testing.T) {
	sessions := func(seed string) string {
		_, stdout, _ := send(receiver(t, 200, 401) + "--parallel 1 --count 2 --seed " + seed)
		first, _, _ := strings.Cut(stdout, "sent to")
		return first
	}
	if first, again, other := sessions("1"), sessions("1"), sessions("2"); first != again || first == other || first == "" {
		t.Errorf("with seed 1:\n%sagain:\n%swith seed 2:\n%s", first, again, other)
	}
}

// With --json -, stdout has only JSON.
func TestSendJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	for _, to := range []string{"-", file} {
		code, stdout, stderr := send(receiver(t, 200, 401) + "--seed 3 --json " + to)
		encoded, text := stdout, stderr
		if to == file {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			encoded, text = string(b), stdout
		}
		var report load.Report
		if err := json.Unmarshal([]byte(encoded), &report); err != nil || code != 0 || report.Acknowledged != 1 || report.Seed != 3 {
			t.Errorf("%s: exit code %d, %v, report %+v", to, code, err, report)
		}
		if !strings.Contains(text, "attempt 1: 200 OK") || !strings.Contains(text, "\nseed              3\n") {
			t.Errorf("%s: text:\n%s", to, text)
		}
	}
}

func TestSendJournal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	if code, _, stderr := send(receiver(t, 200, 401) + "--count 50 --session 100 --duplicates 0.5 --journal " + file); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	journal, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sessions := map[uint64]bool{}
	for line := range strings.Lines(string(journal)) {
		var e audit.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		sessions[e.RoomSessionID] = e.Acknowledged && e.Status == "started" && e.AppID == 1
	}
	for id := uint64(100); id < 150; id++ {
		if !sessions[id] {
			t.Errorf("session %d is not in the journal, or not acknowledged", id)
		}
	}
	if len(sessions) != 50 {
		t.Errorf("%d sessions in the journal", len(sessions))
	}
}

// A run stops with an error if its journal can't be written.
func TestSendJournalFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	code, _, stderr := send(receiver(t, 200, 401) + "--count 1000000 --parallel 1 --journal /dev/full")
	if code != 1 || !strings.Contains(stderr, "error: stopped before all was sent: --journal: write /dev/full") {
		t.Errorf("exit code %d, stderr:\n%s", code, stderr)
	}
}

func TestSendFaults(t *testing.T) {
	tests := []struct{ args, want string }{
		{"--count 0", "--count: found 0, want at least 1"},
		{"--rooms 0", "--rooms: found 0, want at least 1"},
		{"--parallel 0", "--parallel: found 0, want at least 1"},
		{"--parallel -1", "--parallel: found -1, want at least 1"},
		{"--duplicates 1.5", "--duplicates: found 1.5, want 0 to 1"},
		{"--bad-signatures NaN", "--bad-signatures: found NaN, want 0 to 1"},
		{"--resign -1", "--resign: found -1, want 0 to 1"},
		{"--rate -1", "--rate: found -1, want 0"},
		{"--rate fast", `"fast"`},
		{"--burst 5", "--burst: found 5 without --burst-every"},
		{"--burst-every 5s", "--burst-every: found 5s without --burst"},
		{"--spread -1s", "--spread: found -1s, want"},
		{"--timeout 0s", "--timeout: found 0s, want"},
		{"--seed -1", `"-1"`},
		{"--session x", `--session: found "x"`},
		{"--url localhost:8080", "--url: want an address"},
		{"--json /nowhere/report", "--json: open /nowhere/report"},
		{"--journal /nowhere/journal", "--journal: open /nowhere/journal"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := send("--apps 1=s " + tt.args)
			if code != 1 && code != 2 || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") > 3 {
				t.Errorf("exit code %d, stdout:\n%sstderr:\n%s", code, stdout, stderr)
			}
		})
	}
}
