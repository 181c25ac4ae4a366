package main

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/webhook"
)

// Transcription is an HTTP API that transcribes what is in the archive.
type Transcription struct {
	// API takes orders.
	API activities.Endpoint
	// PublicURL is where the API reaches our hooks, without a slash at its end.
	PublicURL string
	// Secret makes the tokens by which we know that it is the API that calls back.
	Secret string
}

// load reads the settings; the error names each that is at fault. Where there is
// no API, a fake one calls back after a second.
func (t *Transcription) load() error {
	t.API = activities.Endpoint{Name: "the transcription API", URL: os.Getenv("TRANSCRIPTION_URL")}
	t.Secret = os.Getenv("TRANSCRIPTION_SECRET")
	t.PublicURL = strings.TrimSuffix(cmp.Or(os.Getenv("PUBLIC_URL"), "http://localhost:8080"), "/")
	if t.API.URL == "" && t.Secret == "" {
		t.API.URL, t.API.Client = "http://fake", &http.Client{Transport: &fakeAPI{later: func(f func()) { time.AfterFunc(time.Second, f) }}}
		t.Secret = rand.Text() // nobody else has to know it
	}
	var secret error
	if t.Secret == "" {
		secret = errors.New("TRANSCRIPTION_SECRET: missing, want something long and random: without it anybody could report transcripts")
	}
	return errors.Join(checkURL("TRANSCRIPTION_URL", t.API.URL), secret, checkURL("PUBLIC_URL", t.PublicURL))
}

func checkURL(setting, value string) error {
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s: want a URL as in https://api.example.com", setting) // what was found may hold a password
	}
	return nil
}

// order is what the API is asked for.
type order struct {
	// Manifest names the recordings in the archive, which the API can read.
	Manifest string `json:"manifest"`
	// CallbackURL is where to post the [Transcript].
	CallbackURL string `json:"callback_url"`
}

// OrderTranscript has the API begin, and returns the API's name for the job.
func (t *Transcription) OrderTranscript(ctx context.Context, task activities.Task, recordings activities.Archived) (string, error) {
	var job struct {
		ID string `json:"id"`
	}
	// The URL is made here and not in the workflow, so that no token is kept in the
	// history.
	callback := t.callbackURL(task.Session.WorkflowID())
	err := t.API.Post(ctx, task.IdempotencyKey, order{recordings.Manifest, callback}, &job)
	return job.ID, err
}

// callbackURL is where the run of that workflow ID hears of its transcript.
func (t *Transcription) callbackURL(workflowID string) string {
	return t.PublicURL + webhook.HooksPath + "/transcripts/" + workflowID + "?token=" + t.token(workflowID)
}

// token proves that a callback is about the run for which we gave it away.
func (t *Transcription) token(workflowID string) string {
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write([]byte(workflowID))
	return hex.EncodeToString(mac.Sum(nil))
}
