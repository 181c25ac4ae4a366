package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/sdk/v1"

	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// Recording callbacks arrive before and after the room_close, twice and out of order,
// while the worker is killed. Each session gets its own recordings once.
func TestRecordingsAreWaitedFor(t *testing.T) {
	t.Parallel()
	c := settings(t, map[string]string{"recordings": "callback", "recordings-prefix": "zego/"})
	setUp(t, c)
	address := start(t, c, service.Parts{Webhook: true})
	// Without a Signal, the step would run again only after the test's timeout.
	env := []string{"CLOSEOUT_RECORDINGS=callback", "CLOSEOUT_RECORDINGS_PREFIX=zego/", "CLOSEOUT_RECORDINGS_GRACE=3s", "CLOSEOUT_RECORDINGS_POLL=15m"}
	worker, log := process(t, c, "worker", env...)
	temporal := dial(t, c)

	room := fmt.Sprintf("Zimmer/7_%d é..", rand.Uint32())
	closes := func() zego.RoomClose {
		closed := newClose()
		closed.RoomID = room
		return closed
	}
	name := func(task string, begin time.Time) string {
		return fmt.Sprintf("%s_%s_u_1_s_A_%s%03d.aac", task, room, begin.UTC().Format("20060102150405"), begin.UnixMilli()%1000)
	}
	uploads := func(task string, begin time.Time) {
		path := filepath.Join(c.Data, "recordings", "zego", filepath.FromSlash(name(task, begin)))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("sound"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tells := func(task string, event zego.RecordingEvent, sequence uint64, begins ...time.Time) {
		t.Helper()
		r := &zego.Recording{TaskID: task, RoomID: room, EventType: event, Sequence: sequence}
		for _, b := range begins {
			r.Files = append(r.Files, zego.RecordedFile{FileID: name(task, b), Size: 5, Begin: b.UTC().Truncate(time.Millisecond), Status: zego.FileUploaded})
		}
		tell(t, address, r)
	}
	done := func(closed zego.RoomClose, task string, begin time.Time) {
		t.Helper()
		r := result(t, temporal, closed)
		if s := r.Steps[1]; r.State != workflows.StateDone || !strings.HasPrefix(s.Summary, "1 recording of 5 bytes") {
			t.Errorf("result %+v\n%s", r, log)
		}
		var m archive.Manifest
		if err := json.Unmarshal([]byte(read(t, archived(c, closed, "manifest.json"))), &m); err != nil {
			t.Fatal(err)
		}
		if len(m.Files) != 1 || m.Files[0].TaskID != task || m.Files[0].Source != "zego/"+name(task, begin) {
			t.Errorf("manifest %+v", m)
		}
	}

	// Before its room_close, and twice.
	first, begin := closes(), time.Now().Add(-time.Second)
	uploads("AAAAAAAAAAAAAAAA", begin)
	for range 2 {
		tells("AAAAAAAAAAAAAAAA", zego.RecordingUploaded, 1, begin)
	}
	if a := post(t, address, first); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	done(first, "AAAAAAAAAAAAAAAA", begin)

	// After the room_close of the room's next session.
	begin = time.Now()
	tells("BBBBBBBBBBBBBBBB", zego.RecordingNoStream, 0)
	second := closes()
	if a := post(t, address, second); a.code != 200 {
		t.Fatalf("answer %+v", a)
	}
	id := session.Of(&second).WorkflowID()
	wait(t, "the run waits for the recording", func() bool {
		value, err := temporal.QueryWorkflow(t.Context(), id, "", "__temporal_workflow_metadata")
		var metadata sdk.WorkflowMetadata
		return err == nil && value.Get(&metadata) == nil && strings.Contains(metadata.GetCurrentDetails(), "is waiting for `recording task BBBBBBBBBBBBBBBB")
	})
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait()
	uploads("BBBBBBBBBBBBBBBB", begin)
	// Out of order: the callback about the uploaded files comes before the one about the
	// upload.
	tells("BBBBBBBBBBBBBBBB", zego.RecordingUploaded, 2, begin)
	tells("BBBBBBBBBBBBBBBB", zego.RecordingUploading, 1)
	tells("BBBBBBBBBBBBBBBB", zego.RecordingUploaded, 2, begin)
	_, log = process(t, c, "worker", env...)
	done(second, "BBBBBBBBBBBBBBBB", begin)
}

// A recording that is reported after its session was closed out is added to the archive
// by its own run.
func TestLateRecordingsAreAdded(t *testing.T) {
	t.Parallel()
	c := settings(t, map[string]string{"recordings": "callback", "recordings-grace": "1s", "reconcile-interval": "1s"})
	setUp(t, c)
	address := start(t, c, both)
	temporal := dial(t, c)
	closed := newClose()
	post(t, address, closed)
	if r := result(t, temporal, closed); !strings.HasPrefix(r.Steps[1].Summary, "no recordings") {
		t.Fatalf("result %+v", r)
	}
	session := session.Of(&closed)
	for n, name := range []string{"one.mp4", "two.mp4"} {
		record(t, c, closed, name, []byte("sound"))
		tell(t, address, &zego.Recording{TaskID: fmt.Sprintf("%016d", n), RoomID: closed.RoomID, EventType: zego.RecordingUploaded,
			Files: []zego.RecordedFile{{FileID: name, URL: "https://bucket.example.com/" + session.Folder() + name, Size: 5, Status: zego.FileUploaded}}})
		manifest := fmt.Sprintf("manifest-%d.json", n+2)
		wait(t, manifest+" is there", func() bool { return exists(archived(c, closed, manifest)) })
		var m archive.Manifest
		if err := json.Unmarshal([]byte(read(t, archived(c, closed, manifest))), &m); err != nil || len(m.Files) != n+1 {
			t.Errorf("manifest %+v, %v", m, err)
		}
	}
	id := workflows.LateRecordingsID(session)
	wait(t, "the second run is over", func() bool {
		return runs(t, temporal, "WorkflowId = '"+id+"' AND ExecutionStatus = 'Completed'") == 2
	})
	var r workflows.Result
	if err := temporal.GetWorkflow(t.Context(), id, "").Get(t.Context(), &r); err != nil || r.State != workflows.StateDone || !strings.HasPrefix(r.Steps[0].Summary, "2 recordings of 10 bytes, see "+session.Folder()+"manifest-3.json") {
		t.Errorf("result %+v, %v", r, err)
	}
}
