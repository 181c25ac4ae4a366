package workflows

import (
	"context"
	"encoding/json"
	"time"
)

// Callback is a verified callback of an event that Closeout has no use for itself.
type Callback struct {
	// AppID is ZEGO's appid, and Event the event's name, as ZEGO writes it.
	AppID uint32 `json:"appid"`
	Event string `json:"event"`
	// SentAt is when ZEGO sent the callback, by its clock.
	SentAt time.Time `json:"sent_at"`
	// Digest identifies what the callback says, in hex. It is the same however often
	// ZEGO sends the callback.
	Digest string `json:"digest"`
	// JSON is the whole body. ZEGO's signature covers only its timestamp and nonce.
	JSON json.RawMessage `json:"body"`
}

// OtherEvents, in place of an event's name, stands for every event without a
// [CallbackFunc] of its own that Closeout has no use for itself.
const OtherEvents = "*"

// CallbackFunc decides what a callback leads to. It runs in the webhook, ahead of the
// answer to ZEGO, and may run several times for one callback: decide from what the
// callback says, in milliseconds, and leave calls to other systems to the Workflow.
// After an error or a panic the callback stays in the inbox and the function is called
// again, for a minute; then the callback is a dead letter that an operator can retry.
type CallbackFunc func(context.Context, Callback) (Action, error)

// Action is what a [CallbackFunc] decides. The zero value ignores the callback.
type Action struct {
	// WorkflowID is the ID of the Workflow to start or to signal. IDs that begin with
	// "room-close-" are those of sessions and can't be started.
	WorkflowID string
	// Workflow is the function or the name of the Workflow to start. It starts once for
	// each WorkflowID.
	Workflow any
	// Signal is the name of the Signal to send to the run instead. While no such run is
	// open, the callback waits, for a minute; then it is a dead letter.
	Signal string
	// Input is the input of the Workflow or of the Signal.
	Input any
	// Key identifies what the callback reports, if that isn't its Digest: of the
	// callbacks with the same app, event and key, only the first counts.
	Key string
}
