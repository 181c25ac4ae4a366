package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/mocks"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/webhook"
)

// listener serves the hooks as Closeout does.
func listener(transcription *Transcription, temporal *mocks.Client) http.Handler {
	return webhook.Router(webhook.Options{Keyring: closeouttest.Keyring(), Hooks: transcription.hooks(temporal)})
}

func TestHookAnswers(t *testing.T) {
	transcription := &Transcription{Secret: "secret"}
	const run = "room-close-1-23"
	address, elsewhere := transcription.callbackURL(run), transcription.callbackURL("room-close-12-3")
	path, token, _ := strings.Cut(address, "?")
	_, othersToken, _ := strings.Cut(elsewhere, "?")
	const body = `{"id":"job","words":7}`
	away := serviceerror.NewUnavailable("connection refused")
	for name, test := range map[string]struct {
		method, address, body string
		signal                error // Temporal's answer
		want                  int
		asked                 bool
	}{
		"taken":           {address: address, body: body, want: 204, asked: true},
		"no run":          {address: address, body: body, signal: serviceerror.NewNotFound("no such run"), want: 404, asked: true},
		"Temporal away":   {address: address, body: body, signal: away, want: 503, asked: true},
		"no token":        {address: path, body: body, want: 401},
		"another's token": {address: path + "?" + othersToken, body: body, want: 401},
		"half a token":    {address: path + "?" + token[:20], body: body, want: 401},
		"another's run":   {address: strings.Replace(address, run, "room-close-12-3", 1), body: body, want: 401},
		"no JSON":         {address: address, body: "words", want: 400},
		"no transcript":   {address: address, body: `{}`, want: 400},
		"too large":       {address: address, body: `{"id":"` + strings.Repeat("x", maxBody) + `"}`, want: 413},
		"read":            {method: http.MethodGet, address: address, want: 405},
	} {
		t.Run(name, func(t *testing.T) {
			temporal := mocks.NewClient(t)
			if test.asked {
				temporal.On("SignalWorkflow", mock.Anything, run, "", awaited, Transcript{ID: "job", Words: 7}).Return(test.signal).Once()
			}
			method := test.method
			if method == "" {
				method = http.MethodPost
			}
			w := httptest.NewRecorder()
			listener(transcription, temporal).ServeHTTP(w, httptest.NewRequest(method, test.address, strings.NewReader(test.body)))
			if w.Code != test.want {
				t.Fatalf("%d %s, want %d", w.Code, w.Body, test.want)
			}
			if test.want == http.StatusNoContent {
				return
			}
			var p struct{ Status int }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != test.want || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%v %s: no problem document: %v", w.Header(), w.Body, err)
			}
			if test.want == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		})
	}
}

func TestTokenDependsOnSecretAndRun(t *testing.T) {
	one, two := &Transcription{Secret: "one"}, &Transcription{Secret: "two"}
	if one.token("room-close-1-23") == one.token("room-close-12-3") || one.token("room-close-1-23") == two.token("room-close-1-23") {
		t.Error("two tokens are the same")
	}
}

// An order repeated after a lost answer makes one job. The API posts the report until Temporal
// accepts it.
func TestFakeCallsBackOncePerKeyUntilItIsHeard(t *testing.T) {
	session := closeouttest.Session()
	task := activities.Task{Session: session, IdempotencyKey: session.IdempotencyKey("order")}
	temporal := mocks.NewClient(t)
	signal := func(answer error) {
		temporal.On("SignalWorkflow", mock.Anything, session.WorkflowID(), "", awaited, mock.Anything).Return(answer).Once()
	}
	var due []func()
	transcription := &Transcription{Secret: "secret"}
	transcription.API.URL, transcription.API.Client = "http://fake", &http.Client{Transport: &fakeAPI{later: func(f func()) { due = append(due, f) }}}
	server := httptest.NewServer(listener(transcription, temporal))
	defer server.Close()
	transcription.PublicURL = server.URL

	for range 2 {
		if id, err := transcription.OrderTranscript(t.Context(), task, activities.Archived{}); err != nil || id != "transcript-"+task.IdempotencyKey.String()[:8] {
			t.Fatalf("ordered %s, %v", id, err)
		}
	}
	signal(errors.New("Temporal is away"))
	due[0]()
	signal(nil)
	due[1]()
	if len(due) != 2 {
		t.Errorf("it calls back %d times, want 2", len(due))
	}
}

func TestOrderTellsWhereToCallBack(t *testing.T) {
	session := closeouttest.Session()
	var got order
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		accept(w, r)
	}))
	defer api.Close()
	transcription := &Transcription{API: activities.Endpoint{URL: api.URL}, Secret: "secret", PublicURL: "https://closeout.example.com"}
	id, err := transcription.OrderTranscript(t.Context(), activities.Task{Session: session}, activities.Archived{Manifest: "m"})
	if err != nil || id != "job" {
		t.Fatalf("%s, %v", id, err)
	}
	address, token, _ := strings.Cut(got.CallbackURL, "?token=")
	run := session.WorkflowID()
	if got.Manifest != "m" || address != "https://closeout.example.com/hooks/transcripts/"+run || token != transcription.token(run) {
		t.Errorf("ordered %+v", got)
	}
}
