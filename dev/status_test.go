package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// `status` describes a session that was closed out and a session that waits for an operator, by
// number, by Workflow ID and by any room name. Without a worker it says why details are missing.
func TestStatusShowsWhereASessionIs(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no such customer", http.StatusUnprocessableEntity)
	}))
	defer api.Close()
	good := settings(t, nil)
	good.Temporal.Namespace = "status" // without rooms of other tests
	bad := settings(t, map[string]string{"billing-url": api.URL, "data": good.Data, "task-queue": t.Name() + "-blocked"})
	bad.Temporal.Namespace = "status"
	setUp(t, good)
	temporalClient := dial(t, good)

	const room = `Bob's "50%" \room`
	closed, blocked := newClose(), newClose()
	closed.RoomID, blocked.RoomID = room, room
	closedID, blockedID := session.Of(&closed).WorkflowID(), session.Of(&blocked).WorkflowID()
	record(t, good, closed, "a.mp4", []byte("recording"))
	post(t, start(t, good, both), closed)
	result(t, temporalClient, closed)

	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	t.Setenv("TEMPORAL_NAMESPACE", "status")
	t.Setenv("CLOSEOUT_UI_URL", "https://temporal.example.com/ui/")
	status := func(arguments ...string) (code int, text string) {
		t.Helper()
		var out lines
		code = run(t.Context(), append([]string{"dev", "status", "--data", good.Data}, arguments...), &out, &out)
		return code, out.String()
	}
	tells := func(code int, text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if code != 0 || !strings.Contains(text, want) {
				t.Errorf("%d, without %q:\n%s", code, want, text)
			}
		}
	}

	wholly := []string{
		closedID + "\n", "room      " + room, "inbox     none", "run       Completed, done; RoomClose, started at 20", "- billing: bill ",
		"- recordings: 1 recording of 9 bytes", "bill      " + bill(t, good, closed).ID.String() + ", made at 20",
		"manifest  1 recording of 9 bytes, see " + session.Of(&closed).Folder() + "manifest.json",
		"https://temporal.example.com/ui/namespaces/status/workflows/" + closedID + "/",
	}
	for _, argument := range []string{closedID, strconv.FormatUint(closed.RoomSessionID, 10)} {
		code, text := status("--wait", "1m", argument)
		tells(code, text, wholly...)
	}

	started, err := temporalClient.ExecuteWorkflow(t.Context(), workflows.StartOptions(session.Of(&blocked), bad.TaskQueue), workflows.RoomClose, session.Of(&blocked))
	if err != nil {
		t.Fatal(err)
	}
	code, text := status(blockedID)
	tells(code, text, "run       Running, running; RoomClose, started at 20", "ask for its details", "bill      none", "manifest  none",
		"/workflows/"+blockedID+"/"+started.GetRunID()+"/history")

	bad.Listen = "" // a worker alone has no listener for callbacks
	start(t, bad, service.Parts{Worker: true})
	for _, id := range []string{closedID, blockedID} {
		wait(t, id+" can be found, and waits for nothing but a person", func() bool {
			return runs(t, temporalClient, "(CloseoutState = 'blocked' OR ExecutionStatus = 'Completed') AND WorkflowId = '"+id+"'") == 1
		})
	}
	code, text = status(room)
	tells(code, text, append(wholly, "run       Running, blocked; RoomClose", "- **billing** is **blocked**: `the billing API refused it: 422", "- **recordings** is done: ")...)
	if strings.Index(text, closedID) < strings.Index(text, blockedID) {
		t.Errorf("not the newest first:\n%s", text)
	}
	if code, text := status("--wait", "1ms", blockedID); code != 1 || !strings.Contains(text, "not closed out after 0s: "+blockedID+": its run is Running, blocked; ") {
		t.Errorf("of one that is blocked: %d\n%s", code, text)
	}
	if code, text := status(`'`); code != 1 || !strings.Contains(text, "found nothing") {
		t.Errorf("of a room that begins with a quote: %d\n%s", code, text)
	}
	code, text = status("--limit", "1", room)
	tells(code, text, blockedID+"\n", room+" has more sessions than these")
	if strings.Contains(text, closedID) {
		t.Errorf("more than the limit:\n%s", text)
	}

	var out, said lines
	code = run(t.Context(), []string{"dev", "status", "--data", good.Data, "--json", room}, &out, &said)
	var all struct {
		Sessions []struct {
			ID  string `json:"workflow_id"`
			Run struct {
				State, Details string
				Result         workflows.Result
			}
			Bill struct {
				RoomSessionID string `json:"room_session_id"`
			}
			Manifest *activities.Archived
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &all); err != nil || code != 0 || len(all.Sessions) != 2 {
		t.Fatalf("as JSON: %d, %v\n%s%s", code, err, out.String(), said.String())
	}
	if s := all.Sessions[0]; s.ID != blockedID || s.Run.State != "blocked" || !strings.Contains(s.Run.Details, "no such customer") || s.Manifest == nil {
		t.Errorf("as JSON %+v", s)
	}
	if s := all.Sessions[1]; s.ID != closedID || s.Run.Result.State != workflows.StateDone || s.Bill.RoomSessionID != strconv.FormatUint(closed.RoomSessionID, 10) || s.Manifest.Bytes != 9 {
		t.Errorf("as JSON %+v", s)
	}

	if code, text := status("room-close-1-1"); code != 1 || !strings.Contains(text, "room-close-1-1: found nothing") {
		t.Errorf("of none: %d\n%s", code, text)
	}
	if code, text := status("1", closedID); code != 1 || !strings.Contains(text, "1: found nothing") || !strings.Contains(text, "Completed") {
		t.Errorf("of none and one: %d\n%s", code, text)
	}

	if err := temporalClient.TerminateWorkflow(t.Context(), blockedID, "", "enough"); err != nil {
		t.Fatal(err)
	}
	code, text = status(blockedID)
	tells(code, text, "run       Terminated, blocked; ", "terminated")
}
