package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// A history that `history save` records of a completed or open run can be replayed, and
// contains no host name.
func TestSavedHistoriesAreReplayed(t *testing.T) {
	var status atomic.Int64
	status.Store(http.StatusOK)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer api.Close()
	c := settings(t, map[string]string{"billing-url": api.URL})
	setUp(t, c)
	address := start(t, c, both)
	temporalClient := dial(t, c)

	completed := newClose()
	post(t, address, completed)
	result(t, temporalClient, completed)
	status.Store(http.StatusUnprocessableEntity)
	blocked := newClose()
	post(t, address, blocked)
	id := session.Of(&blocked).WorkflowID()
	for _, session := range []string{session.Of(&completed).WorkflowID(), id} {
		wait(t, session+" can be found, and waits for nothing but a person", func() bool {
			return runs(t, temporalClient, "(CloseoutState = 'blocked' OR ExecutionStatus = 'Completed') AND WorkflowId = '"+session+"'") == 1
		})
	}

	t.Setenv("TEMPORAL_ADDRESS", temporal.Address())
	folder := filepath.Join(t.TempDir(), "testdata")
	save := func(arguments ...string) (code int, text string) {
		t.Helper()
		var out lines
		code = run(t.Context(), append([]string{"dev", "history", "save", "--output", folder}, arguments...), &out, &out)
		return code, out.String()
	}
	number := strconv.FormatUint(completed.RoomSessionID, 10)
	if code, text := save(number, id); code != 0 || !strings.Contains(text, filepath.Join(folder, "RoomClose_"+id+"_")) {
		t.Fatalf("%d\n%s", code, text)
	}
	closeouttest.Replay(t, folder, workflows.RoomClose)

	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"@" + host, host + ":", `"identity"`} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s contains %q", file, secret)
			}
		}
	}

	for argument, want := range map[string]string{
		number:           "exists already",
		"1":              "found no run of the session",
		"room-close-1-1": "room-close-1-1: get the history",
	} {
		if code, text := save(argument); code != 1 || !strings.Contains(text, want) {
			t.Errorf("%s: %d\n%s, want %q", argument, code, text, want)
		}
	}
	if code, text := save(); code != 2 || !strings.Contains(text, "no session") {
		t.Errorf("without an argument: %d\n%s", code, text)
	}
}
