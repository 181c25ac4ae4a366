package zego

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of a body before it is verified.
const (
	// maxDepth is the maximum nesting of objects and arrays. The deepest documented
	// callback, a recording's list of files, has four levels.
	maxDepth = 32
	// maxMembers is the maximum number of members in the outermost object. The largest
	// documented callback has about forty.
	maxMembers = 1000
)

// scanner reads JSON in one pass, allocates nothing and stops at the first fault;
// encoding/json does none of these. It doesn't check the UTF-8 of strings, because an
// invalid string in a field that isn't read does no harm.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) fault(problem string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrMalformed, problem, s.at)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
		default:
			return s.b[s.at]
		}
	}
	return 0
}

// value skips the next value, which is nested depth levels deep.
func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '{':
		return s.members(depth, func(_, _ []byte) error { return nil })
	case c == '[':
		return s.elements(depth, func([]byte) error { return nil })
	case c == '"':
		return s.text()
	case c == '-' || isDigit(c):
		return s.number()
	}
	for _, word := range [...]string{"null", "true", "false"} {
		if string(s.b[s.at:min(len(s.b), s.at+len(word))]) == word {
			s.at += len(word)
			return nil
		}
	}
	return s.fault("want a value")
}

// members reads an object and calls found with each quoted name and its value. It stops at
// the first error.
func (s *scanner) members(depth int, found func(name, value []byte) error) error {
	return s.list(depth, '}', func() error {
		if s.peek() != '"' {
			return s.fault("want a name")
		}
		start := s.at
		if err := s.text(); err != nil {
			return err
		}
		name := s.b[start:s.at]
		if s.peek() != ':' {
			return s.fault("want a colon")
		}
		s.at++
		s.peek()
		start = s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		return found(name, s.b[start:s.at])
	})
}

// elements reads an array and calls found with each value.
func (s *scanner) elements(depth int, found func(value []byte) error) error {
	return s.list(depth, ']', func() error {
		s.peek()
		start := s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		return found(s.b[start:s.at])
	})
}

// list reads an object or array that ends with end. It calls item for each item.
func (s *scanner) list(depth int, end byte, item func() error) error {
	if depth > maxDepth {
		return s.fault(fmt.Sprintf("nested more than %d deep", maxDepth))
	}
	s.at++
	if s.peek() == end {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case end:
			s.at++
			return nil
		default:
			return s.fault(fmt.Sprintf("want a comma or %q", end))
		}
	}
}

// text skips a string.
func (s *scanner) text() error {
	for s.at++; s.at < len(s.b); s.at++ {
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			return nil
		case c < ' ':
			return s.fault("control character in a string")
		case c == '\\':
			s.at++
			if s.at >= len(s.b) {
				break
			}
			switch s.b[s.at] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(s.b[s.at+1:]); !ok {
					return s.fault("escape without four hex digits")
				}
				s.at += 4
			default:
				return s.fault("unknown escape")
			}
		}
	}
	return s.fault("string without an end")
}

// number skips a number.
func (s *scanner) number() error {
	digits := func() bool {
		start := s.at
		for s.at < len(s.b) && isDigit(s.b[s.at]) {
			s.at++
		}
		return s.at > start
	}
	next := func(any string) bool { return s.at < len(s.b) && strings.IndexByte(any, s.b[s.at]) >= 0 }
	if next("-") {
		s.at++
	}
	if next("0") {
		s.at++
	} else if !digits() {
		return s.fault("want a digit")
	}
	if next(".") {
		if s.at++; !digits() {
			return s.fault("want a digit")
		}
	}
	if next("eE") {
		if s.at++; next("+-") {
			s.at++
		}
		if !digits() {
			return s.fault("want a digit")
		}
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// hex4 reads four hex digits.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		n := unhex(c)
		if n < 0 {
			return 0, false
		}
		r = r<<4 | n
	}
	return r, true
}

func unhex(c byte) rune {
	switch {
	case isDigit(c):
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unquote returns the text of a scanned JSON string. It refuses half of a surrogate pair and
// invalid UTF-8, because encoding/json would decode different strings to the same text.
func unquote(quoted []byte) (s, problem string) {
	rest := quoted[1 : len(quoted)-1]
	if !utf8.Valid(rest) {
		return "", "found invalid UTF-8"
	}
	if bytes.IndexByte(rest, '\\') < 0 {
		return string(rest), ""
	}
	b := make([]byte, 0, len(rest))
	for i := 0; i < len(rest); i++ {
		if rest[i] != '\\' {
			b = append(b, rest[i])
			continue
		}
		i++
		if at := strings.IndexByte("bfnrt", rest[i]); at >= 0 {
			b = append(b, "\b\f\n\r\t"[at])
			continue
		}
		if rest[i] != 'u' {
			b = append(b, rest[i])
			continue
		}
		r, _ := hex4(rest[i+1:])
		i += 4
		if utf16.IsSurrogate(r) {
			var low rune
			if i+2 < len(rest) && rest[i+1] == '\\' && rest[i+2] == 'u' {
				low, _ = hex4(rest[i+3:])
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return "", "found half of a surrogate pair"
			}
			i += 6
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b), ""
}
