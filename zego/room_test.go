package zego_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// Bodies with the fields of ZEGO's documentation.
const (
	roomCreate   = `{"event":"room_create","appid":1,"timestamp":1499676978,"nonce":"350176","signature":"signature","room_id":"rid_1242649","room_session_id":17858012925204410400,"room_create_time":"1499676978027","id_name":"id_1242649"}`
	roomLogin    = `{"event":"room_login","appid":"1","timestamp":"1499676989","nonce":"350176","signature":"signature","room_id":"rid_1242649","room_name":"rname","room_seq":"17858012925204410400","user_account":"888120154","user_nickname":"888120154","session_id":"17983648","login_time":"1499676989909","user_role":"1","auth_level":"1","relogin":"0","user_update_seq":"2","callback_data":"","term_type":"1"}`
	roomLogout   = `{"event":"room_logout","appid":"1","timestamp":"1499676999","nonce":"350176","signature":"signature","room_id":"rid_1242649","room_seq":"17858012925204410400","user_account":"888120154","user_nickname":"888120154","session_id":"17983648","login_time":"1499676989909","logout_time":"1499676999909","reason":"2","user_role":"4","user_update_seq":"3"}`
	streamCreate = `{"event":"stream_create","appid":"1","timestamp":"1499676989","nonce":"350176","signature":"signature","room_id":"rid_1242649","room_session_id":"17858012925204410400","user_id":"888120154","user_name":"Ada","stream_id":"s-1","stream_sid":"77","stream_seq":"0","create_time_ms":"1499676989909","recreate":"0","rtmp_url":["rtmp://x"]}`
	streamClose  = `{"event":"stream_close","appid":"1","timestamp":"1499676999","nonce":"350176","signature":"signature","room_id":"rid_1242649","room_session_id":"17858012925204410400","user_id":"888120154","user_name":"Ada","channel_id":"rid_1242649","stream_id":"s-1","stream_alias":"s-1","stream_sid":"77","stream_seq":"1","third_define_data":"","type":"4","create_time_ms":"1499676989909","destroy_timemillis":"1499676999909"}`
)

func TestParseRoomEvents(t *testing.T) {
	login := zego.RoomLogin{RoomID: "rid_1242649", RoomSessionID: 17858012925204410400, UserAccount: "888120154", SessionID: "17983648",
		LoginTime: time.UnixMilli(1499676989909).UTC(), UserRole: "1", Nickname: "888120154", UserUpdateSeq: zego.Sequence{Number: 2, Valid: true}}
	service := login
	service.UserUpdateSeq.Number = 3
	service.UserRole = zego.RoleService
	unknownLogin := service
	unknownLogin.LoginTime = time.Time{}
	stream := zego.StreamCreate{RoomID: "rid_1242649", RoomSessionID: 17858012925204410400, UserID: "888120154", UserName: "Ada", StreamSID: "77", StreamID: "s-1",
		StreamSeq: zego.Sequence{Valid: true}, CreateTime: time.UnixMilli(1499676989909).UTC()}
	closed := stream
	closed.StreamSeq.Number = 1
	withoutLogin := &zego.RoomLogout{RoomLogin: unknownLogin, LogoutTime: time.UnixMilli(1499676999909).UTC(), Reason: "2"}
	tests := []struct {
		name, body string
		want       zego.Event
	}{
		{"room_create", roomCreate, &zego.RoomCreate{RoomID: "rid_1242649", RoomSessionID: 17858012925204410400,
			RoomCreateTime: time.UnixMilli(1499676978027).UTC(), Creator: "id_1242649"}},
		{"room_login", roomLogin, &login},
		{"room_logout", roomLogout, &zego.RoomLogout{RoomLogin: service, LogoutTime: time.UnixMilli(1499676999909).UTC(), Reason: "2"}},
		{"room_logout without what a bill doesn't need",
			`{"event":"room_logout","appid":"1","timestamp":"1499676999","nonce":"350176","signature":"signature","room_id":"rid_1242649","room_seq":"17858012925204410400","user_account":"888120154","session_id":"17983648","login_time":"1499676989909","logout_time":"1499676999909","reason":"","user_role":null}`,
			&zego.RoomLogout{RoomLogin: func() zego.RoomLogin {
				l := login
				l.UserRole, l.Nickname, l.UserUpdateSeq = "", "", zego.Sequence{}
				return l
			}(), LogoutTime: time.UnixMilli(1499676999909).UTC()}},
		{"a role and a reason in words",
			strings.NewReplacer(`"user_role":"4"`, `"user_role":"host"`, `"reason":"2"`, `"reason":"kicked"`).Replace(roomLogout),
			&zego.RoomLogout{RoomLogin: func() zego.RoomLogin { l := service; l.UserRole = "host"; return l }(),
				LogoutTime: time.UnixMilli(1499676999909).UTC(), Reason: "kicked"}},
		{"a logout without its login time", strings.Replace(roomLogout, `"login_time":"1499676989909"`, `"login_time":"0"`, 1), withoutLogin},
		{"a logout with an empty login", strings.Replace(roomLogout, `"login_time":"1499676989909"`, `"login_time":""`, 1), withoutLogin},
		{"a logout whose login is null", strings.Replace(roomLogout, `"login_time":"1499676989909"`, `"login_time":null`, 1), withoutLogin},
		{"a logout without a login", strings.Replace(roomLogout, `"login_time":"1499676989909",`, ``, 1), withoutLogin},
		{"a room_create without a time", strings.Replace(roomCreate, `"room_create_time":"1499676978027"`, `"room_create_time":null`, 1),
			&zego.RoomCreate{RoomID: "rid_1242649", RoomSessionID: 17858012925204410400, Creator: "id_1242649"}},
		{"stream_create", streamCreate, &stream},
		{"stream_close", streamClose, &zego.StreamClose{StreamCreate: closed, CloseTime: time.UnixMilli(1499676999909).UTC(), Type: "4"}},
		{"a stream_close that knows no create_time", strings.Replace(streamClose, `"create_time_ms":"1499676989909",`, ``, 1),
			&zego.StreamClose{StreamCreate: func() zego.StreamCreate { s := closed; s.CreateTime = time.Time{}; return s }(), CloseTime: time.UnixMilli(1499676999909).UTC(), Type: "4"}},
		{"a stream without a number", strings.Replace(streamCreate, `"stream_seq":"0"`, `"stream_seq":"-1"`, 1),
			func() zego.Event { s := stream; s.StreamSeq = zego.Sequence{}; return &s }()},
		{"room_create of the in-app chat",
			`{"event":"room_create","appid":"1","timestamp":"1499676978","nonce":"350176","signature":"signature","room_id":"chat","operator_account":"op"}`,
			&zego.Other{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := zego.Parse("", []byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if head := got.Head(); head.AppID != 1 || head.Nonce != "350176" || head.Signature != "signature" {
				t.Errorf("common fields: %+v", head)
			}
			*got.Head() = zego.Common{}
			if o, other := got.(*zego.Other); other {
				if string(o.JSON) != test.body || o.Digest == [32]byte{} {
					t.Errorf("JSON %s, digest %x", o.JSON, o.Digest)
				}
				got = &zego.Other{}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestParseRoomEventsNamesTheFaultyField(t *testing.T) {
	tests := []struct{ name, body, field string }{
		{"a session", `{"event":"room_create","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_create_time":"1"}`, "room_session_id"},
		{"room_seq", `{"event":"room_login","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","user_account":"u","session_id":"1","login_time":"1"}`, "room_seq"},
		{"the user", `{"event":"room_login","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_seq":"1","session_id":"1","login_time":"1"}`, "user_account"},
		{"the end", `{"event":"room_logout","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_seq":"1","user_account":"u","session_id":"1","login_time":"1"}`, "logout_time"},
		{"session 0", `{"event":"room_login","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_seq":"0","user_account":"u","session_id":"1","login_time":"1"}`, "room_seq"},
		{"a user that is not text", `{"event":"room_login","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_seq":"1","user_account":"u\ud800","session_id":"1","login_time":"1"}`, "user_account"},
		{"a stay that is not text", "{\"event\":\"room_login\",\"appid\":1,\"timestamp\":1,\"nonce\":\"n\",\"signature\":\"s\",\"room_id\":\"r\",\"room_seq\":\"1\",\"user_account\":\"u\",\"session_id\":\"\xff\",\"login_time\":\"1\"}", "session_id"},
		{"the begin", `{"event":"room_login","appid":1,"timestamp":1,"nonce":"n","signature":"s","room_id":"r","room_seq":"1","user_account":"u","session_id":"1","login_time":"0"}`, "login_time"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := zego.Parse("", []byte(test.body))
			field := new(zego.FieldError)
			if !errors.As(err, &field) || field.Field != test.field {
				t.Errorf("got %v, want an error about %s", err, test.field)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	common := func(event string) zego.Common {
		return zego.Common{Event: event, AppID: 1, Timestamp: 1499676989, Nonce: "350176", Signature: "0a36e8e590a2298fb9d9b3ab0c94e82775b8cde2"}
	}
	at := time.UnixMilli(1499676989909).UTC()
	login := zego.RoomLogin{Common: common(zego.EventRoomLogin), RoomID: "r", RoomSessionID: 1<<64 - 1, UserAccount: "u", SessionID: "7", LoginTime: at, UserRole: zego.RoleService}
	logout := zego.RoomLogout{RoomLogin: login, LogoutTime: at.Add(time.Second), Reason: "3"}
	logout.Common = common(zego.EventRoomLogout)
	create := zego.RoomCreate{Common: common(zego.EventRoomCreate), RoomID: "r", RoomSessionID: 1<<64 - 1, RoomCreateTime: at, Creator: "u"}
	for _, want := range []zego.Event{&create, &login, &logout} {
		body, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := zego.Parse("application/json", body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		got.Head().Fingerprint = [32]byte{} // never sent
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s was read as %+v, want %+v", body, got, want)
		}
	}
}
