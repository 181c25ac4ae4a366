package zego

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
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
