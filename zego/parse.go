package zego

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrMalformed is returned by [Scan] for a body that is none of the encodings in
// which ZEGO sends callbacks.
var ErrMalformed = errors.New("zego: body is neither a JSON object, nor a form, nor a percent-encoded JSON object")

var errTooManyMembers = fmt.Errorf("%w: more than %d fields", ErrMalformed, maxMembers)

// FieldError reports which field of a callback is missing or can't be used.
type FieldError struct {
	// Field is the field's name in the body, with the path to it where it is nested.
	Field string
	// Problem says what was found and what would do.
	Problem string
}

// Error implements error.
func (e *FieldError) Error() string { return "zego: " + e.Field + ": " + e.Problem }

// Bounds of what is read.
const (
	// maxText is the most bytes a string may have. ZEGO's own limit for a room_id is
	// far below; much above it, stores would refuse what was accepted.
	maxText = 1024
	// maxMillis is the latest time in a four-digit year, the longest that RFC 3339 (and
	// so time.Time in JSON) can carry.
	maxMillis = 253402300799999
	// maxUnknown is how many unreadable fields of a callback are named.
	maxUnknown = 16
)

// Callback is a callback of which only those fields were read that verifying it
// takes. Call [Keyring.Verify] on it, and then Parse.
type Callback struct {
	Common
	// Unknown lists fields without which the callback can be used, and which could not
	// be read: they are taken as missing. It is set by Parse.
	Unknown []FieldError

	object    []byte
	exact     bool // the event has its documented name, "event"
	recording bool
}

// A field is the spellings of one field, the usual one first. Names match exactly.
type field []string

// head are the fields that all callbacks share, as ZEGO's products
// spell them, and two that tell a recording callback.
var head = []field{
	{"event", "Event", "EventType"},
	{"appid", "app_id", "AppId", "Appid", "AppID"},
	{"timestamp", "Timestamp"},
	{"nonce", "Nonce"},
	{"signature", "Signature"},
	{"task_id"},
	{"event_type"},
}

// Scan reads the fields of a callback that verifying it takes. It returns an error
// that wraps [ErrMalformed] or is a [*FieldError].
//
// It is made for bodies that anybody may have sent: it passes over the body once,
// stops at the first fault and allocates at most a small multiple of the body. The
// Callback refers to body, which must not change until it is parsed.
//
// The body is taken, in this order, as a JSON object, as a percent-encoded JSON
// object, and as a form if contentType says so. JSON is never percent-decoded, and
// contentType doesn't matter to it. Numbers may come as JSON strings.
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

// Parse reads the fields of the callback's event. It returns one of the types of
// [Event], or a [*FieldError] that names a field without which the event can't be
// used. Fields the event doesn't have are ignored; of those it has, one that is
// given twice, also in another case, has no one meaning and is an error.
func (c *Callback) Parse() (Event, error) {
	read, ok := events[c.Event]
	if c.recording {
		read, ok = (*reader).recording, true
	}
	if !ok {
		read = func(_ *reader, common Common) Event { return &Other{common} }
	}
	c.Unknown = nil
	r := &reader{object: c.object, sum: c.digest(), unknown: &c.Unknown}
	event := read(r, c.Common)
	if r.err != nil && !c.exact && !c.recording {
		// An event of another product that happens to have the name of one of these.
		r.sum, event, r.err = c.digest(), &Other{c.Common}, nil
	}
	if r.err != nil {
		return nil, r.err
	}
	event.Head().Fingerprint = r.sum.sum()
	return event, nil
}

// Unreadable returns what is known of a callback that Parse refused with that error.
func (c *Callback) Unreadable(err error) *Unreadable {
	u := &Unreadable{Common: c.Common, Fault: FieldError{Problem: err.Error()}}
	if field := new(FieldError); errors.As(err, &field) {
		u.Fault = *field
	}
	r := reader{}
	_ = r.open(c.object, []field{{"room_id"}, {"task_id"}}) // what was found ahead of a fault counts
	u.RoomID, _ = r.textAt("room_id", maxText)
	u.TaskID, _ = r.textAt("task_id", maxText)
	return u
}

// digest begins with the fields that all callbacks share.
func (c *Callback) digest() *digest {
	d := newDigest()
	d.text(c.Event)
	d.number(uint64(c.AppID))
	d.number(uint64(c.Timestamp))
	d.text(c.Nonce)
	return d
}

// events are the types of events, by name.
var events = map[string]func(*reader, Common) Event{
	EventRoomClose:  (*reader).roomClose,
	EventRoomCreate: (*reader).roomCreate,
	EventRoomLogin:  (*reader).roomLogin,
	EventRoomLogout: (*reader).roomLogout,
}

// Parse is [Scan] and [Callback.Parse] in one, for a body that comes from somebody
// trusted. What it returns is not verified.
func Parse(contentType string, body []byte) (Event, error) {
	c, err := Scan(contentType, body)
	if err != nil {
		return nil, err
	}
	return c.Parse()
}

// maxFields is how many fields of one object are read at most.
const maxFields = 16

// reader reads typed values out of an object and keeps the first error.
type reader struct {
	object []byte // not scanned yet by this reader
	path   string // to the object, for errors; empty for the outermost
	index  int    // of the object, where path is that of an array; else -1
	fields []field
	values [maxFields][]byte // by field; nil where it is missing or null
	found  [maxFields]string // the spelling of each
	err    error

	sum     *digest       // of what is read; may be nil
	unknown *[]FieldError // what could not be read and can be done without
}

// open finds the fields in the object.
func (r *reader) open(object []byte, fields []field) error {
	r.fields = fields
	var folded [maxFields][]byte // the field's name in a case that isn't its own, quoted
	s := scanner{b: object}
	if s.peek() != '{' {
		return s.fault("want an object")
	}
	count := 0
	err := s.members(1, func(quoted, value []byte) error {
		if count++; count > maxMembers {
			return errTooManyMembers
		}
		var buffer [maxName]byte
		name := nameOf(buffer[:0], quoted)
		for i, f := range fields {
			for _, spelling := range f {
				switch {
				case string(name) == spelling && r.found[i] != "":
					return r.twice(f, r.found[i], spelling)
				case string(name) == spelling:
					r.found[i] = spelling
					if string(value) != "null" {
						r.values[i] = value
					}
					return nil
				}
			}
			if len(name) == len(f[0]) && bytes.EqualFold(name, []byte(f[0])) {
				folded[i] = quoted
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.peek(); s.at < len(object) {
		return s.fault("want nothing after the object")
	}
	for i := range fields {
		if r.found[i] != "" && folded[i] != nil {
			return r.twice(fields[i], r.found[i], clip(folded[i]))
		}
	}
	return nil
}

// twice returns the error about a field that is given twice, as these.
func (r *reader) twice(f field, first, second string) error {
	problem := "given twice"
	if first != second {
		problem += ", as " + first + " and as " + second
	}
	return &FieldError{r.where() + f[0], problem}
}

// read is open for an object of a callback that was verified.
func (r *reader) read(fields []field) {
	if err := r.open(r.object, fields); err != nil && r.err == nil {
		r.err = err
	}
}

// maxName is longer than any name that is looked for.
const maxName = 32

// nameOf returns the name that a JSON string stands for, in the buffer if it has
// escapes; nil if it is longer than any name that is looked for.
func nameOf(buffer, quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	if len(quoted) > 2+6*maxName {
		return nil
	}
	name, _ := unquote(quoted)
	return append(buffer, name...)
}

// slot returns where the field of that usual name is.
func (r *reader) slot(name string) int {
	return slices.IndexFunc(r.fields, func(f field) bool { return f[0] == name })
}

// value returns the field's JSON; nil if it is missing or null.
func (r *reader) value(name string) []byte { return r.values[r.slot(name)] }

// spelling returns the field's name as the callback has it.
func (r *reader) spelling(name string) string {
	return r.where() + cmp.Or(r.found[r.slot(name)], name)
}

// where returns the path to the object's fields.
func (r *reader) where() string {
	switch {
	case r.path == "":
		return ""
	case r.index < 0:
		return r.path + "."
	default:
		return r.path + "[" + strconv.Itoa(r.index) + "]."
	}
}

func (r *reader) fail(name string, problem string) {
	if r.err == nil && problem != "" {
		r.err = &FieldError{r.spelling(name), problem}
	}
}

// forget notes that a field can't be read, where it can be done without.
func (r *reader) forget(name string, problem string) {
	if problem != "" && r.unknown != nil && len(*r.unknown) < maxUnknown {
		*r.unknown = append(*r.unknown, FieldError{r.spelling(name), problem})
	}
}

const missing = "missing"

// has reports whether the callback has the field, with a value.
func (r *reader) has(name string) bool {
	return len(r.value(name)) > 0 && string(r.value(name)) != `""`
}

// textAt reads a string that any store can keep.
func (r *reader) textAt(name string, maxLen int) (s, problem string) {
	v := r.value(name)
	switch {
	case v == nil:
		return "", missing
	case v[0] != '"':
		return "", "found " + kind(v) + ", want a string"
	case string(v) == `""`:
		return "", "found an empty string"
	case len(v) > 2+6*maxLen:
		return "", fmt.Sprintf("found %d bytes, want at most %d", len(v)-2, maxLen)
	}
	if s, problem = unquote(v); problem != "" {
		return "", problem
	}
	if len(s) > maxLen {
		return "", fmt.Sprintf("found %d bytes, want at most %d", len(s), maxLen)
	}
	// No name holds control characters, and a NUL can't be stored by PostgreSQL.
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", "found a control character"
	}
	return s, ""
}

// text returns a field that has to be there.
func (r *reader) text(name string) string {
	s, problem := r.textAt(name, maxText)
	r.fail(name, problem)
	r.sum.text(s)
	return s
}

// optionalText returns a field that may be missing or unreadable, and is empty then.
func (r *reader) optionalText(name string, maxLen int) string {
	var s string
	if r.has(name) {
		var problem string
		s, problem = r.textAt(name, maxLen)
		r.forget(name, problem)
	}
	r.sum.text(s)
	return s
}

// eventName returns the event's name. Products that call it EventType may number
// their events.
func (r *reader) eventName() string {
	if v := r.value("event"); v != nil && isDigit(v[0]) && len(v) <= 20 && r.found[r.slot("event")] == "EventType" {
		return string(v)
	}
	return r.text("event")
}

// unsignedAt reads an integer. It takes decimal digits only, in a number or a
// string, without leading zeros: so the integer prints as it was received, as the
// signature of a timestamp needs.
func (r *reader) unsignedAt(name string, largest uint64) (n uint64, problem string) {
	v := r.value(name)
	if v == nil {
		return 0, missing
	}
	digits := v
	if v[0] == '"' {
		digits = v[1 : len(v)-1]
		if len(v) < 128 { // which holds all digits of any number, escaped
			s, _ := unquote(v)
			digits = []byte(s)
		}
	}
	n, err := strconv.ParseUint(string(digits[:min(len(digits), 21)]), 10, 64)
	if err != nil || n > largest || len(digits) > 1 && digits[0] == '0' {
		return 0, fmt.Sprintf("found %s, want a decimal integer from 0 to %d", clip(v), largest)
	}
	return n, ""
}

// unsigned returns an integer that has to be there.
func (r *reader) unsigned(name string, largest uint64) uint64 {
	n, problem := r.unsignedAt(name, largest)
	r.fail(name, problem)
	r.sum.number(n)
	return n
}

// optionalUnsigned returns an integer that may be missing or unreadable, and is
// otherwise then.
func (r *reader) optionalUnsigned(name string, largest, otherwise uint64) uint64 {
	n := otherwise
	if r.has(name) {
		var problem string
		if n, problem = r.unsignedAt(name, largest); problem != "" {
			r.forget(name, problem)
			n = otherwise
		}
	}
	r.sum.number(n)
	return n
}

// session returns the number of a room's session. Rooms that had none would all be
// one session, so 0 is refused.
func (r *reader) session(name string) uint64 {
	n := r.unsigned(name, math.MaxUint64)
	if n == 0 {
		r.fail(name, "found 0, which is no session")
	}
	return n
}

// millis returns a time, Unix milliseconds in the callback, that has to be there.
func (r *reader) millis(name string) time.Time {
	n := r.unsigned(name, maxMillis)
	if n == 0 {
		r.fail(name, fmt.Sprintf("found 0, want Unix milliseconds from 1 to %d", int64(maxMillis)))
	}
	return time.UnixMilli(int64(n)).UTC()
}

// optionalMillis returns a time that may be missing, 0 or unreadable, and is zero
// then.
func (r *reader) optionalMillis(name string) time.Time {
	n := r.optionalUnsigned(name, maxMillis, 0)
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// kind names the JSON type of v.
func kind(v []byte) string {
	switch v[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}
