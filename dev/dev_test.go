package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// The command dev, as a new user runs it: its instructions for sending a callback work,
// its state survives a restart, and Ctrl-C ends it.
func TestOneCommand(t *testing.T) {
	data := t.TempDir()
	temporalPort, uiPort := freePort(t), freePort(t)
	dev := func() (out *lines, stop func()) {
		t.Helper()
		return launch(t, "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--temporal-port", temporalPort, "--ui-port", uiPort)
	}

	out, stop := dev()
	if !strings.Contains(out.String(), "http://127.0.0.1:"+uiPort) || !strings.Contains(out.String(), filepath.Join(data, "ledger.db")) {
		t.Errorf("it says:\n%s", out)
	}
	code, said := sendAsTold(t, out.String())
	if code != 0 || !strings.Contains(said, `"status":"started"`) {
		t.Errorf("the printed command: %d\n%s", code, said)
	}
	again := regexp.MustCompile(`--session (\d+) --closed-at \S+`).FindStringSubmatch(said)
	if again == nil {
		t.Fatalf("it doesn't say how to send it again:\n%s", said)
	}
	manifest := filepath.Join(data, "archive", "1", again[1], "manifest.json")
	wait(t, "the sample is archived", func() bool { return exists(manifest) })
	if m := read(t, manifest); !strings.Contains(m, `"size": 16044`) {
		t.Errorf("manifest %s", m)
	}
	showBill := func() string {
		var said lines
		if code := run(t.Context(), []string{"dev", "bill", "show", "--data", data, again[1]}, &said, &said); code != 0 {
			t.Errorf("bill show: %d\n%s", code, &said)
		}
		return said.String()
	}
	bill := showBill()
	for _, want := range []string{"participants: 2, ", "minutes: 17, ", "amount: EUR 0.34"} {
		if !strings.Contains(bill, want) {
			t.Errorf("the first bill has no %q:\n%s", want, bill)
		}
	}
	curl(t, out.String())
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:"+temporalPort)
	var status lines
	if code := run(t.Context(), []string{"dev", "status", "--wait", "1m", "--data", data, again[1]}, &status, &status); code != 0 {
		t.Errorf("status: %d\n%s", code, &status)
	}
	t.Setenv("TEMPORAL_ADDRESS", "")
	asPrinted(t, "../docs/operations.md", "room-close-1-858012925204410417", again[1], status.String())
	asPrinted(t, "../docs/start.md", "session 858012925204410417 of app 1", again[1], bill)
	stop()

	out, stop = dev()
	if code, said := sendAsTold(t, out.String(), strings.Fields(again[0])...); code != 0 || !strings.Contains(said, `"status":"duplicate"`) {
		t.Errorf("after a restart: %d\n%s", code, said)
	}
	if now := showBill(); now != bill {
		t.Errorf("the bill was\n%s, and after the same callbacks it is\n%s", bill, now)
	}
	stop()
}

// asPrinted compares the block in a page that begins with a given line with the output
// about a session, except parts that differ each time. A block that ends in "..." is the
// beginning of the output.
func asPrinted(t *testing.T, page, begin, session, output string) {
	t.Helper()
	_, block, found := strings.Cut("\n"+read(t, page), "\n    "+begin+"\n")
	if !found {
		t.Fatalf("%s has no block that begins with %q", page, begin)
	}
	block, _, _ = strings.Cut(begin+"\n"+block, "\n\n")
	masked := func(text string) string {
		for _, mask := range []struct{ pattern, by string }{
			{`\d{4}-\d\d-\d\dT[\d:.]+Z`, "TIME"}, {`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "UUID"}, {`after [\d.]+s`, "after DURATION"},
			{`http://[\w.]+:\d+`, "http://HOST"}, {`\b` + session + `\b`, "858012925204410417"}, {`\broom +\S+`, "room NAME"}, {`\s+`, " "},
		} {
			text = regexp.MustCompile(mask.pattern).ReplaceAllString(text, mask.by)
		}
		return strings.TrimSpace(text)
	}
	want, got := masked(block), masked(output)
	if start, cut := strings.CutSuffix(want, " ..."); cut {
		want, got = start, got[:min(len(start), len(got))]
	}
	if got != want {
		t.Errorf("%s prints\n%s\nand it is\n%s", page, want, got)
	}
}

// launch runs the command dev until stop is called, which acts as Ctrl-C.
func launch(t *testing.T, arguments ...string) (out *lines, stop func()) {
	t.Helper()
	t.Setenv("CLOSEOUT_APPS", "") // run sets it
	t.Setenv("CLOSEOUT_PRICES", "")
	out = &lines{}
	log := &lines{}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- run(ctx, append([]string{"dev"}, arguments...), out, log) }()
	stop = func() {
		t.Helper()
		cancel()
		select {
		case c := <-code:
			if c != 0 {
				t.Errorf("exit code %d:\n%s", c, log)
			}
		case <-time.After(patience):
			t.Fatalf("it doesn't stop:\n%s", log)
		}
	}
	wait(t, "it runs", func() bool {
		select {
		case c := <-code:
			t.Fatalf("exit code %d:\n%s", c, log)
		default:
		}
		return strings.Contains(out.String(), "Ctrl-C stops")
	})
	return out, stop
}

// `dev temporal` provides everything for a program of your own, with the settings that it
// prints. No other setup is necessary.
func TestTemporalAlone(t *testing.T) {
	data, temporalPort, uiPort := t.TempDir(), freePort(t), freePort(t)
	out, stop := launch(t, "temporal", "--data", data, "--temporal-port", temporalPort, "--ui-port", uiPort)
	t.Cleanup(stop) // after the cleanups of the program, which is started next
	for _, want := range []string{"http://127.0.0.1:" + uiPort, "TEMPORAL_ADDRESS='127.0.0.1:" + temporalPort + "'"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("without %s it says:\n%s", want, out)
		}
	}
	if code, page := get(t, &config.Config{AdminListen: "127.0.0.1:" + uiPort}, "/"); code != 200 || !strings.Contains(page, "<html") {
		t.Errorf("the Web UI: %d\n%s", code, page)
	}

	c := settings(t, map[string]string{"data": data})
	c.Temporal.HostPort = "127.0.0.1:" + temporalPort
	address := start(t, c, both)
	closed := newClose()
	if a := post(t, address, closed); a.code != 200 || a.Status != webhook.Started {
		t.Errorf("answer %+v", a)
	}
	if r := result(t, dial(t, c), closed); r.State != workflows.StateDone {
		t.Errorf("result %+v", r)
	}
	bill(t, c, closed)
}

var sendLine = regexp.MustCompile(`go run -C dev \. (send .*)`)

func sendAsTold(t *testing.T, said string, more ...string) (int, string) {
	t.Helper()
	line := sendLine.FindStringSubmatch(said)
	if line == nil {
		t.Fatalf("no command in:\n%s", said)
	}
	var out lines
	code := run(t.Context(), append(append([]string{"dev"}, strings.Fields(line[1])...), more...), &out, &out)
	return code, out.String()
}

// curl runs the printed shell lines.
func curl(t *testing.T, said string) {
	t.Helper()
	for _, program := range []string{"sh", "curl", "sha1sum"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Errorf("the lines for a shell must be tried in CI: %v", err)
			}
			return
		}
	}
	_, script, _ := strings.Cut(said, "Or by hand:")
	script, _, _ = strings.Cut(script, "Ctrl-C")
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil || !strings.Contains(string(out), "200 OK") {
		t.Errorf("the lines for a shell: %v\n%s", err, out)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, flag := range []string{"--temporal-port", "--ui-port"} {
		ports := map[string]string{"--temporal-port": freePort(t), "--ui-port": freePort(t)}
		ports[flag] = taken
		var out lines
		code := run(t.Context(), []string{"dev", "--data", t.TempDir(), "--temporal-port", ports["--temporal-port"], "--ui-port", ports["--ui-port"]}, &out, &out)
		if code != 1 || !strings.Contains(out.String(), "port "+taken) || !strings.Contains(out.String(), flag) {
			t.Errorf("%s: %d\n%s", flag, code, &out)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
