package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// One callback becomes one completed run, one bill and one archive. The same callback
// again changes nothing.
func TestCallbackBecomesOneRunBillAndArchive(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	address := start(t, c, both)
	temporal := dial(t, c)
	closed := newClose()
	record(t, c, closed, "a_V.mp4", []byte("a recording"))
	id := fmt.Sprintf("room-close-1-%d", closed.RoomSessionID)

	if a := post(t, address, closed); a.code != 200 || a.Receipt != (webhook.Receipt{Status: webhook.Started, WorkflowID: id}) {
		t.Fatalf("answer %+v", a)
	}
	r := result(t, temporal, closed)
	if r.State != workflows.StateDone || len(r.Steps) != 2 {
		t.Errorf("result %+v", r)
	}
	b := bill(t, c, closed)
	if b.ID != session.Of(&closed).IdempotencyKey("billing") || b.RoomID != closed.RoomID || !b.RoomCloseTime.Equal(closed.RoomCloseTime) {
		t.Errorf("bill %+v", b)
	}
	manifest := read(t, archived(c, closed, "manifest.json"))
	if !strings.Contains(manifest, fmt.Sprintf(`"room_session_id": "%d"`, closed.RoomSessionID)) || read(t, archived(c, closed, "recordings/a_V.mp4")) != "a recording" {
		t.Errorf("manifest %s", manifest)
	}
	for _, query := range []string{
		fmt.Sprintf("RoomSessionId = '%d'", closed.RoomSessionID),
		fmt.Sprintf("RoomId = 'rid_1242649' AND AppId = 1 AND CloseReason = 2 AND CloseoutState IS NULL AND ExecutionStatus = 'Completed' AND WorkflowId = '%s'", id),
	} {
		wait(t, "visibility finds the run by "+query, func() bool { return runs(t, temporal, query) == 1 })
	}

	if a := post(t, address, closed); a.code != 200 || a.Receipt != (webhook.Receipt{Status: webhook.Duplicate, WorkflowID: id}) {
		t.Errorf("answer to the repeat %+v", a)
	}
	if n := runs(t, temporal, "WorkflowId = '"+id+"'"); n != 1 || bill(t, c, closed) != b || read(t, archived(c, closed, "manifest.json")) != manifest {
		t.Errorf("the repeat changed something: %d runs", n)
	}
}

// No worker runs, so that the run is open when its duplicates arrive.
func TestConcurrentDuplicatesStartOneRun(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	address := start(t, c, service.Parts{Webhook: true})
	closed := newClose()
	const senders = 64
	answers := make([]answer, senders)
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() { answers[i] = post(t, address, closed) })
	}
	all.Wait()
	got := map[webhook.Status]int{}
	for _, a := range answers {
		// ZEGO retries if an overloaded machine doesn't answer in time.
		for a.code == 503 {
			a = post(t, address, closed)
		}
		got[a.Status]++
	}
	if got[webhook.Started] > 1 || got[webhook.Started]+got[webhook.Duplicate] != senders {
		t.Errorf("answers %v", got)
	}
	temporal := dial(t, c)
	query := fmt.Sprintf("RoomSessionId = '%d'", closed.RoomSessionID)
	wait(t, "visibility finds the run", func() bool { return runs(t, temporal, query) > 0 })
	if n := runs(t, temporal, query); n != 1 {
		t.Errorf("%d runs", n)
	}
}
