package zego

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Bounds of the values that are read.
const (
	// maxText is the maximum length of a string in bytes. ZEGO's own limit for a room_id is
	// much lower, and stores refuse much longer keys.
	maxText = 1024
	// maxMillis is the last millisecond of the year 9999, the last year in RFC 3339.
	maxMillis = 253402300799999
	// maxUnknown is the maximum number of entries in Callback.Unknown.
	maxUnknown = 16
	// maxFields is the maximum number of fields read from one object.
	maxFields = 16
	// maxName is longer than the name of any field that is read.
	maxName = 32
)

// A field lists the spellings of one field's name, the usual one first. Names match
// exactly.
type field []string

// fieldsOf returns fields with one spelling each.
func fieldsOf(names ...string) []field {
	all := make([]field, len(names))
	for i, name := range names {
		all[i] = field{name}
	}
	return all
}

// reader reads typed values from an object and keeps the first error.
type reader struct {
	body   []byte // the object, not scanned yet
	path   string // the path to the object, for errors; empty for the outermost object
	index  int    // the object's index if path names an array, else -1
	fields []field
	values [maxFields][]byte // by field; nil if the field is missing or null
	found  [maxFields]string // the spelling found, by field; empty if the field is missing
	err    error

	sum     *digest       // digest of the values read; may be nil
	unknown *[]FieldError // optional fields that could not be read
}

// digest hashes the values read, in the order of reading. A nil digest does nothing.
type digest struct {
	hash   hash.Hash
	buffer []byte
}

func newDigest() *digest { return &digest{sha256.New(), make([]byte, 0, 64)} }

func (d *digest) number(n uint64) {
	if d != nil {
		d.buffer = binary.AppendUvarint(d.buffer[:0], n)
		_, _ = d.hash.Write(d.buffer) // never fails
	}
}

// text hashes the length too, so that different lists of strings have different digests.
func (d *digest) text(s string) {
	if d != nil {
		d.number(uint64(len(s)))
		d.buffer = append(d.buffer[:0], s...)
		_, _ = d.hash.Write(d.buffer) // never fails
	}
}

// open finds the fields in the object.
func (r *reader) open(object []byte, fields []field) error {
	r.fields = fields
	var folded [maxFields][]byte // by field: a name that differs only in case, quoted
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
				if string(name) != spelling {
					continue
				}
				if r.found[i] != "" {
					return r.twice(f, r.found[i], spelling)
				}
				r.found[i] = spelling
				if string(value) != "null" {
					r.values[i] = value
				}
				return nil
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

// twice returns an error for a field that occurs twice.
func (r *reader) twice(f field, first, second string) error {
	problem := "given twice"
	if first != second {
		problem += ", as " + first + " and as " + second
	}
	return &FieldError{r.where() + f[0], problem}
}

// nameOf returns the name in a JSON string. It uses buffer if the string has escapes. It
// returns nil if the string is longer than the name of any field that is read.
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

// read opens an object of a verified callback.
func (r *reader) read(fields []field) {
	if err := r.open(r.body, fields); err != nil && r.err == nil {
		r.err = err
	}
}

// within calls read with a reader of the object in a field. If the field is missing or
// null, the object is empty.
func (r *reader) within(name string, fields []field, read func(*reader)) {
	v := r.value(name)
	if v == nil {
		v = []byte("{}")
	}
	if r.err == nil {
		r.err = r.inner(name).object(v, fields, read)
	}
}

// list calls read with a reader of each object in the array of a field. A field that is
// missing or null is an empty array.
func (r *reader) list(name string, maxLen int, fields []field, read func(*reader)) {
	v := r.value(name)
	if v == nil || r.err != nil {
		return
	}
	if v[0] != '[' {
		r.fail(name, "found "+kind(v)+", want an array")
		return
	}
	s, in := scanner{b: v}, r.inner(name) // one reader for all elements, because a list may be long
	r.err = s.elements(1, func(element []byte) error {
		if in.index++; in.index == maxLen {
			r.fail(name, fmt.Sprintf("found more than %d elements", maxLen))
			return r.err
		}
		return in.object(element, fields, read)
	})
}

// inner returns a reader for objects in a field.
func (r *reader) inner(name string) *reader {
	return &reader{path: r.spelling(name), index: -1, sum: r.sum, unknown: r.unknown}
}

// object makes r read the object v and calls read with it.
func (r *reader) object(v []byte, fields []field, read func(*reader)) error {
	if v[0] != '{' {
		return &FieldError{strings.TrimSuffix(r.where(), "."), "found " + kind(v) + ", want an object"}
	}
	r.body, r.values, r.found = v, [maxFields][]byte{}, [maxFields]string{}
	r.sum.text("{")
	if r.read(fields); r.err == nil {
		read(r)
	}
	r.sum.text("}")
	return r.err
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

// slot returns the index of the field by its usual name.
func (r *reader) slot(name string) int {
	return slices.IndexFunc(r.fields, func(f field) bool { return f[0] == name })
}

// value returns the field's JSON, or nil if the field is missing or null.
func (r *reader) value(name string) []byte { return r.values[r.slot(name)] }

// spelling returns the path of the field with the callback's own spelling of its name.
func (r *reader) spelling(name string) string {
	return r.where() + cmp.Or(r.found[r.slot(name)], name)
}

// fail records a problem with a required field, unless problem is empty.
func (r *reader) fail(name, problem string) {
	if r.err == nil && problem != "" {
		r.err = &FieldError{r.spelling(name), problem}
	}
}

// forget records a problem with an optional field, unless problem is empty.
func (r *reader) forget(name, problem string) {
	if problem != "" && r.unknown != nil && len(*r.unknown) < maxUnknown {
		*r.unknown = append(*r.unknown, FieldError{r.spelling(name), problem})
	}
}

// has reports whether the field has a value other than null and "".
func (r *reader) has(name string) bool {
	return len(r.value(name)) > 0 && string(r.value(name)) != `""`
}

// textAt reads a string that every store can keep: not empty, at most maxLen bytes, valid
// UTF-8, without control characters.
func (r *reader) textAt(name string, maxLen int) (s, problem string) {
	v := r.value(name)
	switch {
	case v == nil:
		return "", "missing"
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
	// Genuine names have no control characters, and PostgreSQL can't store a NUL.
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", "found a control character"
	}
	return s, ""
}

// text returns a required string.
func (r *reader) text(name string) string {
	s, problem := r.textAt(name, maxText)
	r.fail(name, problem)
	r.sum.text(s)
	return s
}

// optionalText returns a string, or "" if the field is missing or unreadable.
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

// eventName returns the event's name. In the products that call the field EventType it may
// be a number.
func (r *reader) eventName() string {
	if v := r.value("event"); v != nil && isDigit(v[0]) && len(v) <= 20 && r.found[r.slot("event")] == "EventType" {
		return string(v)
	}
	return r.text("event")
}

// unsignedAt reads an integer in a number or a string. It accepts only decimal digits
// without leading zeros, so that the integer prints exactly as received. The signature of
// a timestamp depends on that.
func (r *reader) unsignedAt(name string, largest uint64) (n uint64, problem string) {
	v := r.value(name)
	if v == nil {
		return 0, "missing"
	}
	digits := v
	if v[0] == '"' {
		digits = v[1 : len(v)-1]
		if len(v) < 128 { // enough for the digits of any uint64, escaped
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

// unsigned returns a required integer.
func (r *reader) unsigned(name string, largest uint64) uint64 {
	n, problem := r.unsignedAt(name, largest)
	r.fail(name, problem)
	r.sum.number(n)
	return n
}

// optionalUnsigned returns an integer, or otherwise if the field is missing or unreadable.
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

// sequence returns a sequence number. It is not Valid if the field is missing or
// unreadable.
func (r *reader) sequence(name string) Sequence {
	const none = math.MaxUint64
	if n := r.optionalUnsigned(name, math.MaxInt64-1, none); n != none {
		return Sequence{n, true}
	}
	return Sequence{}
}

// code returns a code as it was received, or "" if the field is missing.
func (r *reader) code(name string) Code {
	var c Code
	if r.has(name) {
		if n, problem := r.unsignedAt(name, math.MaxUint32); problem == "" {
			c = Code(strconv.FormatUint(n, 10))
		} else {
			r.forget(name, problem)
			c = r.words(name)
		}
	}
	r.sum.text(string(c))
	return c
}

// words returns a value as it was received, but shortened and without control characters,
// so that every store can keep it.
func (r *reader) words(name string) Code {
	text, problem := r.textAt(name, maxText)
	if problem != "" {
		text = strings.Map(func(c rune) rune {
			if unicode.IsControl(c) {
				return -1
			}
			return c
		}, clip(r.value(name)))
	}
	return Code(text)
}

// session returns a required room_session_id. It refuses 0, which would make all rooms
// without a number one session.
func (r *reader) session(name string) uint64 {
	n := r.unsigned(name, math.MaxUint64)
	if n == 0 {
		r.fail(name, "found 0, which is no session")
	}
	return n
}

// millis returns a required time. The callback has it in Unix milliseconds.
func (r *reader) millis(name string) time.Time {
	n := r.unsigned(name, maxMillis)
	if n == 0 {
		r.fail(name, fmt.Sprintf("found 0, want Unix milliseconds from 1 to %d", int64(maxMillis)))
	}
	return time.UnixMilli(int64(n)).UTC()
}

// optionalMillis returns a time, or the zero time if the field is missing, 0 or unreadable.
func (r *reader) optionalMillis(name string) time.Time {
	if n := r.optionalUnsigned(name, maxMillis, 0); n != 0 {
		return time.UnixMilli(int64(n)).UTC()
	}
	return time.Time{}
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
