package zego

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// Code is a number that ZEGO defines, such as a close_reason or a user_role, as it was
// received: decimal digits, or words if ZEGO sent words. It is empty if the callback has
// none. Values without a constant here are valid, because ZEGO may add values.
type Code string

// The values of close_reason that ZEGO documents.
const (
	// CloseNormal is the normal end of a room.
	CloseNormal Code = "0"
	// CloseHeartbeatTimeout means that the last user's heartbeat timed out.
	CloseHeartbeatTimeout Code = "1"
	// CloseOffline means that the last user went offline.
	CloseOffline Code = "2"
	// CloseKickedOut means that the last user was kicked out.
	CloseKickedOut Code = "3"
)

// RoleService is the user_role of users that record or moderate a room. They are not
// participants.
const RoleService Code = "4"

// CloseReasonText returns a close_reason in a few words.
func CloseReasonText(reason Code) string {
	switch reason {
	case "":
		return "unknown"
	case CloseNormal:
		return "normal"
	case CloseHeartbeatTimeout:
		return "last user's heartbeat timed out"
	case CloseOffline:
		return "last user went offline"
	case CloseKickedOut:
		return "last user was kicked out"
	}
	if _, ok := reason.Number(); ok {
		return "unknown reason " + string(reason)
	}
	return string(reason)
}

// Number returns the code as a number. ok is false for words and for an empty code.
func (c Code) Number() (n int64, ok bool) {
	n, err := strconv.ParseInt(string(c), 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == string(c)
}

// MarshalJSON implements [json.Marshaler]. It writes a number, a string for words, or null
// for an empty code.
func (c Code) MarshalJSON() ([]byte, error) {
	if _, ok := c.Number(); ok {
		return []byte(c), nil
	}
	if c == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(c))
}

// UnmarshalJSON implements [json.Unmarshaler]. It is the inverse of MarshalJSON.
func (c *Code) UnmarshalJSON(b []byte) error {
	var value any
	if err := json.Unmarshal(b, &value); err != nil {
		return err
	}
	switch value := value.(type) {
	case nil:
		*c = ""
	case string:
		*c = Code(value)
	case float64:
		*c = Code(b)
	default:
		return &json.UnmarshalTypeError{Value: kind(b), Type: reflect.TypeFor[Code]()}
	}
	return nil
}
