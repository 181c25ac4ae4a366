package zego

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// ErrMalformed is returned by [Scan] for a body that has none of ZEGO's encodings.
var ErrMalformed = errors.New("zego: body is neither a JSON object, nor a form, nor a percent-encoded JSON object")

// FieldError reports a field of a callback that is missing or can't be used.
type FieldError struct {
	// Field is the field's name in the body, with the path to it if it is nested.
	Field string
	// Problem describes what was found and what is expected.
	Problem string
}

// Error implements error.
func (e *FieldError) Error() string { return "zego: " + e.Field + ": " + e.Problem }

// Event is a parsed callback: a [*RoomClose], [*RoomCreate], [*RoomLogin],
// [*RoomLogout], [*StreamCreate], [*StreamClose] or [*Recording], or an [*Other] for any
// event without a type of its own.
type Event interface {
	// Head returns the fields that all callbacks share.
	Head() *Common
}

// Common holds the fields that all callbacks share.
type Common struct {
	// Event is the event's name, such as "room_close".
	Event string
	// AppID is ZEGO's ID of the app. It selects the secrets that verify the callback.
	AppID uint32
	// Timestamp is ZEGO's clock when it sent the callback, as received: Unix seconds, or
	// milliseconds from ZEGO's newer products. See SentAt.
	Timestamp int64
	// Nonce is a random string. ZEGO's nonces look like decimal numbers of 19 digits.
	Nonce string
	// Signature is the signature received. A genuine one has 40 lower-case hex digits.
	Signature string
	// Fingerprint is a SHA-256 over all values read from the body. It distinguishes ZEGO's
	// retry of a callback from another body with the same signature. Fields that are not
	// read don't change it. [Callback.Parse] and [Callback.Unreadable] set it, and it is
	// never sent.
	Fingerprint [32]byte
}

// SentAt returns when ZEGO sent the callback, by its clock, in UTC. It is the only
// time in a callback that the signature covers. It is zero if Timestamp is 0.
func (c *Common) SentAt() time.Time {
	if c.Timestamp == 0 {
		return time.Time{}
	}
	// 1e11 is the year 5138 in seconds, and 1973 in milliseconds.
	if c.Timestamp >= 1e11 {
		return time.UnixMilli(c.Timestamp).UTC()
	}
	return time.Unix(c.Timestamp, 0).UTC()
}

// Head implements [Event].
func (c *Common) Head() *Common { return c }

// Other is a callback of an event without a type of its own in this package.
type Other struct {
	Common
	// JSON is the whole body, decoded if it came percent-encoded or as a form.
	JSON []byte
	// Digest is a SHA-256 over the sorted fields of JSON, except timestamp, nonce and
	// signature. Every delivery of the callback has the same Digest.
	Digest [32]byte
}

// Unreadable is a genuine callback with a required field that is missing or can't be
// read. [Callback.Unreadable] returns it; Parse never does.
type Unreadable struct {
	Common
	// RoomID and TaskID are empty if they are missing or can't be read.
	RoomID, TaskID string
	// Fault is the field that can't be used.
	Fault FieldError
}

// Callback is a scanned callback. Only the fields that verify it have been read. Call
// [Keyring.Verify] on its Common, and then Parse.
type Callback struct {
	Common
	// Unknown lists the optional fields that could not be read. They are treated as
	// missing. Parse sets it.
	Unknown []FieldError

	object    []byte
	exact     bool // the field of the event's name is spelled "event", as documented
	recording bool
}

// head lists the fields that all callbacks share, in the spellings of ZEGO's products, and
// the two fields that mark a recording callback.
var head = []field{
	{"event", "Event", "EventType"},
	{"appid", "app_id", "AppId", "Appid", "AppID"},
	{"timestamp", "Timestamp"},
	{"nonce", "Nonce"},
	{"signature", "Signature"},
	{"task_id"},
	{"event_type"},
}

// signed are the fields of head that may change when ZEGO repeats a callback.
var signed = head[2:5]

// Scan reads the fields that are needed to verify a callback. Its error wraps
// [ErrMalformed] or is a [*FieldError].
//
// Anybody may have sent the body. Scan reads it once, stops at the first fault, and
// allocates at most a small multiple of its length. The Callback refers to body, which
// must not change until it is parsed.
//
// The body may be a JSON object, a percent-encoded JSON object, or a form if contentType
// is that of a form. They are tried in this order. A JSON object is never percent-decoded,
// and its contentType is ignored. Numbers may be JSON strings.
func Scan(contentType string, body []byte) (*Callback, error) {
	object, err := decode(contentType, body)
	if err != nil {
		return nil, err
	}
	r := reader{}
	if err := r.open(object, head); err != nil {
		return nil, err
	}
	c := &Callback{object: object}
	c.exact = r.found[r.slot("event")] == "event"
	c.recording = r.value("event") == nil && r.value("appid") != nil && r.value("task_id") != nil && r.value("event_type") != nil
	c.Event = EventRecording
	if !c.recording {
		c.Event = r.eventName()
	}
	c.AppID = uint32(r.unsigned("appid", math.MaxUint32))
	c.Timestamp = int64(r.unsigned("timestamp", maxMillis))
	c.Nonce = r.text("nonce")
	c.Signature = r.text("signature")
	if r.err != nil {
		return nil, r.err
	}
	return c, nil
}

// events maps the names of events with their own type to the functions that read them.
var events = map[string]func(*reader, Common) Event{
	EventRoomClose:    (*reader).roomClose,
	EventRoomCreate:   (*reader).roomCreate,
	EventRoomLogin:    (*reader).roomLogin,
	EventRoomLogout:   (*reader).roomLogout,
	EventStreamCreate: (*reader).streamCreate,
	EventStreamClose:  (*reader).streamClose,
}

// Parse reads the fields of the callback's event. It returns one of the types of
// [Event], or a [*FieldError] if a required field is missing or can't be read. It ignores
// fields that the event doesn't have. It refuses a field that occurs twice, even in
// another case, because its meaning is ambiguous.
func (c *Callback) Parse() (Event, error) {
	read := events[c.Event]
	if c.recording {
		read = (*reader).recording
	}
	if read == nil {
		read = (*reader).other
	}
	c.Unknown = nil
	r := &reader{body: c.object, sum: c.digest(), unknown: &c.Unknown}
	event := read(r, c.Common)
	if r.err != nil && !c.exact && !c.recording {
		// An event of another product, with the same name.
		c.Unknown, r = nil, &reader{body: c.object, sum: c.digest()}
		event = r.other(c.Common)
	}
	if r.err != nil {
		return nil, r.err
	}
	r.sum.hash.Sum(event.Head().Fingerprint[:0])
	return event, nil
}

// other returns the event with its whole body.
func (r *reader) other(common Common) Event {
	o := &Other{Common: common, JSON: bytes.Clone(r.body)}
	var members []string
	s := scanner{b: o.JSON}
	s.peek()
	_ = s.members(1, func(quoted, value []byte) error { // Scan has checked the syntax
		name, _ := unquote(quoted)
		if slices.ContainsFunc(signed, func(f field) bool { return slices.Contains(f, name) }) {
			return nil
		}
		var member bytes.Buffer
		_, _ = member.Write(quoted)
		if err := json.Compact(&member, value); err != nil {
			_, _ = member.Write(value)
		}
		members = append(members, member.String())
		return nil
	})
	slices.Sort(members)
	d := newDigest()
	for _, m := range members {
		d.text(m)
	}
	d.hash.Sum(o.Digest[:0])
	r.sum.text(string(o.Digest[:]))
	return o
}

// digest returns a digest of the fields that all callbacks share.
func (c *Callback) digest() *digest {
	d := newDigest()
	d.text(c.Event)
	d.number(uint64(c.AppID))
	d.number(uint64(c.Timestamp))
	d.text(c.Nonce)
	return d
}

// Unreadable returns the readable fields of a callback that Parse refused with err.
func (c *Callback) Unreadable(err error) *Unreadable {
	u := &Unreadable{Common: c.Common, Fault: FieldError{Problem: err.Error()}}
	if field := new(FieldError); errors.As(err, &field) {
		u.Fault = *field
	}
	r := reader{}
	_ = r.open(c.object, []field{{"room_id"}, {"task_id"}}) // fields ahead of a fault are still found
	u.RoomID, _ = r.textAt("room_id", maxText)
	u.TaskID, _ = r.textAt("task_id", maxText)
	d := c.digest()
	for _, s := range [...]string{u.RoomID, u.TaskID, u.Fault.Field, u.Fault.Problem} {
		d.text(s)
	}
	d.hash.Sum(u.Fingerprint[:0])
	return u
}

// Parse combines [Scan] and [Callback.Parse] for a body from a trusted sender. It verifies
// nothing.
func Parse(contentType string, body []byte) (Event, error) {
	c, err := Scan(contentType, body)
	if err != nil {
		return nil, err
	}
	return c.Parse()
}

var errTooManyMembers = fmt.Errorf("%w: more than %d fields", ErrMalformed, maxMembers)
