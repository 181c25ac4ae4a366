package zego

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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

// Parse reads the body of a callback. It returns a [*RoomClose] or an [*Other],
// or an error that wraps [ErrMalformed] or is a [*FieldError]. What it returns
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
	r := reader{fields: f}
	common := Common{
		Event:       r.text("event"),
		AppID:       uint32(r.unsigned("appid", 32)),
		Timestamp:   int64(r.unsigned("timestamp", 63)),
		Nonce:       r.text("nonce"),
		Signature:   r.text("signature"),
		Fingerprint: f.fingerprint(),
	}
	if r.err != nil {
		return nil, r.err
	}
	if common.Event != EventRoomClose {
		return &Other{common}, nil
	}
	event := &RoomClose{
		Common:        common,
		RoomID:        r.text("room_id"),
		RoomSessionID: r.unsigned("room_session_id", 64),
		CloseReason:   CloseReason(r.unsigned("close_reason", 32)),
		RoomCloseTime: r.millis("room_close_time"),
	}
	if r.err != nil {
		return nil, r.err
	}
	return event, nil
}

// fields are the members of the body's object, each as JSON.
type fields map[string]json.RawMessage

func decode(contentType string, body []byte) (fields, error) {
	f, err := decodeJSON(body)
	var field *FieldError
	if err == nil || errors.As(err, &field) {
		return f, err
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
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	f := fields{}
	var twice error
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		name, _ := t.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if _, ok := f[name]; ok && twice == nil {
			twice = &FieldError{clip(name), "given twice"}
		}
		f[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: more after the JSON object", ErrMalformed)
	}
	return f, twice
}

func decodeForm(body string) (fields, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f := fields{}
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
		f[name] = value
	}
	return f, nil
}

// fingerprint hashes the fields by name, so that their order and the spaces
// between them don't matter.
func (f fields) fingerprint() [32]byte {
	var b bytes.Buffer
	var length [8]byte
	for _, name := range slices.Sorted(maps.Keys(f)) {
		// Lengths, so that no two lists of fields run together into the same bytes.
		b.Write(binary.BigEndian.AppendUint64(length[:0], uint64(len(name))))
		b.WriteString(name)
		start := b.Len()
		_ = json.Compact(&b, f[name]) // it was decoded from JSON
		b.Write(binary.BigEndian.AppendUint64(length[:0], uint64(b.Len()-start)))
	}
	return sha256.Sum256(b.Bytes())
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
func (r *reader) value(name string) json.RawMessage {
	v := r.fields[name]
	if v == nil || string(v) == "null" {
		r.fail(name, "missing")
		return nil
	}
	return v
}

// text gives the field as a string that any store can keep.
func (r *reader) text(name string) string {
	v := r.value(name)
	if v == nil {
		return ""
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		r.fail(name, "found %s, want a string", kind(v))
	}
	if s == "" {
		r.fail(name, "found an empty string")
	}
	if len(s) > maxText {
		r.fail(name, "found %d bytes, want at most %d", len(s), maxText)
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
	digits := string(v)
	if digits[0] == '"' {
		if err := json.Unmarshal(v, &digits); err != nil {
			r.fail(name, "not a JSON string")
		}
	}
	n, err := strconv.ParseUint(digits, 10, bits)
	if err != nil || strconv.FormatUint(n, 10) != digits {
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
func kind(v json.RawMessage) string {
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
