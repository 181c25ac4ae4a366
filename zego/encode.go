package zego

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// The MarshalJSON methods write a callback's body as ZEGO sends it, with the same mixture
// of numbers and strings. Use them to send test callbacks to your own handler. Set
// Signature with [Sign] first.

// members holds alternating names and values.
type members []any

// MarshalJSON implements [json.Marshaler].
func (r RoomClose) MarshalJSON() ([]byte, error) {
	return encode(r.members(EventRoomClose, "room_id", r.RoomID, "room_session_id", r.RoomSessionID,
		"close_reason", r.CloseReason, "room_close_time", unixMilli(r.RoomCloseTime)))
}

// MarshalJSON implements [json.Marshaler].
func (r RoomCreate) MarshalJSON() ([]byte, error) {
	return encode(r.members(EventRoomCreate, "room_id", r.RoomID, "room_session_id", r.RoomSessionID,
		"room_create_time", unixMilli(r.RoomCreateTime), "id_name", r.Creator))
}

// MarshalJSON implements [json.Marshaler].
func (r RoomLogin) MarshalJSON() ([]byte, error) {
	return encode(r.members(EventRoomLogin).strings())
}

// MarshalJSON implements [json.Marshaler].
func (r RoomLogout) MarshalJSON() ([]byte, error) {
	return encode(append(r.RoomLogin.members(EventRoomLogout),
		"logout_time", unixMilli(r.LogoutTime), "reason", r.Reason).strings())
}

// MarshalJSON implements [json.Marshaler].
func (s StreamCreate) MarshalJSON() ([]byte, error) {
	return encode(s.members(EventStreamCreate).strings())
}

// MarshalJSON implements [json.Marshaler].
func (s StreamClose) MarshalJSON() ([]byte, error) {
	return encode(append(s.StreamCreate.members(EventStreamClose),
		"destroy_timemillis", unixMilli(s.CloseTime), "type", s.Type).strings())
}

// MarshalJSON implements [json.Marshaler].
func (r Recording) MarshalJSON() ([]byte, error) {
	detail := members{}
	switch r.EventType {
	case RecordingUploaded:
		status, files := 1, []json.RawMessage{}
		for _, f := range r.Files {
			if f.Status != FileUploaded {
				status = 2
			}
			file := members{"file_id", f.FileID, "file_url", f.URL, "output_file_format", f.Format, "file_size", f.Size, "duration", f.Duration.Milliseconds(),
				"user_id", f.UserID, "stream_id", f.StreamID, "media_track_type", f.MediaTrackType, "status", f.Status}
			if !f.Begin.IsZero() {
				file = append(file, "begin_timestamp", f.Begin.UnixMilli())
			}
			b, err := encode(file)
			if err != nil {
				return nil, err
			}
			files = append(files, b)
		}
		detail = members{"upload_status", status, "file_info", files}
	case RecordingAborted:
		detail = members{"quit_reason", r.QuitReason}
	}
	b, err := encode(detail)
	if err != nil {
		return nil, err
	}
	return encode(members{"app_id", r.AppID, "task_id", r.TaskID, "room_id", r.RoomID, "event_type", r.EventType, "message", "", "nonce", r.Nonce,
		"timestamp", strconv.FormatInt(r.Timestamp, 10), "signature", r.Signature, "sequence", r.Sequence, "detail", json.RawMessage(b)})
}

func (c *Common) members(event string, more ...any) members {
	return append(members{"event", event, "appid", c.AppID, "timestamp", c.Timestamp, "nonce", c.Nonce, "signature", c.Signature}, more...)
}

func (r *RoomLogin) members(event string) members {
	m := r.Common.members(event, "room_id", r.RoomID, "room_seq", r.RoomSessionID, "user_account", r.UserAccount, "session_id", r.SessionID,
		"login_time", unixMilli(r.LoginTime), "user_role", r.UserRole)
	if r.Nickname != "" {
		m = append(m, "user_nickname", r.Nickname)
	}
	return m.sequence("user_update_seq", r.UserUpdateSeq)
}

// strings converts each value to a string, as in ZEGO's logins and logouts.
func (m members) strings() members {
	for i := 1; i < len(m); i += 2 {
		m[i] = fmt.Sprint(m[i])
	}
	return m
}

// encode writes the members as a JSON object.
func encode(m members) ([]byte, error) {
	b := []byte{'{'}
	for i, v := range m {
		value, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode callback: %w", err)
		}
		b = append(append(b, value...), ":,"[i%2])
	}
	if len(m) > 0 {
		b = b[:len(b)-1]
	}
	return append(b, '}'), nil
}

func unixMilli(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func (s *StreamCreate) members(event string) members {
	return s.Common.members(event, "room_id", s.RoomID, "room_session_id", s.RoomSessionID, "user_id", s.UserID, "user_name", s.UserName,
		"stream_sid", s.StreamSID, "stream_id", s.StreamID, "create_time_ms", unixMilli(s.CreateTime)).sequence("stream_seq", s.StreamSeq)
}

func (m members) sequence(name string, s Sequence) members {
	if s.Valid {
		m = append(m, name, s.Number)
	}
	return m
}
