package send

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Resign returns a saved body with another timestamp, nonce and signature, those that ZEGO would send now, and
// otherwise byte for byte as it is. The secret returns that of an app.
func Resign(body []byte, secret func(appID uint32) (string, error)) ([]byte, error) {
	was, err := zego.Scan("application/json", body)
	if err != nil {
		return nil, err
	}
	key, err := secret(was.AppID)
	if err != nil {
		return nil, err
	}
	now, number := time.Now(), nonce()
	stamp := now.Unix()
	if was.Timestamp > 1e11 { // milliseconds
		stamp = now.UnixMilli()
	}
	made := map[string]string{"timestamp": strconv.FormatInt(stamp, 10), "nonce": number, "signature": zego.Sign(key, stamp, number)}
	signed, err := replace(body, made)
	if err != nil {
		return nil, err
	}
	// What was spelled or encoded in a way that replace doesn't know still has its old value.
	if is, err := zego.Scan("application/json", signed); err != nil || is.Timestamp != stamp || is.Nonce != number || is.Signature != made["signature"] {
		return nil, errors.New("timestamp, nonce and signature could not be replaced: want a JSON object with these three, as ZEGO sends it")
	}
	return signed, nil
}

// replace returns a JSON object with other values of some members of its outermost level, by their names in lower case.
// A string stays a string.
func replace(object []byte, values map[string]string) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, errors.New("want a JSON object, as ZEGO sends it")
	}
	var out []byte
	last := int64(0)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("%v: %w", name, err)
		}
		text, ok := values[string(bytes.ToLower([]byte(name.(string))))]
		if !ok {
			continue
		}
		if value[0] == '"' {
			text = strconv.Quote(text)
		}
		out = append(append(out, object[last:d.InputOffset()-int64(len(value))]...), text...)
		last = d.InputOffset()
	}
	return append(out, object[last:]...), nil
}

// Bodies returns the JSON values of a file, one after the other.
func Bodies(file []byte) (bodies [][]byte, err error) {
	for d := json.NewDecoder(bytes.NewReader(file)); d.More(); {
		var body json.RawMessage
		if err := d.Decode(&body); err != nil {
			return nil, fmt.Errorf("callback %d: %w; want JSON objects, as ZEGO sends them", len(bodies)+1, err)
		}
		bodies = append(bodies, slices.Clone(body))
	}
	if len(bodies) == 0 {
		return nil, errors.New("found no callback in it, want JSON objects as ZEGO sends them")
	}
	return bodies, nil
}
