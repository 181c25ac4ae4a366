package service

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
)

// maxAnnouncement bounds the body of an announcement in bytes.
const maxAnnouncement = 4 << 10

// announceTimeout bounds the call of the ledger.
const announceTimeout = 5 * time.Second

// announceRecording assigns a recording task to a session, for the app that started it.
func (h *health) announceRecording(w http.ResponseWriter, r *http.Request) {
	app, err := strconv.ParseUint(r.PathValue("appid"), 10, 32)
	if err != nil {
		webhook.Problem(w, http.StatusBadRequest, "appid: want a number, as in /recordings/1234567890/YZ4joOE4IwmFAAAT.")
		return
	}
	var body struct {
		RoomSessionID json.RawMessage `json:"room_session_id"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAnnouncement))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&body)
	text := string(body.RoomSessionID)
	if quoted := ""; json.Unmarshal(body.RoomSessionID, &quoted) == nil {
		text = quoted
	}
	number, numberErr := strconv.ParseUint(text, 10, 64)
	if err != nil || numberErr != nil {
		webhook.Problem(w, http.StatusBadRequest, `room_session_id: want a body as in {"room_session_id": "858012925204410417"}, or "0" for no session.`)
		return
	}
	books := h.ledger.Load()
	if books == nil {
		w.Header().Set("Retry-After", "10")
		webhook.Problem(w, http.StatusServiceUnavailable, "This process has no ledger, or has not opened it yet.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), announceTimeout)
	defer cancel()
	switch err := books.AnnounceRecording(ctx, session.ID{AppID: uint32(app), RoomSessionID: number}, r.PathValue("task")); {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ledger.ErrTaskID):
		webhook.Problem(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, ledger.ErrRecordingArchived):
		webhook.Problem(w, http.StatusConflict, err.Error())
	default:
		w.Header().Set("Retry-After", "10")
		webhook.Problem(w, http.StatusServiceUnavailable, "The ledger does not take it now. Try again.")
	}
}
