package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/workflows"
)

// newEnv returns an environment for a session with that many recordings, and an API with
// that answer.
func newEnv(t *testing.T, files int, api http.HandlerFunc) *closeouttest.Env {
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	env := closeouttest.NewEnv(t, &Transcription{API: activities.Endpoint{Name: "the transcription API", URL: server.URL}, Secret: "secret"})
	env.OnActivity(activities.Standard.ArchiveRecordings, mock.Anything, mock.Anything).
		Return(activities.Archived{Manifest: "1/2/manifest.json", Files: files}, nil)
	return env
}

func accept(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write([]byte(`{"id":"job"}`))
}

// outcomes returns the states of the steps.
func outcomes(r workflows.Result) string {
	var all []string
	for _, s := range r.Steps {
		all = append(all, s.Step+" "+string(s.State))
	}
	return strings.Join(all, ", ")
}

const allDone = "billing done, recordings done, order done, transcript done"

func TestTranscriptIsTakenWheneverItComes(t *testing.T) {
	const deadline = 6 * time.Hour
	for name, test := range map[string]struct {
		comes []time.Duration
		retry time.Duration // never if 0
	}{
		"at once, before the order's answer": {comes: []time.Duration{0}},
		"within the deadline":                {comes: []time.Duration{deadline - time.Minute}},
		"twice":                              {comes: []time.Duration{time.Hour, time.Hour}},
		"after all, with nobody's help":      {comes: []time.Duration{deadline + 48*time.Hour}},
		"after a retry":                      {comes: []time.Duration{deadline + 3*time.Hour}, retry: deadline + time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, 1, accept)
			for _, age := range test.comes {
				env.After(age, func() { env.SignalWorkflow(awaited, Transcript{ID: "job", Words: 7}) })
			}
			if test.retry > 0 {
				env.After(test.retry, func() { env.Retry(awaited, "they were slow") })
			}
			result := env.Run(CloseTranscribedRoom, closeouttest.Session())
			if result.State != workflows.StateDone || outcomes(result) != allDone || result.Steps[3].Summary != "7 words, see job" {
				t.Errorf("%s: %s, %q", result.State, outcomes(result), result.Steps[3].Summary)
			}
		})
	}
}

func TestTranscriptThatNeverComesIsBlockedAndSkipped(t *testing.T) {
	env := newEnv(t, 1, accept)
	env.After(5*time.Hour, func() {
		if details := env.Details(); strings.Contains(details, "blocked") {
			t.Errorf("blocked too soon:\n%s", details)
		}
	})
	env.After(7*time.Hour, func() {
		if want := "**transcript** is **blocked**: `not done within 6h0m0s"; !strings.Contains(env.Details(), want) {
			t.Errorf("details lack %q:\n%s", want, env.Details())
		}
		env.Retry(awaited, "they say it will come")
	})
	env.After(14*time.Hour, func() { env.Skip(awaited, "they lost it") })
	result := env.Run(CloseTranscribedRoom, closeouttest.Session())
	if want := "billing done, recordings done, order done, transcript skipped"; outcomes(result) != want || len(result.Decisions) != 2 {
		t.Errorf("%s, decisions %v", outcomes(result), result.Decisions)
	}
}

// The API has answered, and a retry would not change the answer.
func TestTranscriptThatCannotBeIsGivenUp(t *testing.T) {
	for name, age := range map[string]time.Duration{"in time": time.Hour, "while it is blocked": 7 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, 1, accept)
			env.After(age, func() { env.SignalWorkflow(awaited, Transcript{ID: "job", Failed: "no speech"}) })
			result := env.Run(CloseTranscribedRoom, closeouttest.Session())
			if want := "billing done, recordings done, order done, transcript given_up"; outcomes(result) != want || result.Steps[3].Failure != "no transcript: no speech" {
				t.Errorf("%s: %+v", outcomes(result), result.Steps[3])
			}
		})
	}
}

func TestNothingIsOrderedWithoutRecordings(t *testing.T) {
	env := newEnv(t, 0, func(http.ResponseWriter, *http.Request) { t.Error("there was an order") })
	result := env.Run(CloseTranscribedRoom, closeouttest.Session())
	if want := "billing done, recordings done"; outcomes(result) != want || result.State != workflows.StateDone {
		t.Errorf("%s: %s", result.State, outcomes(result))
	}
}

func TestOrderIsRetriedUnderOneKey(t *testing.T) {
	var keys []string
	env := newEnv(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) < 3 {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		accept(w, r)
	})
	env.After(time.Hour, func() { env.SignalWorkflow(awaited, Transcript{ID: "job"}) })
	session := closeouttest.Session()
	result := env.Run(CloseTranscribedRoom, session)
	want := session.IdempotencyKey("order").String()
	if outcomes(result) != allDone || len(keys) != 3 || keys[0] != want || keys[2] != want {
		t.Errorf("%s, keys %v", outcomes(result), keys)
	}
}

func TestRefusedOrderIsBlockedAndItsTranscriptSkipped(t *testing.T) {
	env := newEnv(t, 1, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no plan", http.StatusPaymentRequired) })
	env.After(time.Hour, func() { env.Skip("order", "not worth it") })
	result := env.Run(CloseTranscribedRoom, closeouttest.Session())
	if want := "billing done, recordings done, order skipped, transcript skipped"; outcomes(result) != want || !strings.Contains(result.Steps[2].Failure, "no plan") {
		t.Errorf("%s: %+v", outcomes(result), result.Steps[2])
	}
}

func TestSettingsAtFaultAreAllNamed(t *testing.T) {
	for name, test := range map[string]struct {
		url, secret, public string
		faults              []string // the beginning of each
	}{
		"none":            {},
		"all":             {url: "https://api.example.com", secret: "s", public: "https://closeout.example.com/"},
		"no secret":       {url: "https://api.example.com", faults: []string{"TRANSCRIPTION_SECRET: missing"}},
		"no API":          {secret: "hunter2", faults: []string{"TRANSCRIPTION_URL: want"}},
		"no such address": {public: "closeout.example.com", faults: []string{"PUBLIC_URL: want"}},
		"everything": {url: "https://user:hunter2@", public: "ftp://closeout.example.com",
			faults: []string{"TRANSCRIPTION_URL: want", "TRANSCRIPTION_SECRET: missing", "PUBLIC_URL: want"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TRANSCRIPTION_URL", test.url)
			t.Setenv("TRANSCRIPTION_SECRET", test.secret)
			t.Setenv("PUBLIC_URL", test.public)
			transcription := new(Transcription)
			err := transcription.load()
			if test.faults == nil {
				if err != nil || transcription.Secret == "" || strings.HasSuffix(transcription.PublicURL, "/") {
					t.Errorf("%+v, %v", transcription, err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.faults) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error %v, want %q", err, test.faults)
			}
			for i, want := range test.faults {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("fault %q, want %q", lines[i], want)
				}
			}
		})
	}
}

func TestServiceIsSound(t *testing.T) {
	if err := service().Check(); err != nil {
		t.Error(err)
	}
}

func TestRunsUnderWayGoOn(t *testing.T) { closeouttest.Replay(t, "testdata", CloseTranscribedRoom) }
