package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// receiver starts a webhook that verifies callbacks and answers with code. It returns the command that sends to it.
func receiver(t *testing.T, code int) string {
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
			t.Errorf("badly signed: %s", body)
		}
		w.WriteHeader(code)
		fmt.Fprintln(w, `{"status":"started"}`)
	}))
	t.Cleanup(server.Close)
	return "send --apps 1=s --url " + server.URL + webhook.Path + " "
}

// sentLine returns the line that send prints for an acknowledged event.
func sentLine(event string) string {
	return fmt.Sprintf("  %-13s  attempt 1: 200 OK {\"status\":\"started\"}\n", event)
}

func TestSend(t *testing.T) {
	room := sentLine("room_create") + sentLine("room_login") + sentLine("stream_create") + sentLine("stream_close") + sentLine("room_logout")
	next := "\nLook at its run and its bill:\n  http://ui.test/namespaces/default/workflows/room-close-1-2\n  closeout status --wait 5m 2\n  closeout bill show 2\n" +
		"Send the same again with --session 2 --closed-at 2026-11-23T12:00:00.000Z\n"
	saved := filepath.Join(t.TempDir(), "saved.json")
	callback := `{"event":"room_close","appid":1,"timestamp":1,"nonce":"1","signature":"x","room_id":"a","room_session_id":1,"close_reason":0,"room_close_time":"1"}`
	if err := os.WriteFile(saved, []byte(callback+"\n"+callback), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		answer         int
		args           string
		code           int
		stdout, stderr string
	}{
		{200, "--session 858012925204410417 --only room_close", 0, "room_session_id 858012925204410417\n" + sentLine("room_close"), ""},
		{200, "--count 2 --only room_close --session 18446744073709551615", 0,
			"room_session_id 18446744073709551615\n" + sentLine("room_close") + "room_session_id 1\n" + sentLine("room_close"), ""},
		{200, "--participants 1 --session 2 --ui-url http://ui.test --closed-at 2026-11-23T12:00:00Z", 0, "room_session_id 2\n" + room + sentLine("room_close") + next, ""},
		{503, "--once --session 3 --only room_close", 1, "room_session_id 3\n  room_close     attempt 1: 503 Service Unavailable {\"status\":\"started\"}\n", "error: 1 of 1 callbacks were not acknowledged\n"},
		{200, "--replay " + saved, 0, sentLine("callback 1") + sentLine("callback 2"), ""},
	} {
		code, stdout, stderr := closeout(receiver(t, tt.answer) + "--data " + filepath.Join(t.TempDir(), "none") + " " + tt.args)
		if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
			t.Errorf("%s: exit code %d, stdout:\n%sstderr:\n%s", tt.args, code, stdout, stderr)
		}
	}
}

// Send writes a recording into the bucket that a worker on this machine reads. Elsewhere it sends
// none unless told to, because a run would wait for a file that isn't in its bucket.
func TestSendWritesARecordingIntoTheBucket(t *testing.T) {
	for _, tt := range []struct {
		name, folder, args string
		want               bool
	}{
		{"there is a folder", "recordings", "", true},
		{"there is none", "", "", false},
		{"there is none, and it is asked for", "", "--recording", true},
		{"it is not asked for", "recordings", "--recording=false", false},
		{"one event alone", "recordings", "--only room_login", false},
		{"the recording alone", "recordings", "--only recording", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := t.TempDir()
			if tt.folder != "" {
				if err := os.Mkdir(filepath.Join(data, tt.folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			code, stdout, stderr := closeout(receiver(t, 200) + "--session 5 --data " + data + " " + tt.args)
			files, err := filepath.Glob(filepath.Join(data, "recordings", "1", "5", "*_lobby_mix_A_*.wav"))
			if code != 0 || err != nil || (len(files) == 1) != tt.want || strings.Contains(stdout, "  recording ") != tt.want {
				t.Errorf("exit code %d, files %q, %v, stdout:\n%sstderr:\n%s", code, files, err, stdout, stderr)
			}
		})
	}
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "recordings"), 0o700); err != nil {
		t.Fatal(err)
	}
	// This address belongs to another machine, and doesn't answer.
	if _, stdout, _ := closeout("send --apps 1=s --once --timeout 1ms --url http://192.0.2.1:1/zego/callbacks --data " + data); !strings.Contains(stdout, "  room_close ") || strings.Contains(stdout, "  recording ") {
		t.Errorf("to another machine it sends\n%s", stdout)
	}
}

func TestSendRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--count 0":            "--count: found 0, want at least 1",
		"--participants -1":    "--participants: found -1, want 0 to 100000",
		"--only room_opened":   `--only: found "room_opened", want one of room_create, room_login, stream_create, stream_close, room_logout, room_close`,
		"--replay nowhere":     "--replay: open nowhere",
		"--replay send.go":     "--replay: send.go: callback 1: invalid character",
		"--replay /dev/null":   "--replay: /dev/null: found no callback in it",
		"--timeout 0s":         "--timeout: found 0s, want more than 0s",
		"--session x":          `--session: found "x"`,
		"--app 2":              "--app: CLOSEOUT_APPS has no secret for app 2",
		"--url localhost:8080": "--url: want an address",
	} {
		code, stdout, stderr := closeout("send --apps 1=s " + args)
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") > 3 {
			t.Errorf("%s: exit code %d, stdout:\n%sstderr:\n%s", args, code, stdout, stderr)
		}
	}
}

// The exit code distinguishes a webhook that refuses from one that can't be reached.
func TestSendExitCodeSaysWhyNothingWasAcknowledged(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer refusing.Close()
	for url, want := range map[string]int{refusing.URL + webhook.Path: 1, "http://127.0.0.1:1" + webhook.Path: 3} {
		if code, stdout, stderr := closeout("send --apps 1=s --once --only room_close --url " + url); code != want || !strings.Contains(stderr, "1 of 1 callbacks were not acknowledged") {
			t.Errorf("%s: %d, want %d\n%s%s", url, code, want, stdout, stderr)
		}
	}
}
