package zego

import (
	"bytes"
	"fmt"
	"mime"
	"unicode/utf8"
)

// decode returns the JSON object that a body encodes, without checking its syntax. It
// allocates at most a small multiple of the body.
func decode(contentType string, body []byte) ([]byte, error) {
	body = trim(body)
	if len(body) > 0 && body[0] == '{' {
		return body, nil
	}
	// This comes before the form, because the first name in a form never begins with a brace.
	if hasPrefixFold(body, "%7B") || hasPrefixFold(body, "%EF%BB%BF%7B") {
		decoded, err := unescape(make([]byte, 0, len(body)), body)
		if err != nil {
			return nil, err
		}
		return trim(decoded), nil
	}
	if media, _, _ := mime.ParseMediaType(contentType); media == "application/x-www-form-urlencoded" {
		return formObject(body)
	}
	return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
}

// trim removes a byte order mark, and white space around the rest.
func trim(b []byte) []byte {
	return bytes.Trim(bytes.TrimPrefix(b, []byte("\ufeff")), " \t\r\n")
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], []byte(prefix))
}

// unescape appends the percent-decoded bytes to dst. A plus sign becomes a space, as form
// encoders write it. All encoders write a plus sign itself as "%2B".
func unescape(dst, escaped []byte) ([]byte, error) {
	for i := 0; i < len(escaped); i++ {
		switch c := escaped[i]; c {
		case '+':
			dst = append(dst, ' ')
		case '%':
			if i+2 >= len(escaped) || unhex(escaped[i+1]) < 0 || unhex(escaped[i+2]) < 0 {
				return nil, fmt.Errorf("%w: invalid percent-encoding at byte %d", ErrMalformed, i)
			}
			dst = append(dst, byte(unhex(escaped[i+1])<<4|unhex(escaped[i+2])))
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst, nil
}

// formObject converts a form to a JSON object of strings.
func formObject(form []byte) ([]byte, error) {
	// An escape makes a byte two, and six bytes are added to each pair.
	object := append(make([]byte, 0, 2*len(form)+6*min(1+bytes.Count(form, []byte("&")), maxMembers)+2), '{')
	plain := make([]byte, 0, len(form))
	for pairs := 0; len(form) > 0; {
		var pair []byte
		pair, form, _ = bytes.Cut(form, []byte("&"))
		if len(pair) == 0 {
			continue
		}
		if pairs++; pairs > maxMembers {
			return nil, errTooManyMembers
		}
		if len(object) > 1 {
			object = append(object, ',')
		}
		name, value, _ := bytes.Cut(pair, []byte("="))
		for i, part := range [...][]byte{name, value} {
			if bytes.ContainsFunc(part, func(r rune) bool { return r < ' ' }) {
				return nil, fmt.Errorf("%w: control character in a form", ErrMalformed)
			}
			var err error
			if plain, err = unescape(plain[:0], part); err != nil {
				return nil, err
			}
			if i > 0 {
				object = append(object, ':')
			}
			object = appendQuoted(object, plain)
		}
	}
	return append(object, '}'), nil
}

// appendQuoted appends b to dst as a JSON string. It keeps invalid UTF-8, which unquote
// refuses later.
func appendQuoted(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// clip shortens a sender's text for an error, which is logged and sent back.
func clip(b []byte) string {
	const maxLen = 40
	if len(b) <= maxLen && utf8.Valid(b) {
		return string(b)
	}
	return string(bytes.ToValidUTF8(b[:min(len(b), maxLen)], nil)) + "…"
}
