// Package examples tests the programs in its folders on a real Temporal server: they do what their
// READMEs say.
package examples

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// maxWait is how long the test waits for something that should take seconds. Builds, which
// may download, have no limit.
const maxWait = time.Minute

var update = flag.Bool("update", false, "record the histories in the examples' testdata anew")

func TestExamplesDoWhatTheySay(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all programs and runs a real Temporal")
	}
	programs := t.TempDir()
	build(t, ".", programs, "./...")
	build(t, "../dev", programs, ".")
	temporal := startTemporal(t, filepath.Join(programs, "dev"))

	// The callbacks, in the order in which they are sent, and their results.
	type step struct {
		send     string // further flags of the command
		post     string // or the fields of another callback, in JSON
		workflow string
		decide   string // when the run is blocked: the command of "blocked", with flags
		reset    bool   // reset the run to its beginning
		bill     string // what the session's bill shows
		want     string // the state, and that of each step
	}
	type test struct {
		name     string
		settings []string
		steps    []step
	}
	tests := []test{
		{"wallet", nil, []step{
			{send: "--room paid-1 --session 1", workflow: "room-close-1-1", want: "done recordings:done billing:done charge:done payout:done"},
			{send: "--room paid-left --session 2", workflow: "room-close-1-2", want: "given_up recordings:done billing:done charge:done payout:given_up refund:done"},
			{send: "--room paid-frozen --session 3", workflow: "room-close-1-3", decide: "skip --reason refunded", want: "skipped recordings:done billing:done charge:done payout:skipped refund:done"},
			{send: "--room lobby --session 4", workflow: "room-close-1-4", want: "done billing:done recordings:done"},
		}},
		{"transcription", nil, []step{
			{send: "--room lobby --session 11", workflow: "room-close-1-11", want: "done billing:done recordings:done order:done transcript:done"},
			{send: "--room lobby --session 12 --recording=false", workflow: "room-close-1-12", want: "done billing:done recordings:done"},
		}},
		{"digest", nil, []step{
			{send: "--room launch/main --session 21", workflow: "room-close-1-21", want: "done billing:done recordings:done digest:done"},
			{send: "--room launch/backstage --session 22", workflow: "room-close-1-22", want: "done billing:done recordings:done digest:done"},
			{workflow: "digest-1-launch", want: "done mail:done"},
			// The reset run reports to the digest again and gets the same answer. A session
			// that is new to the digest is too late.
			{reset: true, workflow: "room-close-1-21", want: "done billing:done recordings:done digest:done"},
			{send: "--room launch/main --session 23", workflow: "room-close-1-23", want: "given_up billing:done recordings:done digest:given_up"},
		}},
		{"agent", nil, []step{
			{post: `"Event":"AgentInstanceDeleted","AgentInstanceId":"1912","RoomId":"lobby","Data":{"Code":0}`, workflow: "agent-1-1912"},
		}},
		{"pricing", nil, []step{
			{send: "--room call-7 --participants 3 --session 41", workflow: "room-close-1-41", want: "done billing:done recordings:done", bill: "- EUR 6.90 for call: 23 × EUR 0.30 per minute"},
		}},
		{"service", []string{"SUPPORT_APP=2"}, []step{
			{send: "--room live-tonight --session 31", workflow: "room-close-1-31", want: "done billing:done recordings:done replay:done announcement:done"},
			{send: "--room live-silent --session 32 --recording=false", workflow: "room-close-1-32", want: "given_up billing:done recordings:done replay:given_up announcement:skipped"},
			{send: "--app 2 --room ticket-4711 --session 33 --closed-at " + time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339), workflow: "room-close-2-33", want: "done billing:done recordings:done ticket:done survey:done"},
			{send: "--room lobby --session 34", workflow: "room-close-1-34", want: "done billing:done recordings:done"},
		}},
	}
	for _, program := range list(t, programs) {
		if program != "dev" && !slices.ContainsFunc(tests, func(tt test) bool { return tt.name == program }) {
			t.Errorf("example %s is not tested", program)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, address, recorded := t.TempDir(), freeAddress(t), filepath.Join(t.TempDir(), "recorded")
			env := append(tt.settings, "CLOSEOUT_APPS=1=secret;2=secret", "CLOSEOUT_SETTLING=0s", "CLOSEOUT_DATA="+data, "CLOSEOUT_TASK_QUEUE="+tt.name,
				"CLOSEOUT_LISTEN="+address, "CLOSEOUT_ADMIN_LISTEN=127.0.0.1:0", "PUBLIC_URL=http://"+address, "TEMPORAL_ADDRESS="+temporal)
			program := filepath.Join(programs, tt.name)
			start(t, env, program, "serve").await(t, "worker polling")
			runs := dial(t, temporal)
			for _, s := range tt.steps {
				if s.send != "" {
					run(t, env, program, "send "+s.send)
				}
				if s.post != "" {
					post(t, "http://"+address, s.post)
				}
				if s.decide != "" {
					heading, _, _ := strings.Cut(awaitBlocked(t, env, program, s.workflow), "\n")
					headingIsPrinted(t, heading)
					run(t, env, program, "blocked "+s.decide+" "+s.workflow)
				}
				if s.reset {
					reset(t, runs, s.workflow)
				}
				if got := outcome(t, runs, s.workflow); got != s.want {
					t.Errorf("%s is\n%s, want\n%s", s.workflow, got, s.want)
				}
				if s.bill != "" {
					if said := run(t, env, program, "bill show "+strings.TrimPrefix(s.workflow, "room-close-1-")); !strings.Contains(said, s.bill) {
						t.Errorf("the bill of %s has no %q:\n%s", s.workflow, s.bill, said)
					}
				}
				if *update && !s.reset { // a reset run has the ID of the first
					run(t, env, program, "history save --output "+recorded+" "+s.workflow)
				}
			}
			if *update {
				replaceHistories(t, recorded, filepath.Join(tt.name, "testdata"))
			}
		})
	}
}

// replaceHistories replaces the recorded histories of an example's own Workflows.
func replaceHistories(t *testing.T, from, to string) {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(to, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range list(t, from) {
		if strings.HasPrefix(name, "RoomClose_") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// build builds programs into a folder, each with the name of its own folder.
func build(t *testing.T, module, folder string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-C", module, "-o", folder + string(filepath.Separator)}, packages...)...)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, said)
	}
}

// list returns the names in a folder.
func list(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".exe"))
	}
	return names
}

// startTemporal runs a Temporal server until the test ends, and returns its address.
func startTemporal(t *testing.T, dev string) (address string) {
	t.Helper()
	p := start(t, []string{"CLOSEOUT_DATA=" + t.TempDir()}, dev, "temporal", "--temporal-port", "0", "--ui-port", "0")
	return p.await(t, `  Temporal +(\S+), namespace default`)[1]
}

func dial(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// freeAddress returns an address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// post sends a genuine callback of one of ZEGO's newer products.
func post(t *testing.T, address, fields string) {
	t.Helper()
	now := time.Now().UnixMilli()
	body := fmt.Sprintf(`{"AppId":1,"Timestamp":%d,"Nonce":"1","Signature":%q,%s}`, now, zego.Sign("secret", now, "1"), fields)
	response, err := http.Post(address+webhook.Path, "application/json", strings.NewReader(body)) // #nosec G107 -- ours
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", body, response.Status)
	}
}

// reset resets a run, as More Actions → Reset in the Web UI does.
func reset(t *testing.T, runs client.Client, workflow string) {
	t.Helper()
	_, err := runs.ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
		Namespace:                 client.DefaultNamespace,
		WorkflowExecution:         &common.WorkflowExecution{WorkflowId: workflow},
		WorkflowTaskFinishEventId: 4, // started, and the first workflow task scheduled, started, completed
		Reason:                    "a test",
		RequestId:                 workflow,
	})
	if err != nil {
		t.Fatalf("reset %s: %v", workflow, err)
	}
}

// outcome waits for the run to end, and returns the states of the run and its steps in a
// line.
func outcome(t *testing.T, runs client.Client, workflow string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), maxWait)
	defer cancel()
	var result workflows.Result
	if err := runs.GetWorkflow(ctx, workflow, "").Get(ctx, &result); err != nil {
		t.Fatalf("%s: %v", workflow, err)
	}
	words := []string{string(result.State)}
	for _, s := range result.Steps {
		words = append(words, fmt.Sprintf("%s:%s", s.Step, s.State))
	}
	return strings.Join(words, " ")
}

// command returns a command with only these settings.
func command(settings []string, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CLOSEOUT_") || strings.HasPrefix(v, "TEMPORAL_")
	}), settings...)
	return cmd
}

// run runs a command and returns its output.
func run(t *testing.T, settings []string, program, args string) string {
	t.Helper()
	said, err := command(settings, program, strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args, err, said)
	}
	return string(said)
}

// awaitBlocked waits until a run is listed as blocked, and returns the list.
func awaitBlocked(t *testing.T, settings []string, program, workflow string) (list string) {
	t.Helper()
	for deadline := time.Now().Add(maxWait); !strings.Contains(list, workflow+" "); {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not blocked", workflow)
		}
		list = run(t, settings, program, "blocked list")
	}
	return list
}

// headingIsPrinted reports lists of blocked runs in the READMEs with other headings.
func headingIsPrinted(t *testing.T, heading string) {
	t.Helper()
	pages, err := filepath.Glob("*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	printed := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "WORKFLOW ID ") {
				if printed++; !slices.Equal(strings.Fields(line), strings.Fields(heading)) {
					t.Errorf("%s prints %q, want %q", page, line, heading)
				}
			}
		}
	}
	if printed < 3 {
		t.Errorf("%d lists are printed", printed)
	}
}

// process is a program that runs until the test ends.
type process struct {
	name  string
	ended chan struct{}

	mu   sync.Mutex
	said bytes.Buffer
}

// Write keeps the program's output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

func start(t *testing.T, settings []string, program string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(program), ended: make(chan struct{})}
	cmd := command(settings, program, args...)
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the output says more
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(maxWait):
			t.Errorf("%s doesn't stop", p.name)
			_ = cmd.Process.Kill()
			<-p.ended
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p)
		}
	})
	return p
}

// await waits until the output matches, and returns the submatches.
func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(maxWait); ; {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(p.String()); found != nil {
			return found
		}
		select {
		case <-tick.C:
		case <-p.ended:
			t.Fatalf("%s ended before it said %q", p.name, pattern)
		case <-deadline:
			t.Fatalf("%s didn't say %q", p.name, pattern)
		}
	}
}
