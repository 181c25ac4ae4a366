package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/dev/internal/actions"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

var update = flag.Bool("update", false, "record the histories in workflows/testdata anew")

// One run of each kind is made on a real Temporal and replayed. With -update the
// histories replace the files in workflows/testdata, which the tests of package workflows
// replay.
func TestEveryKindOfRunIsRecorded(t *testing.T) {
	var status atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(api.Close)
	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())

	number := uint64(858012925204410400)
	for _, tt := range []struct {
		file  string
		flags map[string]string
		// play brings the session to the state to record, and returns the Workflow ID.
		play func(t *testing.T, p *played) string
	}{
		{"roomclose_completed.json", nil, func(t *testing.T, p *played) string {
			p.close(t)
			return p.completes(t)
		}},
		{"roomclose_retried.json", map[string]string{"billing-url": api.URL}, func(t *testing.T, p *played) string {
			status.Store(http.StatusServiceUnavailable)
			record(t, p.settings, p.closed, "one.mp4", []byte("sound"))
			p.close(t)
			p.activity(t, enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, 2)
			status.Store(http.StatusOK)
			return p.completes(t)
		}},
		{"roomclose_blocked.json", map[string]string{"billing-url": api.URL}, func(t *testing.T, p *played) string {
			status.Store(http.StatusUnprocessableEntity)
			p.close(t)
			return p.blocks(t)
		}},
		{"roomclose_blocked_retried.json", map[string]string{"billing-url": api.URL}, func(t *testing.T, p *played) string {
			status.Store(http.StatusUnprocessableEntity)
			p.close(t)
			id := p.blocks(t)
			status.Store(http.StatusOK)
			p.command(t, "blocked", "retry", "--reason", "customer added", id)
			return p.completes(t)
		}},
		{"roomclose_skipped.json", map[string]string{"billing-url": api.URL}, func(t *testing.T, p *played) string {
			status.Store(http.StatusUnprocessableEntity)
			p.close(t)
			p.command(t, "blocked", "skip", "--reason", "free of charge", p.blocks(t))
			return p.completes(t)
		}},
		{"roomclose_waited.json", map[string]string{"recordings": "callback", "recordings-grace": "1s"}, func(t *testing.T, p *played) string {
			name := "one.mp4"
			p.record(t, zego.RecordingNoStream, 1)
			p.close(t)
			p.activity(t, enums.EVENT_TYPE_TIMER_STARTED, 1)
			record(t, p.settings, p.closed, name, []byte("sound"))
			p.record(t, zego.RecordingUploaded, 2, name)
			return p.completes(t)
		}},
		{"adjustbill/adjusted.json", map[string]string{"prices": "*=EUR 2"}, func(t *testing.T, p *played) string {
			p.close(t)
			p.completes(t)
			return p.adjust(t)
		}},
		{"laterecordings/added.json", map[string]string{"recordings": "callback", "recordings-grace": "1s", "reconcile-interval": "1s"}, func(t *testing.T, p *played) string {
			p.close(t)
			p.completes(t)
			record(t, p.settings, p.closed, "one.mp4", []byte("sound"))
			p.record(t, zego.RecordingUploaded, 1, "one.mp4")
			id := workflows.LateRecordingsID(p.session)
			wait(t, id+" is over", func() bool {
				return runs(t, p.client, "WorkflowId = '"+id+"' AND ExecutionStatus = 'Completed'") == 1
			})
			return id
		}},
	} {
		number++
		t.Run(tt.file, func(t *testing.T) {
			c := settings(t, tt.flags)
			setUp(t, c)
			p := &played{settings: c, closed: newClose(), client: dial(t, c)}
			p.closed.RoomSessionID = number
			p.session, p.address = session.Of(&p.closed), start(t, c, both)
			id := tt.play(t, p)

			folder := filepath.Join(t.TempDir(), "testdata")
			p.command(t, "history", "save", "--output", folder, id)
			if strings.HasPrefix(tt.file, "roomclose") {
				closeouttest.Replay(t, folder, workflows.RoomClose)
			}
			if !*update {
				return
			}
			saved, err := filepath.Glob(filepath.Join(folder, "*.json"))
			if err != nil || len(saved) != 1 {
				t.Fatal(saved, err)
			}
			if err := os.WriteFile(filepath.Join("../workflows/testdata", tt.file), []byte(read(t, saved[0])), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// played is a session of this test.
type played struct {
	settings *config.Config
	closed   zego.RoomClose
	session  session.Session
	client   client.Client
	address  string
}

func (p *played) close(t *testing.T) {
	t.Helper()
	if a := post(t, p.address, p.closed); a.code != http.StatusOK {
		t.Fatalf("answer %+v", a)
	}
}

func (p *played) completes(t *testing.T) string {
	t.Helper()
	result(t, p.client, p.closed)
	return p.session.WorkflowID()
}

func (p *played) blocks(t *testing.T) string {
	t.Helper()
	id := p.session.WorkflowID()
	wait(t, id+" is blocked", func() bool {
		return runs(t, p.client, workflows.BlockedQuery()+" AND WorkflowId = '"+id+"'") == 1
	})
	return id
}

// activity waits until the run's history has n events of a type.
func (p *played) activity(t *testing.T, event enums.EventType, n int) {
	t.Helper()
	wait(t, fmt.Sprintf("%d %v", n, event), func() bool {
		found := 0
		for events := p.client.GetWorkflowHistory(t.Context(), p.session.WorkflowID(), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
			e, err := events.Next()
			if err != nil {
				return false // not started yet
			}
			if e.GetEventType() == event {
				found++
			}
		}
		return found >= n
	})
}

// record posts a recording callback with files in the session's folder.
func (p *played) record(t *testing.T, event zego.RecordingEvent, sequence uint64, names ...string) {
	t.Helper()
	r := &zego.Recording{TaskID: "AAAAAAAAAAAAAAAA", RoomID: p.closed.RoomID, EventType: event, Sequence: sequence}
	for _, name := range names {
		r.Files = append(r.Files, zego.RecordedFile{FileID: name, URL: "https://bucket.example.com/" + p.session.Folder() + name, Size: 5, Status: zego.FileUploaded})
	}
	tell(t, p.address, r)
}

// adjust adjusts the bill with a late logout.
func (p *played) adjust(t *testing.T) string {
	t.Helper()
	books, err := ledger.Open(p.settings.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	if err := books.Record(t.Context(), []ledger.Event{{ID: session.ID{AppID: 1, RoomSessionID: p.closed.RoomSessionID}, RoomID: p.closed.RoomID, Event: zego.EventRoomLogout,
		Stay: "1", User: "late", Role: "1", Login: p.closed.RoomCloseTime.Add(-time.Minute), Logout: p.closed.RoomCloseTime, SeenAt: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	next := activities.Adjustment{Session: p.session, Number: 1}
	run, err := p.client.ExecuteWorkflow(t.Context(), workflows.AdjustOptions(next, p.settings.TaskQueue), workflows.AdjustBillName, next)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return run.GetID()
}

// command runs a command of the program dev.
func (p *played) command(t *testing.T, arguments ...string) {
	t.Helper()
	var out lines
	if code := run(t.Context(), append([]string{"dev"}, arguments...), &out, &out); code != 0 {
		t.Fatalf("%v: exit code %d\n%s", arguments, code, out.String())
	}
}

// A session whose steps have little to do needs one Workflow Task.
func TestSizeOfASessionsHistory(t *testing.T) {
	t.Parallel()
	c := settings(t, map[string]string{"settling": "1s", "prices": "*=EUR 2"})
	setUp(t, c)
	address, temporalClient, closed := start(t, c, both), dial(t, c), newClose()
	post(t, address, closed)
	if r := result(t, temporalClient, closed); r.State != workflows.StateDone {
		t.Fatalf("result %+v", r)
	}
	id := session.Of(&closed).WorkflowID()
	described, err := temporalClient.DescribeWorkflowExecution(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	info := described.GetWorkflowExecutionInfo()
	billed, err := actions.Of(t.Context(), temporalClient, id, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events, %d bytes, %d state transitions, %d actions", info.GetHistoryLength(), info.GetHistorySizeBytes(), info.GetStateTransitionCount(), billed)
	if info.GetHistoryLength() > 7 || info.GetHistorySizeBytes() > 3500 || info.GetStateTransitionCount() > 4 || billed != 2 {
		t.Errorf("it takes %d events (want 7), %d bytes (want 3,500), %d state transitions (want 4), %d actions (want 2)",
			info.GetHistoryLength(), info.GetHistorySizeBytes(), info.GetStateTransitionCount(), billed)
		for events := temporalClient.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
			e, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d %v, %d bytes", e.GetEventId(), e.GetEventType(), len(e.String()))
		}
	}
}
