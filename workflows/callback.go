package workflows

import (
	"context"
	"encoding/json"
	"time"
)

// Callback is a verified callback of an event that Closeout doesn't handle itself.
type Callback struct {
	// AppID is ZEGO's appid, and Event the event's name, as ZEGO writes it.
	AppID uint32 `json:"appid"`
	Event string `json:"event"`
	// SentAt is when ZEGO sent the callback, by its clock.
	SentAt time.Time `json:"sent_at"`
	// Digest identifies the callback's content, in hex. Every delivery of the callback
	// has the same Digest.
	Digest string `json:"digest"`
	// JSON is the whole body. ZEGO's signature covers only its timestamp and nonce.
	JSON json.RawMessage `json:"body"`
}

// OtherEvents is a name for all events that Closeout doesn't handle itself and that have
// no [CallbackFunc] under their own name.
const OtherEvents = "*"

// CallbackFunc decides which Workflow a callback starts or signals. It runs in the webhook
// before ZEGO gets its answer, and may run several times for one callback. Decide by the
// callback's content within milliseconds, and leave calls to other systems to the Workflow.
// After an error or a panic the callback stays in the inbox, and the function is called
// again for up to a minute. Then the callback becomes a dead letter, which an operator can
// retry.
type CallbackFunc func(context.Context, Callback) (Action, error)

// Action is what a [CallbackFunc] decides. The zero value ignores the callback.
type Action struct {
	// WorkflowID is the ID of the Workflow to start or to signal. IDs that begin with
	// "room-close-" are reserved for sessions and can't be started.
	WorkflowID string
	// Workflow is the function or the name of the Workflow to start. It starts once for
	// each WorkflowID.
	Workflow any
	// Signal is the name of the Signal to send to an open run instead. If no such run
	// opens within a minute, the callback becomes a dead letter.
	Signal string
	// Input is the input of the Workflow or of the Signal.
	Input any
	// Key identifies what the callback reports. Of the callbacks with the same app, event
	// and Key, only the first counts. Default: the callback's Digest.
	Key string
}
