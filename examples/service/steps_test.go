package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/activities"
)

func TestStepsPostOnceAndSayWhatIsWrong(t *testing.T) {
	task := activities.Task{Session: closedRoom("ticket-4711"), IdempotencyKey: uuid.New()}
	steps := map[string]struct {
		do   func(context.Context, activities.Endpoint) (any, error)
		body string // a part of it
		want any
	}{
		"/replays": {func(ctx context.Context, api activities.Endpoint) (any, error) {
			return (&Studio{api}).PublishReplay(ctx, task, activities.Archived{Files: 1, Manifest: "1/2/manifest.json"})
		}, `"manifest":"1/2/manifest.json"`, Replay{URL: "https://replays.test/7"}},
		"/announcements": {func(ctx context.Context, api activities.Endpoint) (any, error) {
			return (&Studio{api}).AnnounceReplay(ctx, task, Replay{URL: "https://replays.test/7"})
		}, `"url":"https://replays.test/7"`, "announced"},
		"/tickets/close": {func(ctx context.Context, api activities.Endpoint) (any, error) {
			return (&HelpDesk{api}).CloseTicket(ctx, task)
		}, `"room_id":"ticket-4711"`, "closed"},
		"/surveys": {func(ctx context.Context, api activities.Endpoint) (any, error) {
			return (&HelpDesk{api}).SendSurvey(ctx, task)
		}, `"room_id":"ticket-4711"`, "asked"},
	}
	for path, tt := range steps {
		t.Run(path, func(t *testing.T) {
			var asked *http.Request
			var body []byte
			status := http.StatusOK
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r
				body, _ = io.ReadAll(r.Body)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"url": "https://replays.test/7"}`)
			}))
			defer server.Close()
			api := activities.Endpoint{Name: "the service", URL: server.URL, Token: "t"}

			if got, err := tt.do(t.Context(), api); err != nil || got != tt.want {
				t.Errorf("got %v, error %v", got, err)
			}
			if asked.URL.Path != path || asked.Header.Get("Idempotency-Key") != task.IdempotencyKey.String() || asked.Header.Get("Authorization") != "Bearer t" {
				t.Errorf("asked %s with %v", asked.URL, asked.Header)
			}
			if !strings.Contains(string(body), tt.body) {
				t.Errorf("the body %s lacks %s", body, tt.body)
			}
			status = http.StatusNotFound
			if _, err := tt.do(t.Context(), api); err == nil || !strings.Contains(err.Error(), "the service refused it: 404") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestNothingRecordedIsGivenUp(t *testing.T) {
	if _, err := (&Studio{}).PublishReplay(t.Context(), activities.Task{}, activities.Archived{}); !activities.IsGivenUp(err) {
		t.Errorf("error %v", err)
	}
}

func TestFakeDoesItOnce(t *testing.T) {
	c := &settings{}
	if err := c.load(from(nil)); err != nil {
		t.Fatal(err)
	}
	publish := func(task activities.Task) Replay {
		r, err := c.studio.PublishReplay(t.Context(), task, activities.Archived{Files: 1})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	task := activities.Task{IdempotencyKey: uuid.New()}
	first := publish(task)
	if again := publish(task); first.URL == "" || again != first {
		t.Errorf("first %v, again %v", first, again)
	}
	if other := publish(activities.Task{IdempotencyKey: uuid.New()}); other == first {
		t.Errorf("another replay is %v, too", other)
	}
}
