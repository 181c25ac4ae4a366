package zego

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

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
		r.fail(name, "found 0, want the number of a session")
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
