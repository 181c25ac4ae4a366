package main

import (
	"context"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/session"
)

// Studio publishes replays.
type Studio struct{ api activities.Endpoint }

// Replay is a published replay.
type Replay struct {
	// URL is its address.
	URL string `json:"url"`
}

// String describes the replay in the Web UI.
func (r Replay) String() string { return "replay at " + r.URL }

// PublishReplay publishes the archived recordings as a replay.
func (s *Studio) PublishReplay(ctx context.Context, task activities.Task, archived activities.Archived) (Replay, error) {
	if archived.Files == 0 {
		return Replay{}, activities.GiveUpf("nothing was recorded")
	}
	var replay Replay
	err := s.api.At("replays").Post(ctx, task.IdempotencyKey, struct {
		Session  session.Session `json:"session"`
		Manifest string          `json:"manifest"`
	}{task.Session, archived.Manifest}, &replay)
	return replay, err
}

// AnnounceReplay notifies the followers of a replay.
func (s *Studio) AnnounceReplay(ctx context.Context, task activities.Task, replay Replay) (string, error) {
	return "announced", s.api.At("announcements").Post(ctx, task.IdempotencyKey, replay, nil)
}

// HelpDesk keeps the tickets. The room of a call is named after its ticket.
type HelpDesk struct{ api activities.Endpoint }

// CloseTicket closes the ticket of a call.
func (h *HelpDesk) CloseTicket(ctx context.Context, task activities.Task) (string, error) {
	return "closed", h.api.At("tickets/close").Post(ctx, task.IdempotencyKey, task.Session, nil)
}

// SendSurvey asks the customer how the call was.
func (h *HelpDesk) SendSurvey(ctx context.Context, task activities.Task) (string, error) {
	return "asked", h.api.At("surveys").Post(ctx, task.IdempotencyKey, task.Session, nil)
}
