package cli_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/errordetails/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cockroachdb/pebble/v2"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// patient is a Temporal whose faults are configurable.
type patient struct {
	workflowservice.UnimplementedWorkflowServiceServer
	operatorservice.UnimplementedOperatorServiceServer
	namespace  error
	retention  time.Duration
	attributes map[string]enums.IndexedValueType
	listing    error
	runs       []*workflow.WorkflowExecutionInfo
	polled     time.Time // last poll of its worker; zero without a worker
	backlog    int64
	failure    string // of a Workflow Task
}

func (p *patient) GetWorkflowExecutionHistoryReverse(context.Context, *workflowservice.GetWorkflowExecutionHistoryReverseRequest) (*workflowservice.GetWorkflowExecutionHistoryReverseResponse, error) {
	failed := &history.WorkflowTaskFailedEventAttributes{Failure: &failure.Failure{Message: p.failure}}
	return &workflowservice.GetWorkflowExecutionHistoryReverseResponse{History: &history.History{Events: []*history.HistoryEvent{
		{Attributes: &history.HistoryEvent_WorkflowTaskScheduledEventAttributes{}},
		{Attributes: &history.HistoryEvent_WorkflowTaskFailedEventAttributes{WorkflowTaskFailedEventAttributes: failed}},
	}}}, nil
}

// healthy returns a patient without faults.
func healthy() *patient {
	p := &patient{retention: 24 * time.Hour, attributes: map[string]enums.IndexedValueType{}, polled: time.Now()}
	for _, key := range workflows.SearchAttributes() {
		p.attributes[key.GetName()] = key.GetValueType()
	}
	return p
}

func (p *patient) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{Config: &namespace.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(p.retention)}}, p.namespace
}

func (p *patient) ListSearchAttributes(context.Context, *operatorservice.ListSearchAttributesRequest) (*operatorservice.ListSearchAttributesResponse, error) {
	return &operatorservice.ListSearchAttributesResponse{CustomAttributes: p.attributes}, p.listing
}

func (p *patient) ListWorkflowExecutions(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	return &workflowservice.ListWorkflowExecutionsResponse{Executions: p.runs}, nil
}

func (p *patient) DescribeTaskQueue(_ context.Context, r *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	answer := &workflowservice.DescribeTaskQueueResponse{}
	if !p.polled.IsZero() {
		poller := &taskqueue.PollerInfo{Identity: "1@worker", LastAccessTime: timestamppb.New(p.polled)}
		answer.Pollers = []*taskqueue.PollerInfo{poller, poller} // the worker polls with several goroutines
	}
	if r.GetReportStats() && r.GetTaskQueueType() == enums.TASK_QUEUE_TYPE_WORKFLOW {
		answer.Stats = &taskqueue.TaskQueueStats{ApproximateBacklogCount: p.backlog}
	}
	return answer, nil
}

// serve starts a server for p and sets TEMPORAL_ADDRESS to it.
func (p *patient) serve(t *testing.T, options ...grpc.ServerOption) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	workflowservice.RegisterWorkflowServiceServer(server, p)
	operatorservice.RegisterOperatorServiceServer(server, p)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	t.Setenv("TEMPORAL_ADDRESS", listener.Addr().String())
}

// doctor creates a data folder, and a process whose health endpoint returns state. It returns the
// folder and the doctor command with both.
func doctor(t *testing.T, state string) (data, args string) {
	t.Helper()
	data = t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if err := books.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := books.TakeLook(t.Context(), time.Now(), time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"archive", "recordings"} {
		if err := os.Mkdir(filepath.Join(data, folder), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	process := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if strings.HasPrefix(state, "can't") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, state)
	}))
	t.Cleanup(process.Close)
	return data, "doctor --apps 1=s --data " + data + " --admin-listen " + process.Listener.Addr().String()
}

// Runs with failing Workflow Tasks are counted. The first failure is shown, and selects the hint.
func TestDoctorReportsStuckRuns(t *testing.T) {
	for failure, hint := range map[string]string{
		"unable to find workflow type: CloseShow. Supported types: [RoomClose]": "give each program a CLOSEOUT_TASK_QUEUE of its own",
		"[TMPRL1100] lookup failed": "docs/changing-workflows.md",
	} {
		p := healthy()
		p.failure = failure
		for id, attributes := range map[string]map[string]*common.Payload{"room-close-1-1": nil, "room-close-1-2": {workflows.ReportedProblems: {Data: []byte("[]")}}} {
			p.runs = append(p.runs, &workflow.WorkflowExecutionInfo{Execution: &common.WorkflowExecution{WorkflowId: id}, SearchAttributes: &common.SearchAttributes{IndexedFields: attributes}})
		}
		p.serve(t)
		_, args := doctor(t, "ok")
		code, stdout, stderr := closeout(args)
		if want := "FAIL  stuck runs         1 in task queue closeout, the first is room-close-1-2: " + failure + " → "; code != 1 || !strings.Contains(stdout, want) || !strings.Contains(stdout, hint) {
			t.Errorf("%d, without %q and %q:\n%s%s", code, want, hint, stdout, stderr)
		}
	}
}

// compared stores a comparison in the ledger of a data folder.
func compared(c ledger.Comparison) func(data string) {
	return func(data string) {
		books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
		if err != nil {
			panic(err)
		}
		defer books.Close()
		if err := books.NoteComparison(context.Background(), c); err != nil {
			panic(err)
		}
	}
}

func TestDoctorPassesAndLeavesNothingBehind(t *testing.T) {
	healthy().serve(t)
	data, args := doctor(t, "ok")
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	code, stdout, stderr := closeout(args + " --billing-url http://127.0.0.1:1/bills")
	if code != 0 || stderr != "" || !strings.HasSuffix(stdout, "\n27 ok, 0 warned, 0 failed, 0 skipped\n") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	for _, want := range []string{
		"ok    namespace          default keeps closed runs for 24h", "AppId Int, ", "task queue closeout: 1 workers, 0 waiting tasks",
		" can be written, ", "a running process uses ", "none, 0 callbacks wait", "ledger.db has its tables, and a bill can be made", "recordings can be listed, and is empty\n", "archive can be listed, and is empty; a probe was written, read back and removed\n",
		"http://127.0.0.1:1: found at 127.0.0.1; nothing was posted", "ok    reconciliation     a worker looked for what is due at ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("without %q:\n%s", want, stdout)
		}
	}
	for _, folder := range []string{data, filepath.Join(data, "archive")} {
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), "doctor") {
				t.Errorf("it left %s in %s", e.Name(), folder)
			}
		}
	}
}

func TestDoctorReportsFaultsOfTemporal(t *testing.T) {
	notThere, err := status.New(codes.NotFound, "none").WithDetails(&errordetails.NamespaceNotFoundFailure{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		harm func(*patient)
		code int
		want []string
	}{
		{"away", nil, 1, []string{"FAIL  temporal           127.0.0.1:1 can't be reached, without TLS: ", "TEMPORAL_ADDRESS", "skip  namespace ", "skip  search attributes", "skip  workflow pollers"}},
		{"refuses", func(p *patient) { p.namespace = status.Error(codes.PermissionDenied, "no") }, 1, []string{"FAIL  temporal ", " refuses us", "TEMPORAL_API_KEY"}},
		{"knows no such key", func(p *patient) { p.namespace = status.Error(codes.Unauthenticated, "no") }, 1, []string{"FAIL  temporal ", " refuses us"}},
		{"no namespace", func(p *patient) { p.namespace = notThere.Err() }, 1, []string{"ok    temporal ", "FAIL  namespace          default isn't there → closeout setup", "skip  search attributes"}},
		{"short retention", func(p *patient) { p.retention = time.Hour }, 0, []string{"warn  namespace          default keeps closed runs for 1h", "--retention 720h"}},
		{"an attribute missing", func(p *patient) { delete(p.attributes, "RoomId") }, 1, []string{"FAIL  search attributes  missing: RoomId → closeout setup"}},
		{"an attribute of another type", func(p *patient) { p.attributes["AppId"] = enums.INDEXED_VALUE_TYPE_TEXT }, 1,
			[]string{"FAIL  search attributes  search attribute AppId of namespace default: found type Text, want Int; "}},
		{"attributes are nobody's business", func(p *patient) { p.listing = status.Error(codes.PermissionDenied, "no") }, 0, []string{"warn  search attributes  we may not list them"}},
		{"no worker", func(p *patient) { p.polled = time.Time{} }, 0, []string{"warn  workflow pollers   task queue closeout: 0 workers, 0 waiting tasks: no worker polls it → start one", "warn  activity pollers"}},
		{"the worker is gone", func(p *patient) { p.polled = time.Now().Add(-time.Hour) }, 0, []string{"warn  workflow pollers   task queue closeout: 0 workers, 0 waiting tasks: no worker polls it"}},
		{"no worker for what waits", func(p *patient) { p.polled, p.backlog = time.Time{}, 7 }, 1, []string{"FAIL  workflow pollers   task queue closeout: 0 workers, 7 waiting tasks: no worker polls it", "warn  activity pollers"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
			if tt.harm != nil {
				p := healthy()
				tt.harm(p)
				p.serve(t)
			}
			_, args := doctor(t, "ok")
			code, stdout, stderr := closeout(args)
			if code != tt.code {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("without %q:\n%s%s", want, stdout, stderr)
				}
			}
		})
	}
}

func TestDoctorReportsFaultsBesidesTemporal(t *testing.T) {
	healthy().serve(t)
	remove := func(t *testing.T, name string) func(string) {
		return func(data string) {
			if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep := func(string) {}
	recorded := func(data string) {
		books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer books.Close()
		long := time.Now().Add(-2 * time.Hour)
		u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{Event: zego.EventRecording, AppID: 1, Timestamp: long.Unix()}, TaskID: "T", RoomID: "lobby",
			EventType: zego.RecordingUploaded, Files: []zego.RecordedFile{{FileID: "a.mp4", Status: zego.FileUploaded}}}, long)
		if err := books.Record(t.Context(), []ledger.Event{u}); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, state, args string
		harm              func(data string)
		code              int
		want              []string
	}{
		{"no tables", "ok", "", remove(t, "ledger.db"), 1, []string{"FAIL  ledger ", "ledger.db isn't there: ", " → closeout setup"}},
		{"no database", "ok", "--database-url postgres://u:hunter2@127.0.0.1:1/x", keep, 1, []string{"FAIL  ledger             postgres://127.0.0.1:1: ", "CLOSEOUT_DATABASE_URL"}},
		{"no archive yet", "ok", "", remove(t, "archive"), 0, []string{"ok    archive ", "archive isn't there yet, the worker creates it"}},
		{"no archive", "ok", "--archive-url file:///no/such/folder", keep, 1, []string{"FAIL  archive            /no/such/folder: open it: ", "CLOSEOUT_ARCHIVE_URL"}},
		{"no recordings", "ok", "--recordings-url file:///no/such/folder", keep, 1, []string{"FAIL  recordings         /no/such/folder: open it: ", "CLOSEOUT_RECORDINGS_URL"}},
		{"no such host", "ok", "--billing-url http://u:hunter2@billing.invalid/hunter2", keep, 1, []string{"FAIL  billing            http://billing.invalid: ", "CLOSEOUT_BILLING_URL"}},
		{"the process refuses", "can't accept: away", "", keep, 1, []string{"FAIL  running process ", "can't accept: away"}},
		{"the process is degraded", "degraded: queuing", "", keep, 0, []string{"warn  running process ", "degraded: queuing"}},
		{"no process", "ok", "--admin-listen 127.0.0.1:1", keep, 0, []string{"warn  running process    none answers at 127.0.0.1:1: "}},
		{"no folder yet", "ok", "", func(data string) { remove(t, "")(data) }, 1, []string{"ok    data folder ", " isn't there yet and can be created", "ok    inbox              none yet", "FAIL  ledger "}},
		{"a file for a folder", "ok", "", func(data string) {
			remove(t, "")(data)
			if err := os.WriteFile(data, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 1, []string{"FAIL  data folder ", " can't write to ", "CLOSEOUT_DATA"}},
		{"dead letter", "ok", "", func(data string) {
			queue(t, data, "room-close-1-1")
		}, 0, []string{"ok    inbox ", " can be written, no process uses it", "warn  dead letters       1 dead letters", "closeout inbox list --dead-letters"}},
		{"waits for too long", "ok", "", func(data string) {
			// Write the entry without the inbox, because the inbox dates new entries itself.
			folder := filepath.Join(data, "inbox", inbox.Folder)
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			db, err := pebble.Open(folder, &pebble.Options{FormatMajorVersion: pebble.FormatWALSyncChunks, Logger: pebble.DefaultLogger})
			if err != nil {
				t.Fatal(err)
			}
			const key = "room-close-1-2"
			entry := append(append([]byte{0xe8, 7, 0, byte(len(key))}, key...), "\x00\x00{}"...) // queued at 1000 ms
			for name, value := range map[string][]byte{"v": []byte("1"), "e\x00\x00\x00\x00\x00\x00\x00\x01": entry, "k" + key: []byte("e\x00\x00\x00\x00\x00\x00\x00\x01")} {
				if err := db.Set([]byte(name), value, pebble.Sync); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}, 0, []string{"warn  dead letters       none, but 1 callbacks wait for Temporal, the oldest since 1970"}},
		{"everybody has left a session", "ok", "", func(data string) {
			books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer books.Close()
			long := time.Now().Add(-time.Hour)
			if err := books.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 1, RoomSessionID: 7}, RoomID: "lobby", Event: zego.EventRoomLogout, Stay: "a", User: "a", Login: long, Logout: long, SeenAt: long}}); err != nil {
				t.Fatal(err)
			}
		}, 0, []string{"warn  overdue            1 sessions that all users have left have no room_close, 0 others are silent, the oldest since 20"}},
		{"rooms without callbacks", "ok", "--server-secrets 1=right --server-api-url " + zegofake.New(1, "right").Serve(t), compared(ledger.Comparison{AppID: 1, At: time.Now(), UnknownRooms: 3, UnknownUsers: 9}), 0,
			[]string{"warn  unknown rooms      ZEGO counts 3 rooms and 9 users of app 1 without callbacks, since 20", "room_login"}},
		{"as many rooms as ZEGO counts", "ok", "--server-secrets 1=right --server-api-url " + zegofake.New(1, "right").Serve(t), compared(ledger.Comparison{AppID: 1, At: time.Now(), Rooms: 3}), 0,
			[]string{"ok    unknown rooms      none that ZEGO counts, in 1 apps"}},
		{"rooms compared long ago", "ok", "--server-secrets 1=right --server-api-url " + zegofake.New(1, "right").Serve(t), compared(ledger.Comparison{AppID: 1, At: time.Now().Add(-2 * time.Hour)}), 0,
			[]string{"warn  unknown rooms      not compared with ZEGO's counts of late: app 1"}},
		{"a recording that nobody looks for", "ok", "", recorded, 0, []string{"warn  left recordings    1 recording tasks with callbacks are not archived, and CLOSEOUT_RECORDINGS is none"}},
		{"a recording that nobody has", "ok", "--recordings callback", recorded, 0, []string{"warn  left recordings    1 recording tasks are not archived an hour after", "closeout recording assign"}},
		{"a wrong server secret", "ok", "--server-secrets 1=hunter2 --server-api-url " + zegofake.New(1, "right").Serve(t), keep, 1,
			[]string{"FAIL  server API         DescribeUserNum of app 1: code 100000005", "not its CallbackSecret"}},
		{"a right server secret", "ok", "--server-secrets 1=right --server-api-url " + zegofake.New(1, "right").Serve(t), keep, 0,
			[]string{"answers for 1 apps with a server secret"}},
		{"a worker has no apps", "ok", "--for worker --apps=", keep, 0, []string{"complete, for worker", "ok    ledger ", "22 ok, 0 warned, 0 failed, 0 skipped"}},
		{"a webhook stores usage where a worker may not look", "ok", "--for webhook", keep, 0, []string{"warn  ledger ", "is in this data folder", "ok    event inbox "}},
		{"a webhook can't store usage", "ok", "--for webhook --database-url postgres://127.0.0.1:1/x", keep, 1, []string{"FAIL  ledger "}},
		{"a webhook that stores no usage has no ledger", "ok", "--for webhook --participants off --database-url postgres://127.0.0.1:1/x", keep, 0, []string{"complete, for webhook", "ok    inbox ", "15 ok, 0 warned, 0 failed, 0 skipped"}},
		{"settings", "ok", "--listen 80 --archive-url /hunter2 --apps=", keep, 1,
			[]string{`FAIL  settings           --listen: found "80"`, "FAIL  settings           --archive-url: not a URL", "FAIL  settings           CLOSEOUT_APPS: missing", "skip  all else"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, args := doctor(t, tt.state)
			tt.harm(data)
			code, stdout, stderr := closeout(args + " --billing-token hunter2 --callback-token hunter2_ " + tt.args)
			if code != tt.code || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("without %q:\n%s%s", want, stdout, stderr)
				}
			}
			if lines := strings.Count(stdout, "\n"); lines > 29 {
				t.Errorf("not one line for each check:\n%s", stdout)
			}
		})
	}
}

func TestDoctorAsJSON(t *testing.T) {
	healthy().serve(t)
	_, args := doctor(t, "can't accept")
	code, stdout, stderr := closeout(args + " --json")
	var report struct {
		Checks []struct{ Check, Status, Detail, Hint string }
		Failed int
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 1 || stderr != "error: 1 check failed\n" {
		t.Fatalf("%d, %v\n%s%s", code, err, stdout, stderr)
	}
	if last := report.Checks[len(report.Checks)-1]; report.Failed != 1 || last.Check != "running process" || last.Status != "FAIL" || last.Hint == "" {
		t.Errorf("%+v", report)
	}
}

func TestDoctorRefuses(t *testing.T) {
	if code, stdout, stderr := closeout("doctor --for all"); code != 2 || stdout != "" || !strings.Contains(stderr, `--for: found "all", want serve, webhook or worker`) {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
}

func TestDoctorNamesTheKeysThatRunsNeed(t *testing.T) {
	key := func(name string) string {
		return name + "=" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(name[:1]), 32))
	}
	p := healthy()
	for _, name := range []string{"old", "old", "new", ""} {
		memo := &common.Payload{Data: []byte(`"x"`)}
		if name != "" {
			keys, err := codec.ParseKeys(key(name))
			if err != nil {
				t.Fatal(err)
			}
			all, err := keys.Codec().Encode([]*common.Payload{memo})
			if err != nil {
				t.Fatal(err)
			}
			memo = all[0]
		}
		p.runs = append(p.runs, &workflow.WorkflowExecutionInfo{Memo: &common.Memo{Fields: map[string]*common.Payload{"room_id": memo}}})
	}
	p.serve(t)
	for keys, want := range map[string]string{
		key("new") + ";" + key("old"): "ok    payload keys       new encrypts, and old decrypts; open runs that need new: 1; open runs that need old: 2\n",
		key("new"):                    "need old: 2 → add old to CLOSEOUT_PAYLOAD_KEYS, after the first",
		"":                            "FAIL  payload keys       none, nothing is encrypted; ",
	} {
		t.Setenv("CLOSEOUT_PAYLOAD_KEYS", keys)
		_, args := doctor(t, "ok")
		if _, stdout, stderr := closeout(args); !strings.Contains(stdout, want) {
			t.Errorf("without %q:\n%s%s", want, stdout, stderr)
		}
	}
}

// Secret files that other users can read are reported.
func TestDoctorNamesSecretsThatOthersCanRead(t *testing.T) {
	healthy().serve(t)
	file := filepath.Join(t.TempDir(), "apps")
	if err := os.WriteFile(file, []byte("1=secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{0o600: "ok    secret files       1 files", 0o640: "ok    secret files       1 files", 0o644: "warn  secret files       every user of this machine can read CLOSEOUT_APPS_FILE: " + file + " is 0644 → chmod o="} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, args := doctor(t, "ok")
		t.Setenv("CLOSEOUT_APPS", "")
		t.Setenv("CLOSEOUT_APPS_FILE", file)
		if _, stdout, stderr := closeout(args); !strings.Contains(stdout, want) {
			t.Errorf("%v: without %q:\n%s%s", mode, want, stdout, stderr)
		}
	}
}

func TestDoctorChecksTheCertificateForCallbacks(t *testing.T) {
	healthy().serve(t)
	authority := testenv.NewAuthority(t)
	good, key := authority.Issue(t, testenv.For("closeout.example.com", 90*24*time.Hour))
	soon, soonKey := authority.Issue(t, testenv.For("closeout.example.com", 24*time.Hour))
	over, overKey := authority.Issue(t, testenv.For("closeout.example.com", -time.Minute))
	nameless, namelessKey := authority.Issue(t, &x509.Certificate{NotAfter: time.Now().Add(90 * 24 * time.Hour)})
	for _, tt := range []struct{ name, cert, key, want string }{
		{"of an authority that is not public", good, key, "warn  certificate        " + good + " is for closeout.example.com, until "},
		{"not a pair", good, soonKey, "FAIL  certificate        CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
		{"not there", "/no/such/file", key, "FAIL  certificate        CLOSEOUT_TLS_CERT: read the certificate"},
		{"ends soon", soon, soonKey, " → renew it: ZEGO may refuse to connect\n"},
		{"has ended", over, overKey, "it has expired → renew it"},
		{"nameless", nameless, namelessKey, "is for no name → "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, args := doctor(t, "ok")
			if _, stdout, stderr := closeout(args + " --tls-cert " + tt.cert + " --tls-key " + tt.key); !strings.Contains(stdout, tt.want) {
				t.Errorf("without %q:\n%s%s", tt.want, stdout, stderr)
			}
		})
	}
}

// An API key is sent to Temporal and never shown.
func TestAPIKeyIsSentAndNeverShown(t *testing.T) {
	const key = "eyJ-hunter2"
	var sent atomic.Value
	p := healthy()
	p.serve(t, grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		header, _ := metadata.FromIncomingContext(ctx)
		sent.Store(strings.Join(header.Get("authorization"), ";"))
		return next(ctx, r)
	}))
	for _, by := range []string{"environment", "profile"} {
		t.Run(by, func(t *testing.T) {
			sent.Store("")
			if by == "environment" {
				t.Setenv("TEMPORAL_API_KEY", key)
				t.Setenv("TEMPORAL_TLS", "false") // an API key alone implies TLS
			} else {
				file := filepath.Join(t.TempDir(), "temporal.toml")
				if err := os.WriteFile(file, []byte("[profile.prod]\napi_key = '"+key+"'\ntls = { disabled = true }\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("TEMPORAL_CONFIG_FILE", file)
				t.Setenv("TEMPORAL_PROFILE", "prod")
			}
			_, args := doctor(t, "ok")
			code, stdout, stderr := closeout(args)
			if code != 0 || sent.Load() != "Bearer "+key || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("sent %q, %d\n%s%s", sent.Load(), code, stdout, stderr)
			}
			for _, refused := range []codes.Code{codes.Unauthenticated, codes.PermissionDenied} {
				p.namespace = status.Error(refused, "no")
				if code, stdout, stderr := closeout(args); code != 1 || !strings.Contains(stdout, " refuses us") || strings.Contains(stdout+stderr, "hunter2") {
					t.Errorf("%d\n%s%s", code, stdout, stderr)
				}
			}
			p.namespace = nil
			t.Setenv("TEMPORAL_TLS", "true")
			if code, stdout, stderr := closeout(args); code != 1 || !strings.Contains(stdout, "set TEMPORAL_TLS=false") || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("%d\n%s%s", code, stdout, stderr)
			}
		})
	}
}
