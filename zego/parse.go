package zego

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrMalformed is returned by [Parse] for a body that is none of the encodings
// in which ZEGO sends callbacks.
var ErrMalformed = errors.New("zego: body is neither a JSON object, nor a form, nor a percent-encoded JSON object")

// FieldError says which field of a callback is missing or can't be used.
type FieldError struct {
	// Field is the field's name in the body.
	Field string
	// Problem says what was found and what would do.
	Problem string
}

// Error implements error.
func (e *FieldError) Error() string { return "zego: " + e.Field + ": " + e.Problem }

// maxText is the most bytes that a string may have. ZEGO's own limit for a
// room_id is far below; much above it, stores would refuse what was accepted.
const maxText = 1024

// The latest room_close_time that fits a four-digit year, the longest that
// RFC 3339 (and so time.Time in JSON) can carry.
const maxMillis = 253402300799999

// Parse reads the body of a callback. It returns one of the types of [Event], or
// an error that wraps [ErrMalformed] or is a [*FieldError]. What it returns
// is not yet to be trusted: see [Keyring.Verify].
//
// The body is taken, in this order, as a JSON object, as a percent-encoded JSON
// object, and as a form if contentType says so. JSON is never percent-decoded,
// and contentType doesn't matter to it. Numbers may come as JSON strings.
// Fields that the event doesn't have are ignored; a field given twice is an
// error, as it has no one meaning.
func Parse(contentType string, body []byte) (Event, error) {
	f, err := decode(contentType, body)
	if err != nil {
		return nil, err
	}
	if err := f.sort(); err != nil {
		return nil, err
	}
	r := reader{fields: f}
	name, app := EventRecording, "app_id"
	recording := r.isRecording()
	if !recording {
		name, app = r.text("event"), "appid"
	}
	common := Common{
		Event:       name,
		AppID:       uint32(r.unsigned(app, 32)),
		Timestamp:   int64(r.unsigned("timestamp", 63)),
		Nonce:       r.text("nonce"),
		Signature:   r.text("signature"),
		Fingerprint: f.fingerprint(),
	}
	if r.err != nil {
		return nil, r.err
	}
	var event Event
	switch {
	case recording:
		event = r.recording(common)
	case name == EventRoomClose:
		event = &RoomClose{
			Common:        common,
			RoomID:        r.text("room_id"),
			RoomSessionID: r.unsigned("room_session_id", 64),
			CloseReason:   CloseReason(r.unsigned("close_reason", 32)),
			RoomCloseTime: r.millis("room_close_time"),
		}
	case name == EventRoomCreate:
		event = r.roomCreate(common)
	case name == EventRoomLogin:
		login := r.roomLogin(common)
		event = &login
	case name == EventRoomLogout:
		event = r.roomLogout(common)
	default:
		event = &Other{common}
	}
	if r.err != nil {
		return nil, r.err
	}
	return event, nil
}

// fields are the members of the body's object.
type fields []member

// member is a field's name, decoded, and its value as valid JSON without spaces
// around it. Both may point into the body, so nothing that outlives Parse may
// keep them.
type member struct{ name, value []byte }

func decode(contentType string, body []byte) (fields, error) {
	f, err := decodeJSON(body)
	if err == nil {
		return f, nil
	}
	// Ahead of the form, as no form's first name begins with a brace.
	if len(body) >= 3 && strings.EqualFold(string(body[:3]), "%7B") {
		// A path's rules, not a query's: there, "+" would become a space.
		plain, unescapeErr := url.PathUnescape(string(body))
		if unescapeErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, unescapeErr)
		}
		return decodeJSON([]byte(plain))
	}
	if media, _, _ := mime.ParseMediaType(contentType); media == "application/x-www-form-urlencoded" {
		return decodeForm(string(body))
	}
	return nil, err
}

func decodeJSON(body []byte) (fields, error) {
	// encoding/json would replace what isn't UTF-8, and so alter a room_id.
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	rest := skipSpace(body)
	if len(rest) == 0 || rest[0] != '{' {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	if !json.Valid(body) {
		// Valid keeps the reason to itself, but allocates nothing if there is none.
		return nil, fmt.Errorf("%w: %w", ErrMalformed, json.Unmarshal(body, new(json.RawMessage)))
	}
	return split(rest), nil
}

// split gives the members of a JSON object. It may be called with valid JSON
// only, and relies on that: it never looks for an end that might be missing.
func split(object []byte) fields {
	f := make(fields, 0, 16) // room for a room_close and a few fields to come
	for rest := skipSpace(object[1:]); rest[0] != '}'; {
		n := valueLen(rest)
		name := unquote(rest[:n])
		rest = skipSpace(rest[n:])
		rest = skipSpace(rest[1:]) // the colon
		n = valueLen(rest)
		f = append(f, member{name, rest[:n]})
		if rest = skipSpace(rest[n:]); rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	return f
}

// skipSpace gives what follows the white space, as JSON has it, in front of b.
func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// valueLen gives the length of the value at the start of b, in which at least
// the end of the object around it follows.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++ // what follows may be a quote
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // it ends the object, and so the number or word in front of it
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
}

// unquote gives what a JSON string stands for.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is known to be a string
	return []byte(s)
}

func decodeForm(body string) (fields, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f := make(fields, 0, len(form))
	for name, values := range form {
		if len(values) > 1 {
			return nil, &FieldError{clip(name), "given twice"}
		}
		if !utf8.ValidString(values[0]) {
			return nil, &FieldError{clip(name), "not UTF-8"}
		}
		value, err := json.Marshal(values[0])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		f = append(f, member{[]byte(name), value})
	}
	return f, nil
}

// sort puts the fields in the order of their names. It fails if a field was
// given twice.
func (f fields) sort() error {
	slices.SortFunc(f, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	for i := range f {
		if i > 0 && bytes.Equal(f[i-1].name, f[i].name) {
			return &FieldError{clip(string(f[i].name)), "given twice"}
		}
	}
	return nil
}

// fingerprint hashes the fields, which have to be sorted by then, so that their
// order and the spaces between them don't matter.
func (f fields) fingerprint() [32]byte {
	b := make([]byte, 0, 1024) // enough for a room_close, and no garbage
	for _, m := range f {
		value := m.value
		if value[0] == '{' || value[0] == '[' { // no other value has spaces to lose
			var compact bytes.Buffer
			_ = json.Compact(&compact, value) // it is valid
			value = compact.Bytes()
		}
		// Lengths, so that no two lists of fields run together into the same bytes.
		b = binary.AppendUvarint(b, uint64(len(m.name)))
		b = append(b, m.name...)
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
	}
	return sha256.Sum256(b)
}

// reader takes typed values out of fields and keeps the first error.
type reader struct {
	fields fields
	err    error
}

func (r *reader) fail(name, problem string, args ...any) {
	if r.err == nil {
		r.err = &FieldError{name, fmt.Sprintf(problem, args...)}
	}
}

// value gives the field's JSON, and none if it is missing.
func (r *reader) value(name string) []byte {
	for _, m := range r.fields {
		if string(m.name) == name && string(m.value) != "null" {
			return m.value
		}
	}
	r.fail(name, "missing")
	return nil
}

// text gives the field as a string that any store can keep.
func (r *reader) text(name string) string { return r.textOf(name, maxText) }

// textOf is text for a field of so many bytes at most.
func (r *reader) textOf(name string, most int) string {
	v := r.value(name)
	if v == nil {
		return ""
	}
	if v[0] != '"' {
		r.fail(name, "found %s, want a string", kind(v))
		return ""
	}
	s := string(unquote(v))
	if s == "" {
		r.fail(name, "found an empty string")
	}
	if len(s) > most {
		r.fail(name, "found %d bytes, want at most %d", len(s), most)
	}
	// No name holds control characters, and a NUL can't be stored by PostgreSQL.
	if strings.ContainsFunc(s, unicode.IsControl) {
		r.fail(name, "found a control character")
	}
	return s
}

// unsigned gives the field as an integer of so many bits. It takes decimal
// digits only, in a number or a string, without leading zeros: so the integer
// prints as it was received, as the signature of a timestamp needs.
func (r *reader) unsigned(name string, bits int) uint64 {
	v := r.value(name)
	if v == nil {
		return 0
	}
	digits := v
	if v[0] == '"' {
		digits = unquote(v)
	}
	n, err := strconv.ParseUint(string(digits), 10, bits)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		r.fail(name, "found %s, want a decimal integer from 0 to %d", clip(string(v)), uint64(1)<<(bits-1)-1+uint64(1)<<(bits-1))
	}
	return n
}

// millis gives the field, Unix milliseconds, as a time in UTC.
func (r *reader) millis(name string) time.Time {
	n := r.unsigned(name, 63)
	if n == 0 || n > maxMillis {
		r.fail(name, "found %d, want Unix milliseconds from 1 to %d", n, int64(maxMillis))
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
	case 't', 'f':
		return "a boolean"
	default:
		return "a number"
	}
}

// clip shortens what a sender wrote, for an error that is logged and sent back.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
