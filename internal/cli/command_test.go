package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	urfave "github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/internal/telemetry"
)

func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CLOSEOUT_") {
			_ = os.Unsetenv(name)
		}
	}
	telemetry.AdoptLibraries(slog.New(slog.DiscardHandler)) // gRPC's logger may not change once a server runs
	os.Exit(m.Run())
}

func closeout(args string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = cli.Main(context.Background(), service.Extension{}, append([]string{"closeout"}, strings.Fields(args)...), &out, &err)
	return code, out.String(), err.String()
}

func TestHelpAndFaults(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	tests := []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"", 0, "closeout setup\n", ""},
		{"--help", 0, "closeout setup\n", ""},
		{"version", 0, "closeout ", ""},
		{"serve --help", 0, "[$CLOSEOUT_ADMIN_LISTEN] (default: 127.0.0.1:9090)", ""},
		{"worker --help", 0, "[$CLOSEOUT_DATABASE_URL_FILE]", ""},
		{"blocked", 0, "retry", ""},
		{"completion bash", 0, "complete -o bashdefault -o default -F _closeout_complete closeout\n", ""},
		{"serv", 2, "", "error: found no command \"serv\"\nhint: did you mean serve? See closeout --help\n"},
		{"x", 2, "", "error: found no command \"x\"\nhint: see closeout --help\n"},
		{"blocked lst", 2, "", "error: found no command \"lst\"\nhint: did you mean list? See closeout blocked --help\n"},
		{"help serv", 2, "", "error: No help topic for 'serv'"},
		{"serve now", 2, "", "error: unexpected argument \"now\"\nhint: see closeout serve --help"},
		{"serve --lisen :80", 2, "", "error: found no flag --lisen\nhint: did you mean --listen? See closeout serve --help\n"},
		{"bill list --limit x", 2, "", "error: invalid value \"x\" for flag --limit: "},
		{"serve --x", 2, "", "error: found no flag --x\nhint: see closeout serve --help\n"},
		{"serve", 2, "", "CLOSEOUT_APPS: missing"},
		{"webhook --apps 1=s --listen 80", 2, "", `--listen: found "80"`},
		{"blocked retry room-close-1-2", 2, "", `"reason"`},
		{"blocked skip --reason r", 2, "", "no session\nhint: for example: closeout blocked skip"},
		{"health --admin-listen 127.0.0.1:1", 3, "", "connection refused"},
		{"blocked list", 3, "", "connection refused\"\nhint: closeout doctor checks all connections\n"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := closeout(tt.args)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, stdout:\n%s\nstderr:\n%s", code, stdout, stderr)
			}
			if code != 0 && (stdout != "" || strings.Count(stderr, "\n") > 3) {
				t.Errorf("too much said of a fault, stdout:\n%s\nstderr:\n%s", stdout, stderr)
			}
		})
	}
}

// Commands in help texts use the program's own name, so that they can be copied.
func TestHelpCallsTheProgramByItsName(t *testing.T) {
	for _, args := range []string{"send --help", "blocked retry --help", "archive --help", "bill --help", "audit --help"} {
		var out, err strings.Builder
		if cli.Main(context.Background(), service.Extension{}, append([]string{"/usr/bin/rooms"}, strings.Fields(args)...), &out, &err); strings.Contains(out.String(), "closeout ") || !strings.Contains(out.String(), " rooms ") {
			t.Errorf("%s: %s%s", args, out.String(), err.String())
		}
	}
}

// Help shows the defaults that depend on the program's name.
func TestHelpShowsTheDefaultsOfAProgram(t *testing.T) {
	for program, want := range map[string][]string{"": {"(default: closeout)", "(default: ./data)"}, "wallet": {"(default: wallet)", "(default: ./data/wallet)"}} {
		var out, err strings.Builder
		cli.Main(context.Background(), service.Extension{Name: program}, []string{"program", "serve", "--help"}, &out, &err)
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%q: without %q:\n%s%s", program, text, out.String(), err.String())
			}
		}
	}
}

func TestHealth(t *testing.T) {
	ready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" || !ready {
			http.Error(w, "can't accept: namespace default of Temporal: away", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "degraded: queuing")
	}))
	defer server.Close()
	args := "health --admin-listen " + strings.TrimPrefix(server.URL, "http://")
	if code, stdout, stderr := closeout(args); code != 0 || stdout != "degraded: queuing\n" {
		t.Errorf("ready: %d %s%s", code, stdout, stderr)
	}
	ready = false
	if code, _, stderr := closeout(args); code != 1 || !strings.Contains(stderr, "not ready: can't accept: namespace default of Temporal: away") {
		t.Errorf("not ready: %d %s", code, stderr)
	}
}

// Help doesn't show values from the environment as defaults.
func TestHelpShowsNoSecret(t *testing.T) {
	for _, name := range []string{"CLOSEOUT_APPS", "CLOSEOUT_DATABASE_URL", "CLOSEOUT_BILLING_TOKEN", "CLOSEOUT_CALLBACK_TOKEN"} {
		t.Setenv(name, "hunter2")
	}
	for _, args := range []string{"serve --help", "send --help", "serve", "send", "setup"} {
		if _, stdout, stderr := closeout(args); strings.Contains(stdout+stderr, "hunter2") {
			t.Errorf("%s shows a secret:\n%s%s", args, stdout, stderr)
		}
	}
}

// Programs with different names share neither a Task Queue nor a data folder, unless they are
// configured to.
func TestNamedProgramHasItsOwnDefaults(t *testing.T) {
	for _, tt := range []struct {
		program, queue, data, args, wantQueue, wantData string
	}{
		{program: "", wantQueue: "closeout", wantData: "data"},
		{program: "wallet", wantQueue: "wallet", wantData: "data/wallet"},
		{program: "wallet", queue: "q", data: "d", wantQueue: "q", wantData: "d"},
		{program: "wallet", queue: "q", data: "d", args: "--task-queue p --data e", wantQueue: "p", wantData: "e"},
	} {
		t.Setenv("CLOSEOUT_TASK_QUEUE", tt.queue)
		t.Setenv("CLOSEOUT_DATA", tt.data)
		root := cli.Root(service.Extension{Name: tt.program}, "program")
		serve := root.Command("serve")
		serve.Action = func(_ context.Context, cmd *urfave.Command) error {
			c, _, err := cli.Load(cmd, false)
			if err != nil {
				return err
			}
			if want, err := filepath.Abs(tt.wantData); err != nil || c.TaskQueue != tt.wantQueue || c.Data != want {
				t.Errorf("%+v: task queue %s, data %s, %v", tt, c.TaskQueue, c.Data, err)
			}
			return nil
		}
		if code := cli.Run(t.Context(), root, append([]string{"program", "serve"}, strings.Fields(tt.args)...), io.Discard, io.Discard); code != 0 {
			t.Errorf("%+v: exit code %d", tt, code)
		}
	}
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rooms")
	if code, stdout, stderr := closeout("init " + dir); code != 0 || !strings.Contains(stdout, "Wrote a module to "+dir) || stderr != "" {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	for args, want := range map[string]string{"": "2 error: want one folder", dir: "1 error: write a module to " + dir + ": " + dir + " has files in it, among them .gitignore; want a new or an empty folder"} {
		if code, _, stderr := closeout("init " + args); !strings.HasPrefix(fmt.Sprint(code, " ", stderr), want) {
			t.Errorf("%s: %d %s", args, code, stderr)
		}
	}
}

// Database drivers indent the lines of their errors by tabs.
func TestErrorsOfSeveralLinesAreIndented(t *testing.T) {
	var stderr strings.Builder
	root := &urfave.Command{Name: "closeout", Action: func(context.Context, *urfave.Command) error {
		return errors.New("connect:\n\tserver a: refused\n\tserver\tb: refused")
	}}
	if code := cli.Run(t.Context(), root, []string{"closeout"}, io.Discard, &stderr); code != 1 || stderr.String() != "error: connect:\n  server a: refused\n  server\\u0009b: refused\n" {
		t.Errorf("%d %q", code, stderr.String())
	}
}
