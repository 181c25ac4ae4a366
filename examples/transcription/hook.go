package main

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

const (
	// maxBody limits the bytes of a report, because a history stores it.
	maxBody = 16 << 10
	// answerWithin limits the wait for Temporal. After that, the API must try again.
	answerWithin = 5 * time.Second
)

// hooks returns the handler for the API's reports. It signals the session's run.
func (t *Transcription) hooks(temporal client.Client) http.Handler {
	const path = webhook.HooksPath + "/transcripts/{workflow}"
	hooks := http.NewServeMux()
	hooks.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		// Without the token, a client must not learn which runs exist.
		workflowID := r.PathValue("workflow")
		if !hmac.Equal([]byte(r.URL.Query().Get("token")), []byte(t.token(workflowID))) {
			webhook.Problem(w, http.StatusUnauthorized, "The token is not valid for this address.")
			return
		}
		var transcript Transcript
		switch err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&transcript); {
		case errors.As(err, new(*http.MaxBytesError)):
			webhook.Problem(w, http.StatusRequestEntityTooLarge, "The body has more than 16 KiB.")
			return
		case err != nil || transcript.ID == "":
			webhook.Problem(w, http.StatusBadRequest, `The body is not a transcript: want {"id": "...", "words": 1}.`)
			return
		}

		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		switch err := workflows.Signal(ctx, temporal, workflowID, awaited, transcript); {
		case err == nil:
			// A second report gets the same answer, and the run ignores it.
			w.WriteHeader(http.StatusNoContent)
		case errors.As(err, new(*serviceerror.NotFound)):
			webhook.Problem(w, http.StatusNotFound, "No such run is open: it has ended, or never existed. Do not try again.")
		default:
			slog.Error("transcript not accepted, API must retry", "workflow", workflowID, "error", err)
			w.Header().Set("Retry-After", "10")
			webhook.Problem(w, http.StatusServiceUnavailable, "The transcript cannot be accepted now. Try again.")
		}
	})
	hooks.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		webhook.Problem(w, http.StatusMethodNotAllowed, "Post the transcript.")
	})
	return hooks
}
