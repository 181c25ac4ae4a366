package zego

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// scanned returns the members of an object that scanner finds, as alternating names and
// values.
func scanned(body []byte) ([]string, error) {
	var members []string
	s := scanner{b: body}
	if s.peek() != '{' {
		return nil, s.fault("want an object")
	}
	err := s.members(1, func(name, value []byte) error {
		members = append(members, string(name), string(value))
		return nil
	})
	if s.peek(); err == nil && s.at < len(body) {
		err = s.fault("want nothing after the object")
	}
	return members, err
}

// reference is scanned with encoding/json.
func reference(body []byte) []string {
	dec := json.NewDecoder(bytes.NewReader(body))
	_, _ = dec.Token()
	var members []string
	for dec.More() {
		start := dec.InputOffset()
		_, _ = dec.Token()
		name := strings.Trim(string(body[start:dec.InputOffset()]), ", \t\r\n")
		var value json.RawMessage
		_ = dec.Decode(&value)
		members = append(members, name, string(value))
	}
	return members
}

// depthOf returns the nesting depth of valid JSON.
func depthOf(body []byte) (most int) {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			most = max(most, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return most
}

// FuzzScanner checks that scanner accepts exactly the objects that encoding/json accepts,
// and finds the same members.
func FuzzScanner(f *testing.F) {
	for _, body := range []string{
		`{"a":1,"b":2}`, ` { "b" : 2 , "a" : 1 } `, `{"\u0061":"\u0041\n\/\\\""}`, `{"a":"\\","b\"}":"\\\"","\\":[]}`,
		`{"a":[{"b":"]}"},"}",[ "\\" ]],"c":{"d":[ ]}}`, `{"a":null,"b":true,"c":false,"":-1.5e+3,"d":0.0E-0,"e":-0}`,
		"{\"a\":null\r,\"b\":true\t,\"c\":false\n}", `{}`, "\t{ }\r\n", `{"a":1,}`, `{,}`, `{"a":1]`, `{"a" 1}`, `{"a":1}{`, `{"a":[1}`, `{"a":[1,]}`,
		``, `["a"]`, `{"a`, `{"a\`, "{\"a\":\"\xff\"}", "{\"a\":\"\x00\"}", `{1:2}`, `{"a":01}`, `{"a":1.}`, `{"a":1e}`, `{"a":-}`, `{"a":+1}`, `{"a":.1}`,
		`{"a":nul}`, `{"a":nulll}`, `{"a":tru`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, "\ufeff{}", "{\u00a0}",
		`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := scanned(body)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%q: error %v", body, err)
		}
		trimmed := bytes.TrimLeft(body, " \t\r\n")
		valid := json.Valid(body) && len(trimmed) > 0 && trimmed[0] == '{'
		if want := valid && depthOf(body) <= maxDepth; want != (err == nil) {
			t.Fatalf("%q: error %v, want one: %v", body, err, !want)
		}
		if err == nil && !slices.Equal(members, reference(body)) {
			t.Fatalf("%q: got %q, want %q", body, members, reference(body))
		}
	})
}

// FuzzUnquote checks that unquote returns the same text as encoding/json, and refuses a
// string in which encoding/json replaces invalid parts.
func FuzzUnquote(f *testing.F) {
	for _, s := range []string{"", "a", `\"\\\/\b\f\n\r\t`, `\u0041\u00e9\u20ac`, `\ud83d\ude00`, `\uD83D\uDE00x`, `\ud800`, `\udc00`, `\ud800\ud800`, `\ud800\u0041`, `\ud800a`,
		`\udc00\ud800`, `\ufffd`, "\xff", "\ufffd", "é€😀", `\ud800\`, `\ud83d\n`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, inner []byte) {
		quoted := slices.Concat([]byte{'"'}, inner, []byte{'"'})
		var want string
		if json.Unmarshal(quoted, &want) != nil {
			t.Skip()
		}
		// The number of invalid parts that encoding/json has replaced with U+FFFD.
		replaced := strings.Count(want, "\ufffd") - bytes.Count(inner, []byte("\ufffd")) - bytes.Count(bytes.ToLower(bytes.ReplaceAll(inner, []byte(`\\`), nil)), []byte(`\ufffd`))
		got, problem := unquote(quoted)
		if broken := replaced > 0; broken != (problem != "") || !broken && got != want {
			t.Fatalf("%q: got %q, %q; want %q", inner, got, problem, want)
		}
		if !utf8.ValidString(got) {
			t.Fatalf("%q: %q is not valid UTF-8", inner, got)
		}
	})
}

// Scanning a callback of usual size takes little memory.
func TestScanAllocatesLittle(t *testing.T) {
	body := []byte(`{"event":"room_close","appid":1,"timestamp":1499676989,"nonce":"350176","signature":"signature","room_id":"rid_1242649","room_session_id":858012925204410417,"close_reason":1,"room_close_time":"1499676989909"}`)
	if n := testing.AllocsPerRun(100, func() { _, _ = Scan("", body) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
}
