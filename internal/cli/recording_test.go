package cli_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego"
)

func TestUnassignedRecordingsAreListedAndAssigned(t *testing.T) {
	data := t.TempDir()
	books, err := ledger.Open("sqlite:" + filepath.Join(data, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	u, _ := ledger.EventOf(&zego.Recording{Common: zego.Common{AppID: 7, Timestamp: at.Unix()}, TaskID: "YZ4joOE4IwmFAAAT", RoomID: "the lobby", EventType: zego.RecordingUploaded,
		Files: []zego.RecordedFile{{FileID: "a", Begin: at.Add(-time.Hour), Status: zego.FileUploaded}}}, at)
	if err := books.Record(t.Context(), []ledger.Event{u}); err != nil {
		t.Fatal(err)
	}
	u, _ = ledger.EventOf(&zego.Recording{Common: zego.Common{AppID: 7, Timestamp: at.Unix()}, TaskID: "contradictory000", RoomID: "the lobby", EventType: zego.RecordingUploaded,
		Sequence: 9, Files: []zego.RecordedFile{{FileID: "a", Status: zego.FileFailed}}}, at)
	other := u
	lower := *u.Recording
	lower.Sequence, lower.Files = 1, []ledger.RecordedFile{{RecordedFile: zego.RecordedFile{FileID: "a", Status: zego.FileUploaded}}}
	other.Recording = &lower
	if err := books.Record(t.Context(), []ledger.Event{u, other}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args string
		code int
		want string
	}{
		{"recording list --older 0s", 0, `YZ4joOE4IwmFAAAT  1                   2026-11-23T11:00:00Z  2026-11-23T12:00:00Z  7    the lobby`},
		{"recording list --older 0s", 0, "1 (1 contradicted)"},
		{"recording assign --app 7 --session x YZ4joOE4IwmFAAAT", 2, `--session: found "x"`},
		{"recording assign --app 7 --session 1", 2, "no task ID"},
		{"recording assign --app 8 --session 1 YZ4joOE4IwmFAAAT", 1, "no callback reported such a recording task"},
		{"recording assign --app 7 --session 18446744073709551615 YZ4joOE4IwmFAAAT", 0, "YZ4joOE4IwmFAAAT: assigned to session 18446744073709551615"},
		{"recording list --older 0s", 0, "18446744073709551615"},
		{"recording assign --announced --app 7 --session 5 unknown-task-000", 0, "unknown-task-000: assigned to session 5, whose run waits for its files"},
		{"recording assign --announced --app 7 --session 5 short", 1, `not the ID of a recording task: found "short"`},
	} {
		code, stdout, stderr := closeout(step.args + " --data " + data)
		out := stdout + stderr
		if code != step.code || !strings.Contains(out, step.want) {
			t.Errorf("%s: %d\n%s\nwant %d with %s", step.args, code, out, step.code, step.want)
		}
	}
}
