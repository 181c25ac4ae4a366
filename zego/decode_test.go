package zego

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// errTwice is what reference returns for a name that occurs twice.
var errTwice = errors.New("given twice")

// reference decodes as decodeJSON and sort do, slowly but by encoding/json's own
// idea of where a member begins and ends. The values are compacted.
func reference(body []byte) (map[string]string, error) {
	if !utf8.Valid(body) {
		return nil, ErrMalformed
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, ErrMalformed
	}
	f := map[string]string{}
	var twice error
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, ErrMalformed
		}
		name, _ := t.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, ErrMalformed
		}
		if _, ok := f[name]; ok {
			twice = errTwice
		}
		f[name] = compacted(value)
	}
	if _, err := dec.Token(); err != nil {
		return nil, ErrMalformed
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, ErrMalformed
	}
	return f, twice
}

func compacted(value []byte) string {
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		panic(err)
	}
	return b.String()
}

// rewritten is an object of the same members in another order and spacing.
func rewritten(members map[string]string) []byte {
	var compact, b bytes.Buffer
	compact.WriteByte('{')
	names := slices.Sorted(maps.Keys(members))
	slices.Reverse(names)
	for i, name := range names {
		if i > 0 {
			compact.WriteByte(',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&compact, "%s:%s", quoted, members[name])
	}
	compact.WriteByte('}')
	if err := json.Indent(&b, compact.Bytes(), "\r", " \t"); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// FuzzDecode checks decodeJSON against reference: the same bodies are refused,
// the others have the same members, and of two bodies the fingerprints are the
// same if and only if the members are.
func FuzzDecode(f *testing.F) {
	for _, pair := range [][2]string{
		{`{"a":1,"b":2}`, ` { "b" : 2 , "a" : 1 } `},
		{`{"a":"A"}`, `{"a":"\u0041"}`},
		{`{"\u0061":1}`, `{"a":1}`},
		{`{"a":1,"\u0061":1}`, `{"\ud800":1,"\udc00":2,"\ufffd":3}`},
		{`{"a":"\\","b\"}":"\\\"","\\":[]}`, `{"a":[{"b":"]}"},"}",[ "\\" ]],"c":{"d":[ ]}}`},
		{`{"a":null,"b":true,"c":false,"":-1.5e+3}`, "{\"a\":null\r,\"b\":true\t,\"c\":false\n,\"\":-1.5e+3 }"},
		{`{}`, "\t{ }\r\n"},
		{`{"a":1,}`, `{,}`},
		{`{"a":1]`, `{"a" 1}`},
		{`{"a":1}{`, `{"a":[1}`},
		{`{"ab":"c"}`, `{"a":"bc"}`},
		// These run together unless the lengths of names and values are hashed.
		{`{"a":1,"b":2}`, `{"a\u00011b":2}`},
		{`{" ":1,"0` + strings.Repeat("x", '0') + `":2}`, `{" ":11,"` + strings.Repeat("x", '0') + `":2}`},
		{`{"a":{"b ":1}}`, `{"a":{ "b ": 1 }}`},
		{`{"a":[" ",1]}`, `{"a":[" ", 1 ]}`},
		{``, `["a"]`},
		{`{"a`, `{"a\`},
		{"{\"a\":\"\xff\"}", "{\"a\":\"\x00\"}"},
		{`{1:2}`, `{"a":01}`},
		{"\ufeff{}", "{\u00a0}"},
	} {
		f.Add([]byte(pair[0]), []byte(pair[1]))
	}
	check := func(t *testing.T, body []byte) (map[string]string, fields) {
		want, wantErr := reference(body)
		got, err := decodeJSON(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || !errors.Is(wantErr, ErrMalformed) {
				t.Fatalf("%q: error %v, want %v", body, err, wantErr)
			}
			return nil, nil
		}
		if err := got.sort(); err != nil {
			if field := new(FieldError); !errors.As(err, &field) || wantErr != errTwice {
				t.Fatalf("%q: error %v, want %v", body, err, wantErr)
			}
			return nil, nil
		}
		if wantErr != nil {
			t.Fatalf("%q: no error, want %v", body, wantErr)
		}
		members := map[string]string{}
		for _, m := range got {
			members[string(m.name)] = compacted(m.value)
			if !bytes.Equal(m.value, bytes.TrimSpace(m.value)) {
				t.Fatalf("%q: spaces around the value %q", body, m.value)
			}
		}
		if len(got) != len(want) || !maps.Equal(members, want) {
			t.Fatalf("%q: got %q, want %q", body, members, want)
		}
		return want, got
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, b := range [][]byte{one, two} {
			// The reference counts the nesting from the member, not from the object.
			if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) >= 10000 {
				t.Skip()
			}
		}
		members1, fields1 := check(t, one)
		members2, fields2 := check(t, two)
		if members1 == nil || members2 == nil {
			return
		}
		if same := fields1.fingerprint() == fields2.fingerprint(); same != maps.Equal(members1, members2) {
			t.Fatalf("%q and %q: same fingerprint: %v", one, two, same)
		}
		again := rewritten(members1)
		if _, f := check(t, again); f.fingerprint() != fields1.fingerprint() {
			t.Fatalf("%q and %q have different fingerprints", one, again)
		}
	})
}

func TestDecodeNesting(t *testing.T) {
	// encoding/json's limit, with the object as the outermost level.
	for depth, want := range map[int]error{9999: nil, 10000: nil, 10001: ErrMalformed} {
		body := `{"a":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
		f, err := decodeJSON([]byte(body))
		if !errors.Is(err, want) {
			t.Errorf("depth %d: error %v, want %v", depth, err, want)
		}
		if want == nil && (len(f) != 1 || len(f[0].value) != 2*(depth-1)) {
			t.Errorf("depth %d: another value", depth)
		}
	}
}
