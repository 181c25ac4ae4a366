package command_test

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// hostileName sets a terminal's title, clears its screen, turns letters round and
// begins lines of its own in every way there is.
const hostileName = "a\x1b]0;title\x07\x1b[2J\u009b1m\u202egpj\u2028FORGED\u2029FORGED\u0085FORGED\x0bFORGED\x0cFORGED\rFORGED\nFORGED\tb\u200b\U000e0041"

// Names are chosen by an app's users, by servers and by whoever writes to a bucket.
// Whatever a command shows people of them does nothing but stand there.
func TestWhatPeopleReadDoesNothingToTheirTerminal(t *testing.T) {
	data := t.TempDir()
	makeStores(t, data)
	s := activities.Session{AppID: 1, RoomID: hostileName, RoomSessionID: 2, RoomCloseTime: time.UnixMilli(1e12)}
	id := workflows.WorkflowID(s)

	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	task := ledger.Usage{AppID: 1, RoomID: hostileName, Event: "recording", SeenAt: time.UnixMilli(1e12), Recording: &ledger.Recording{TaskID: hostileName,
		EventType: zego.RecordingUploaded, Sent: time.UnixMilli(1e12), Files: []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{FileID: hostileName}}}}}
	if err := books.Record(t.Context(), []ledger.Usage{task, {AppID: 1, RoomID: hostileName, RoomSessionID: 2, Event: "room_logout", Stay: hostileName, User: hostileName,
		Login: s.RoomCloseTime.Add(-time.Minute), Logout: s.RoomCloseTime, SeenAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := books.Finalize(t.Context(), ledger.Bill{ID: uuid.New(), AppID: 1, RoomID: hostileName, RoomSessionID: 2, RoomCloseTime: s.RoomCloseTime}); err != nil {
		t.Fatal(err)
	}
	box, err := inbox.Open(t.Context(), filepath.Join(data, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Put(t.Context(), id, body); err != nil {
		t.Fatal(err)
	}
	if err := box.Shelve(t.Context(), id, hostileName); err != nil {
		t.Fatal(err)
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	archived(t, data, 2, "name\u202egpj.mp4")
	objects, err := os.ReadDir(filepath.Join(data, "archive", "1", "2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if name := o.Name(); name != "manifest.json" { // so that verify names it
			if err := os.RemoveAll(filepath.Join(data, "archive", "1", "2", name)); err != nil {
				t.Fatal(err)
			}
		}
	}

	text := func(v any) *common.Payload {
		p, err := converter.GetDefaultDataConverter().ToPayload(v)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	temporal, server := &oneRun{info: &workflow.WorkflowExecutionInfo{
		Execution: &common.WorkflowExecution{WorkflowId: id, RunId: "r"}, Type: &common.WorkflowType{Name: hostileName},
		Status: enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, StartTime: timestamppb.Now(),
		SearchAttributes: &common.SearchAttributes{IndexedFields: map[string]*common.Payload{"RoomId": text(hostileName), "CloseoutState": text("blocked")}},
		Memo: &common.Memo{Fields: map[string]*common.Payload{"room_id": text("other " + hostileName), "close_reason": text("normal"),
			"room_close_time": text("2026-11-23T12:00:00Z")}},
	}}, grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, temporal)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	t.Setenv("TEMPORAL_ADDRESS", listener.Addr().String())

	for _, args := range []string{
		"bill show 2", "bill list", "recording list --older 0s", "inbox list", "archive show 2", "archive verify --all", "audit", "blocked list",
		"status " + id, "inbox show " + id, "inbox drop " + id,
	} {
		t.Run(args, func(t *testing.T) {
			_, stdout, stderr := closeout(args + " --data " + data)
			if strings.HasPrefix(args, "blocked") {
				_, stdout, stderr = closeout(args)
			}
			shown := stdout + stderr
			if i := strings.IndexFunc(shown, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); i >= 0 {
				t.Errorf("shows %q at byte %d of\n%q", []rune(shown[i:])[0], i, shown)
			}
			if strings.Contains(shown, "\nFORGED") {
				t.Errorf("has a line of somebody else's:\n%s", shown)
			}
			if !strings.Contains(shown, `\u202egpj`) {
				t.Errorf("doesn't show the name:\n%s", shown)
			}
		})
	}

	// What programs read is exact.
	for _, args := range []string{"bill show 2 --json", "status --json " + id} {
		_, stdout, _ := closeout(args + " --data " + data)
		if !json.Valid([]byte(stdout)) || !strings.Contains(unquoted(t, stdout), hostileName) {
			t.Errorf("%s isn't exact: %s", args, stdout)
		}
	}
}

// unquoted is all strings of a JSON value, one after the other.
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
