package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	urfave "github.com/urfave/cli/v3"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/internal/cli"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// leaves returns the commands without subcommands, by their words, such as "bill show".
func leaves() map[string]*urfave.Command {
	found := map[string]*urfave.Command{}
	var walk func(cmd *urfave.Command, words string)
	walk = func(cmd *urfave.Command, words string) {
		for _, c := range cmd.Commands {
			walk(c, strings.TrimSpace(words+" "+c.Name))
		}
		if len(cmd.Commands) == 0 {
			found[words] = cmd
		}
	}
	walk(cli.Root(service.Extension{}, "closeout"), "")
	return found
}

func hasFlag(cmd *urfave.Command, name string) bool {
	return slices.ContainsFunc(cmd.Flags, func(f urfave.Flag) bool { return slices.Contains(f.Names(), name) })
}

// closeoutWith runs a command whose arguments may contain spaces.
func closeoutWith(words string, args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	code = cli.Main(context.Background(), service.Extension{}, append(append([]string{"closeout"}, strings.Fields(words)...), args...), &out, &err)
	return code, out.String(), err.String()
}

// hostileName sets a terminal's title, clears its screen, reverses text, and begins new lines in
// every possible way.
const hostileName = "a\x1b]0;title\x07\x1b[2J\u009b1m\u202egpj\u2028FORGED\u2029FORGED\u0085FORGED\x0bFORGED\x0cFORGED\rFORGED\nFORGED\tb\u200b\U000e0041"

// hostile is a Temporal with one run, whose texts are all hostile.
type hostile struct {
	oneRun
}

func (h *hostile) QueryWorkflow(context.Context, *workflowservice.QueryWorkflowRequest) (*workflowservice.QueryWorkflowResponse, error) {
	// Package workflows removes line ends from texts of others in the details.
	result, err := converter.GetDefaultDataConverter().ToPayloads(&sdk.WorkflowMetadata{CurrentDetails: strings.ReplaceAll(hostileName, "\n", "")})
	return &workflowservice.QueryWorkflowResponse{QueryResult: result}, err
}

func (h *hostile) UpdateWorkflowExecution(context.Context, *workflowservice.UpdateWorkflowExecutionRequest) (*workflowservice.UpdateWorkflowExecutionResponse, error) {
	return nil, status.Error(codes.InvalidArgument, hostileName)
}

func (h *hostile) GetWorkflowExecutionHistory(context.Context, *workflowservice.GetWorkflowExecutionHistoryRequest) (*workflowservice.GetWorkflowExecutionHistoryResponse, error) {
	return &workflowservice.GetWorkflowExecutionHistoryResponse{History: &history.History{Events: []*history.HistoryEvent{{
		EventId: 1, EventType: enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
		Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{
			WorkflowType: &common.WorkflowType{Name: strings.ReplaceAll(hostileName, "/", "")}}},
	}}}}, nil
}

// refusing is a Temporal that refuses everything with a hostile message.
type refusing struct {
	workflowservice.UnimplementedWorkflowServiceServer
}

func (refusing) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return nil, status.Error(codes.PermissionDenied, hostileName)
}

func serveTemporal(t *testing.T, temporal workflowservice.WorkflowServiceServer) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, temporal)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// hostileStores creates a data folder with a session whose texts are all hostile.
func hostileStores(t *testing.T) (data string, s session.Session) {
	t.Helper()
	data = t.TempDir()
	makeStores(t, data)
	s = session.Session{ID: session.ID{AppID: 1, RoomSessionID: 2}, RoomID: hostileName, RoomCloseTime: time.UnixMilli(1e12)}
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	task := ledger.Event{ID: session.ID{AppID: 1}, RoomID: hostileName, Event: "recording", SeenAt: time.UnixMilli(1e12), Recording: &ledger.Recording{TaskID: hostileName,
		EventType: zego.RecordingUploaded, Sent: time.UnixMilli(1e12), Files: []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{FileID: hostileName}}}}}
	stay := ledger.Event{ID: session.ID{AppID: 1, RoomSessionID: 2}, RoomID: hostileName, Event: "room_logout", Stay: hostileName, User: hostileName,
		Login: s.RoomCloseTime.Add(-time.Minute), Logout: s.RoomCloseTime, SeenAt: time.Now()}
	_, _, billed := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 2}, RoomID: hostileName, RoomCloseTime: s.RoomCloseTime}})
	if err := errors.Join(books.Record(t.Context(), []ledger.Event{task, stay}), billed); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	id := s.WorkflowID()
	_, err = box.Put(t.Context(), inbox.Entry{Key: id, Body: body})
	if err := errors.Join(err, box.DeadLetter(t.Context(), id, hostileName), box.Close()); err != nil {
		t.Fatal(err)
	}
	archived(t, data, 2, "name\u202egpj.mp4")
	// Remove the files in the manifest, so that a verification names them.
	folder := filepath.Join(data, "archive", "1", "2")
	objects, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.Name() != "manifest.json" {
			if err := os.RemoveAll(filepath.Join(folder, o.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	return data, s
}

// Names are chosen by an app's users, by servers, and by writers of a bucket. No command lets their
// control characters reach stdout or stderr. A new command needs a row.
func TestNoCommandLetsForeignTextReachTheTerminal(t *testing.T) {
	data, hostileSession := hostileStores(t)
	id := hostileSession.WorkflowID()
	text := func(v any) *common.Payload {
		p, err := converter.GetDefaultDataConverter().ToPayload(v)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	temporal := &hostile{oneRun: oneRun{info: &workflow.WorkflowExecutionInfo{
		Execution: &common.WorkflowExecution{WorkflowId: id, RunId: "r"}, Type: &common.WorkflowType{Name: hostileName},
		Status: enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, StartTime: timestamppb.Now(),
		SearchAttributes: &common.SearchAttributes{IndexedFields: map[string]*common.Payload{"RoomId": text(hostileName), "CloseoutState": text("blocked")}},
		Memo: &common.Memo{Fields: map[string]*common.Payload{"room_id": text("other " + hostileName), "close_reason": text("normal"),
			"room_close_time": text("2026-11-23T12:00:00Z")}},
	}}}
	accepting, refusing := serveTemporal(t, temporal), serveTemporal(t, refusing{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, hostileName, http.StatusServiceUnavailable)
	}))
	defer server.Close()
	url := server.URL + webhook.Path

	usage := filepath.Join(t.TempDir(), "usage.csv")
	if err := os.WriteFile(usage, []byte("d,m,\""+strings.ReplaceAll(hostileName, `"`, `""`)+"\"\n\""+strings.ReplaceAll(hostileName, `"`, `""`)+"\",1,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := map[string][][]string{
		"serve":            {{"--apps", "1=s", "--listen", hostileName}},
		"webhook":          {{"--apps", "1=s", "--listen", hostileName}},
		"worker":           {{"--admin-listen", hostileName}, {"--prices", hostileName}},
		"setup":            {{"--wait", "100ms"}},
		"send":             {{"--apps", "1=s", "--once", "--url", url}, {"--apps", "1=s", "--once", "--room", hostileName, "--url", url}, {"--apps", "1=s", "--session", hostileName}},
		"blocked list":     {nil},
		"blocked show":     {{id}},
		"blocked retry":    {{"--reason", "r", id}, {"--reason", "r", "--all", "--yes"}},
		"blocked skip":     {{"--reason", "r", id}},
		"recording list":   {{"--older", "0s"}},
		"recording assign": {{"--app", "1", "--session", "2", hostileName}, {"--app", "1", "--session", hostileName, "task"}},
		"inbox list":       {nil},
		"inbox show":       {{id}, {hostileName}},
		"inbox retry":      {{hostileName}},
		"inbox drop":       {{id}, {hostileName}},
		"status":           {{id}, {hostileName}},
		"bill show":        {{"2"}, {hostileName}},
		"bill explain":     {{"2"}, {hostileName}},
		"bill preview":     {nil, {"--from", hostileName}},
		"bill list":        {nil, {"--from", hostileName}},
		"bill export":      {{"--format", hostileName}}, // the export itself is exact
		"audit":            {nil, {"--since", hostileName}, {"--journal", hostileName}},
		"repair":           {{"--only", hostileName}},
		"reconcile usage": {{"--app", "1", "--day-column", "d", "--minutes-column", "m", hostileName}, {"--app", "1", "--day-column", hostileName, "--minutes-column", "m", usage},
			{"--app", "1", "--day-column", "d", "--minutes-column", "m", usage}},
		"archive show":   {{"2"}, {hostileName}},
		"archive verify": {{"--all"}, {hostileName}},
		"doctor":         {{"--apps", "1=s", "--admin-listen", server.Listener.Addr().String()}},
		"history save":   {{"--output", t.TempDir(), id}},
		"codec":          {{"--codec-listen", hostileName}},
		"health":         {{"--admin-listen", server.Listener.Addr().String()}},
		"version":        nil, // shows no text of others
		"init":           {{hostileName}},
	}
	for words, cmd := range leaves() {
		all, there := rows[words]
		if !there {
			t.Errorf("%s: has no row in this test", words)
		}
		for n, args := range all {
			t.Run(fmt.Sprint(words, n), func(t *testing.T) {
				address := accepting
				if words == "setup" || words == "doctor" {
					address = refusing
				}
				t.Setenv("TEMPORAL_ADDRESS", address)
				here := data
				if words == "inbox drop" || words == "archive verify" {
					here, _ = hostileStores(t)
				}
				if hasFlag(cmd, "data") {
					args = append([]string{"--data", here}, args...)
				}
				_, stdout, stderr := closeoutWith(words, args...)
				shown := stdout + stderr
				if i := strings.IndexFunc(shown, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); i >= 0 {
					t.Errorf("shows %q at byte %d of\n%q", []rune(shown[i:])[0], i, shown)
				}
				if strings.Contains(shown, "\nFORGED") {
					t.Errorf("has a line of somebody else's:\n%s", shown)
				}
				// Names of archived objects are percent-encoded.
				if !strings.Contains(shown, `\u202egpj`) && !strings.Contains(shown, "%E2%80%AEgpj") {
					t.Errorf("doesn't show the text:\n%s", shown)
				}
			})
		}
		// JSON has the exact text. That of reconcile usage has only days and numbers.
		if hasFlag(cmd, "json") && len(all) > 0 && words != "reconcile usage" {
			t.Run(words+" --json", func(t *testing.T) {
				t.Setenv("TEMPORAL_ADDRESS", accepting)
				flags := []string{"--json"}
				if hasFlag(cmd, "data") {
					flags = append(flags, "--data", data)
				}
				_, stdout, stderr := closeoutWith(words, append(flags, all[0]...)...)
				// The audit quotes names in sentences.
				if !json.Valid([]byte(stdout)) || words != "audit" && !strings.Contains(strings.ReplaceAll(unquoted(t, stdout), "%E2%80%AE", "\u202e"), "\u202egpj") {
					t.Errorf("isn't exact: %s%s", stdout, stderr)
				}
			})
		}
	}
}

// unquoted returns all strings of a JSON value, one after the other.
func unquoted(t *testing.T, value string) string {
	t.Helper()
	var all strings.Builder
	for decoder := json.NewDecoder(strings.NewReader(value)); ; {
		token, err := decoder.Token()
		if err != nil {
			return all.String()
		}
		if s, ok := token.(string); ok {
			all.WriteString(s)
		}
	}
}

// A command that looks for a store in the wrong place says so, and creates nothing there. A new
// command that reads a store needs a row.
func TestEveryCommandReportsAMissingStore(t *testing.T) {
	withLedger, whole := t.TempDir(), t.TempDir()
	makeStores(t, withLedger)
	makeStores(t, whole)
	if err := os.RemoveAll(filepath.Join(withLedger, "archive")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEMPORAL_ADDRESS", serveTemporal(t, &oneRun{}))
	usage := filepath.Join(withLedger, "usage.csv")
	if err := os.WriteFile(usage, []byte("d,m\n2026-11-03,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const noLedger, noArchive, noInbox = "ledger.db isn't there", "the archive: stat ", "no webhook has run in "
	type row struct{ data, args, want string }
	rows := map[string][]row{
		"audit":            {{"", "", noLedger}, {withLedger, "", noArchive}, {whole, "--inbox " + filepath.Join(whole, "elsewhere"), "--inbox: no webhook has run there"}, {whole, "--event-inbox " + filepath.Join(whole, "elsewhere"), "--event-inbox: no webhook has run there"}},
		"repair":           {{"", "", noLedger}, {withLedger, "", noArchive}},
		"reconcile usage":  {{"", "--app 1 --day-column d --minutes-column m " + usage, noLedger}},
		"bill show":        {{"", "1", noLedger}},
		"bill explain":     {{"", "1", noLedger}},
		"bill preview":     {{"", "", noLedger}},
		"bill list":        {{"", "", noLedger}},
		"bill export":      {{"", "", noLedger}},
		"recording list":   {{"", "", noLedger}},
		"recording assign": {{"", "--app 1 --session 2 YZ4joOE4IwmFAAAT", noLedger}},
		"archive show":     {{"", "1", noArchive}},
		"archive verify":   {{"", "--all", noArchive}},
		"inbox list":       {{"", "", noInbox}},
		"inbox show":       {{"", "room-close-1-2", noInbox}},
		"inbox retry":      {{"", "--all", noInbox}},
		"inbox drop":       {{"", "room-close-1-2", noInbox}},
		"status":           {{"", "room-close-1-2", noLedger}, {"", "room-close-1-2", noArchive[12:]}, {"", "room-close-1-2", noInbox}},
		// These create a missing store, or report it.
		"serve": nil, "webhook": nil, "worker": nil, "setup": nil, "doctor": nil,
		"send": nil, // sends no recording without the bucket
	}
	for words, cmd := range leaves() {
		tests, there := rows[words]
		if !there && hasFlag(cmd, "data") {
			t.Errorf("%s: has no row in this test", words)
		}
		for _, tt := range tests {
			t.Run(words+" "+tt.args, func(t *testing.T) {
				data := tt.data
				if data == "" {
					data = filepath.Join(t.TempDir(), "wrong")
				}
				code, stdout, stderr := closeout(words + " --data " + data + " " + tt.args)
				if code != 1 || stdout != "" || !strings.Contains(stderr, tt.want) {
					t.Errorf("%d\n%s%s, want %q", code, stdout, stderr, tt.want)
				}
				if entries, err := os.ReadDir(data); tt.data == "" && err == nil {
					t.Errorf("created %s with %v", data, entries)
				}
			})
		}
	}
}
