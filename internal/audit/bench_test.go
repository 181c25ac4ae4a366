package audit_test

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// BenchmarkAudit audits many sessions, all closed out, and reports how much the heap grows at most.
// The archive is in memory before the audit starts, so it doesn't count.
func BenchmarkAudit(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "ledger.db")
			w := newWorld(b, "sqlite:"+path)
			fillLedger(b, w, path, n)
			for i := range n {
				if err := w.archive.WriteAll(b.Context(), benchSession(i).Folder()+"manifest.json", []byte("{}"), nil); err != nil {
					b.Fatal(err)
				}
			}
			w.options.Temporal = manyRuns{w.temporal, n}
			w.options.Journal = func() iter.Seq2[audit.Entry, error] {
				return func(yield func(audit.Entry, error) bool) {
					for i := range n {
						if s := benchSession(i); !yield(audit.Entry{ID: s.ID, Acknowledged: true}, nil) {
							return
						}
					}
				}
			}()
			defer debug.SetGCPercent(debug.SetGCPercent(10)) // the live heap is measured at each collection
			b.ReportAllocs()
			most := uint64(0)
			for b.Loop() {
				stop := make(chan chan uint64)
				go watchHeap(stop)
				r, err := audit.Run(b.Context(), w.options)
				if err != nil || !r.OK() || r.Runs.Completed != int64(n) || r.Manifests != int64(n) {
					b.Fatalf("%+v, %v", r, err)
				}
				said := make(chan uint64)
				stop <- said
				most = max(most, <-said)
			}
			b.ReportMetric(float64(most)/float64(n), "peak-B/session")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
		})
	}
}

// watchHeap measures by how much the live heap grows at most, until it is stopped.
func watchHeap(stop chan chan uint64) {
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	debug.FreeOSMemory()
	metrics.Read(heap)
	first, most := heap[0].Value.Uint64(), uint64(0)
	for {
		select {
		case said := <-stop:
			said <- most - min(first, most)
			return
		case <-time.After(5 * time.Millisecond):
			metrics.Read(heap)
			most = max(most, heap[0].Value.Uint64())
		}
	}
}

func benchSession(i int) session.Session {
	return session.Session{ID: session.ID{AppID: 1234567890, RoomSessionID: 858012925204410417 + uint64(i)*7919}, RoomID: "lobby-" + strconv.Itoa(i), RoomCloseTime: time.UnixMilli(1499676989909)}
}

// fillLedger writes all bills in one transaction.
func fillLedger(b *testing.B, w *world, path string, n int) {
	b.Helper()
	if err := w.ledger.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	insert, err := tx.Prepare("INSERT INTO bills (id, appid, room_id, room_session_id, close_reason, room_close_time, made_at) VALUES (?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		s := benchSession(i)
		if _, err := insert.Exec(uuid.NewString(), s.AppID, s.RoomID, fmt.Sprint(s.RoomSessionID), 0, s.RoomCloseTime.UnixMilli(), time.Now().UnixMilli()); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

// manyRuns lists n completed runs without storing them.
type manyRuns struct {
	client.Client
	n int
}

func (m manyRuns) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	answer := &workflowservice.ListWorkflowExecutionsResponse{}
	at, _ := strconv.Atoi(string(r.NextPageToken))
	for end := min(at+int(r.PageSize), m.n); at < end; at++ {
		s := benchSession(at)
		answer.Executions = append(answer.Executions, &workflow.WorkflowExecutionInfo{
			Execution: &common.WorkflowExecution{WorkflowId: s.WorkflowID(), RunId: "r"}, Status: completed, StartTime: timestamppb.Now(),
			Memo: &common.Memo{Fields: map[string]*common.Payload{
				"room_id": payload(s.RoomID), "close_reason": payload(zego.CloseReasonText(s.CloseReason)), "room_close_time": payload(s.RoomCloseTime.Format(time.RFC3339Nano)),
			}},
			SearchAttributes: &common.SearchAttributes{IndexedFields: map[string]*common.Payload{workflows.CloseoutState.GetName(): payload("done")}},
		})
	}
	if at < m.n {
		answer.NextPageToken = []byte(strconv.Itoa(at))
	}
	return answer, nil
}
