package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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

func TestSend(t *testing.T) {
	const answer = ` 200 OK {"status":"started"}` + "\n"
	for _, tt := range []struct {
		answer         int
		args           string
		code           int
		stdout, stderr string
	}{
		{200, "--session 858012925204410417", 0, "room_session_id 858012925204410417, attempt 1:" + answer, ""},
		{200, "--count 2 --session 18446744073709551615", 0,
			"room_session_id 18446744073709551615, attempt 1:" + answer + "room_session_id 1, attempt 1:" + answer, ""},
		{200, "--participants 1 --session 2", 0, "room_session_id 2, room_create, attempt 1:" + answer + "room_session_id 2, room_login, attempt 1:" + answer +
			"room_session_id 2, stream_create, attempt 1:" + answer + "room_session_id 2, stream_close, attempt 1:" + answer +
			"room_session_id 2, room_logout, attempt 1:" + answer + "room_session_id 2, attempt 1:" + answer, ""},
		{503, "--once --session 3", 1, "room_session_id 3, attempt 1: 503 Service Unavailable {\"status\":\"started\"}\n", "error: 1 of 1 callbacks were not acknowledged\n"},
	} {
		code, stdout, stderr := closeout(receiver(t, tt.answer) + tt.args)
		if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
			t.Errorf("%s: exit code %d, stdout:\n%sstderr:\n%s", tt.args, code, stdout, stderr)
		}
	}
}

func TestSendRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"--count 0":            "--count: found 0, want at least 1",
		"--participants -1":    "--participants: found -1, want 0 or more",
		"--timeout 0s":         "--timeout: found 0s, want more than 0s",
		"--session x":          `--session: found "x"`,
		"--app 2":              "--app: CLOSEOUT_APPS has no secret for app 2",
		"--url localhost:8080": "--url: want an address",
	} {
		code, stdout, stderr := closeout("send --apps 1=s " + args)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") > 3 {
			t.Errorf("%s: exit code %d, stdout:\n%sstderr:\n%s", args, code, stdout, stderr)
		}
	}
}
