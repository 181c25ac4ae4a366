package service

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
)

func TestAppAssignsARecordingBeforeItsCallbacks(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "ledger.db")
	books, err := ledger.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	h := &health{}
	router := expectedHosts("127.0.0.1:9090", slog.New(slog.DiscardHandler), adminRouter(h, http.NotFoundHandler()))
	const task = "/recordings/7/YZ4joOE4IwmFAAAT"
	put := func(path, body string, want int) {
		t.Helper()
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, path, strings.NewReader(body))
		r.Host = "127.0.0.1:9090"
		router.ServeHTTP(w, r)
		if w.Code != want || want >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("PUT %s %s: %d %s, want %d", path, body, w.Code, w.Body, want)
		}
	}
	put(task, `{"room_session_id":"5"}`, 503) // the ledger isn't open yet
	h.ledger.Store(books)
	for _, bad := range []string{``, `{}`, `{"room_session_id":"-1"}`, `{"room_session_id":"18446744073709551616"}`, `{"room_session_id":5.5}`, `{"room_session_id":null}`, `{"session":"5"}`} {
		put(task, bad, 400)
	}
	put("/recordings/x/YZ4joOE4IwmFAAAT", `{"room_session_id":"5"}`, 400)
	put("/recordings/7/short", `{"room_session_id":"5"}`, 400)
	for _, body := range []string{`{"room_session_id":"18446744073709551615"}`, `{"room_session_id":18446744073709551615}`} {
		put(task, body, 204)
	}
	got, err := books.RecordingTask(t.Context(), 7, "YZ4joOE4IwmFAAAT")
	if err != nil || got.RoomSessionID != 1<<64-1 || !got.Assigned || !got.Announced {
		t.Errorf("%+v, %v", got, err)
	}
	if err := books.ArchivedRecordings(t.Context(), session.Session{ID: session.ID{AppID: 7, RoomSessionID: 1<<64 - 1}}, []ledger.RecordingTask{got}); err != nil {
		t.Fatal(err)
	}
	put(task, `{"room_session_id":"18446744073709551615"}`, 204)
	put(task, `{"room_session_id":"5"}`, 409)
}
