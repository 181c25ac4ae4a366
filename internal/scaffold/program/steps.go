package main

import (
	"context"

	"github.com/closeouthq/closeout/activities"
)

// Notifier has the steps that notify other systems.
type Notifier struct{ API activities.Endpoint }

// Notify posts the session to NOTIFY_URL. Temporal may call it any number of times, so the
// API must act once for each key.
func (n *Notifier) Notify(ctx context.Context, task activities.Task) (string, error) {
	if n.API.URL == "" {
		return "nobody to notify: NOTIFY_URL is not set", nil
	}
	return "notified", n.API.Post(ctx, task.IdempotencyKey, task.Session, nil)
}
