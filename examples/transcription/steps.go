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

// Transcription is an HTTP API that transcribes archived recordings.
type Transcription struct {
	// API accepts orders.
	API activities.Endpoint
	// PublicURL is where the API reaches the hooks, without a slash at its end.
	PublicURL string
	// Secret is the key of the tokens that authenticate the API.
	Secret string
}

// load reads the settings. The error names each wrong one. Without TRANSCRIPTION_URL, a
// fake API calls back after a second.
func (t *Transcription) load() error {
	t.API = activities.Endpoint{Name: "the transcription API", URL: os.Getenv("TRANSCRIPTION_URL")}
	t.Secret = os.Getenv("TRANSCRIPTION_SECRET")
	t.PublicURL = strings.TrimSuffix(cmp.Or(os.Getenv("PUBLIC_URL"), "http://localhost:8080"), "/")
	if t.API.URL == "" && t.Secret == "" {
		t.API.URL, t.API.Client = "http://fake", &http.Client{Transport: &fakeAPI{later: func(f func()) { time.AfterFunc(time.Second, f) }}}
		t.Secret = rand.Text() // only this process needs it
	}
	var secret error
	if t.Secret == "" {
		secret = errors.New("TRANSCRIPTION_SECRET: missing, want something long and random: without it anybody could report transcripts")
	}
	return errors.Join(checkURL("TRANSCRIPTION_URL", t.API.URL), secret, checkURL("PUBLIC_URL", t.PublicURL))
}

func checkURL(setting, value string) error {
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s: want a URL as in https://api.example.com", setting) // without the value, which may contain a password
	}
	return nil
}

// order is the body of an order.
type order struct {
	// Manifest is the key of the manifest in the archive, which the API can read.
	Manifest string `json:"manifest"`
	// CallbackURL is where to post the [Transcript].
	CallbackURL string `json:"callback_url"`
}

// OrderTranscript orders a transcript and returns the API's ID of the job.
func (t *Transcription) OrderTranscript(ctx context.Context, task activities.Task, recordings activities.Archived) (string, error) {
	var job struct {
		ID string `json:"id"`
	}
	// The step makes the URL, not the Workflow, so that no history has a token.
	callback := t.callbackURL(task.Session.WorkflowID())
	err := t.API.Post(ctx, task.IdempotencyKey, order{recordings.Manifest, callback}, &job)
	return job.ID, err
}

// callbackURL returns the address for the transcript of that run.
func (t *Transcription) callbackURL(workflowID string) string {
	return t.PublicURL + webhook.HooksPath + "/transcripts/" + workflowID + "?token=" + t.token(workflowID)
}

// token returns the token that allows a report for that run.
func (t *Transcription) token(workflowID string) string {
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write([]byte(workflowID))
	return hex.EncodeToString(mac.Sum(nil))
}
