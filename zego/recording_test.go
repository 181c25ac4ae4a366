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

// uploaded is the body in ZEGO's documentation of the callback.
const uploaded = `{"app_id":1234567890,"detail":{"file_info":[{"begin_timestamp":1637753762084,"duration":170039,` +
	`"file_id":"YZ4joOE4IwmFAAAT_6677_800221_800221_VA_20211124113602084.mp4","file_size":25349026,"file_url":"file_url",` +
	`"media_track_type":3,"output_file_format":"mp4","resolution_height":720,"resolution_width":1280,"status":3,` +
	`"stream_id":"800221","user_id":"800221","user_name":"play_800221","video_id":""}],"upload_status":1},` +
	`"event_type":1,"message":"","nonce":"100480","room_id":"6677","sequence":1,"signature":"12345678987654321",` +
	`"task_id":"YZ4joOE4IwmFAAAT","timestamp":"1637753949"}`

// recordingBody returns a callback with an event_type and detail.
func recordingBody(eventType, detail string) string {
	return `{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":` + eventType + `,"message":"","nonce":"n","timestamp":"1","signature":"s","sequence":4,"detail":` + detail + `}`
}

func TestParseRecording(t *testing.T) {
	begin := time.Date(2021, 11, 24, 11, 36, 2, 84e6, time.UTC)
	documented := zego.RecordedFile{
		FileID: "YZ4joOE4IwmFAAAT_6677_800221_800221_VA_20211124113602084.mp4", URL: "file_url", Format: "mp4", Size: 25349026,
		Duration: 170039 * time.Millisecond, UserID: "800221", StreamID: "800221", Begin: begin, MediaTrackType: 3, Status: zego.FileUploaded,
	}
	of := func(event zego.RecordingEvent, files ...zego.RecordedFile) *zego.Recording {
		return &zego.Recording{TaskID: "YZ4joOE4IwmFAAAT", RoomID: "r", EventType: event, Sequence: 4, Files: files}
	}
	quit := of(zego.RecordingAborted)
	quit.QuitReason = 3
	bare := zego.RecordedFile{FileID: "YZ4joOE4IwmFAAAT_r_u_s_A_20211124113602084.aac", Begin: begin, Status: 9}
	unnamed := zego.RecordedFile{FileID: "chosen by hand.mp4", Status: zego.FileFailed}
	tests := []struct {
		name, body string
		want       *zego.Recording
	}{
		{"the documented one", uploaded, &zego.Recording{TaskID: "YZ4joOE4IwmFAAAT", RoomID: "6677", EventType: zego.RecordingUploaded, Sequence: 1, Files: []zego.RecordedFile{documented}}},
		{"no list", recordingBody("1", `{"upload_status":1}`), of(zego.RecordingUploaded)},
		{"a list that is null", recordingBody("1", `{"file_info":null}`), of(zego.RecordingUploaded)},
		{"a detail that is null", recordingBody("1", `null`), of(zego.RecordingUploaded)},
		{"a file without a status", recordingBody("1", `{"file_info":[{"file_id":"chosen by hand.mp4"}]}`), of(zego.RecordingUploaded, zego.RecordedFile{FileID: "chosen by hand.mp4"})},
		{"unreadable details of a file", recordingBody("1", `{"file_info":[{"file_id":"chosen by hand.mp4","status":5,"file_size":-1,"begin_timestamp":"x","user_id":"\ud800","file_url":"`+strings.Repeat("u", 8193)+`"}]}`), of(zego.RecordingUploaded, unnamed)},
		{"nobody published", recordingBody("1", `{"upload_status":1,"file_info":[]}`), of(zego.RecordingUploaded)},
		{"numbers as strings, an unknown status, the begin in the name",
			recordingBody(`"1"`, `{"file_info":[{"file_id":"YZ4joOE4IwmFAAAT_r_u_s_A_20211124113602084.aac","status":"9","file_size":"","begin_timestamp":0,"user_id":""}]}`), of(zego.RecordingUploaded, bare)},
		{"an unknown begin", recordingBody("1", `{"file_info":[{"file_id":"chosen by hand.mp4","status":5}]}`), of(zego.RecordingUploaded, unnamed)},
		{"idle", recordingBody("2", `{"quit_reason":3}`), quit},
		{"without a detail", recordingBody("2", `null`), of(zego.RecordingAborted)},
		{"no stream", recordingBody("4", `{}`), of(zego.RecordingNoStream)},
		{"a detail that is text", recordingBody("7", `""`), of(zego.RecordingUploading)},
		{"an event to come", recordingBody("4711", `[1]`), of(4711)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			event, err := zego.Parse("", []byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			got, ok := event.(*zego.Recording)
			if !ok || got.Event != zego.EventRecording || got.AppID == 0 || got.Timestamp == 0 || got.Nonce == "" || got.Fingerprint == [32]byte{} {
				t.Fatalf("got %+v", event)
			}
			survives(t, got)
			got.Common = zego.Common{}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// survives checks that a parsed event survives encoding and parsing.
func survives(t *testing.T, r *zego.Recording) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := zego.Parse("", b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	again.Head().Fingerprint = r.Fingerprint
	if !reflect.DeepEqual(again, r) {
		t.Fatalf("%s: got %+v\nwant %+v", b, again, r)
	}
}

func TestParseRecordingNamesTheFaultyField(t *testing.T) {
	const file = `{"file_id":"f","status":3}`
	tests := []struct{ name, body, field string }{
		{"room", strings.Replace(recordingBody("5", "{}"), "room_id", "room", 1), "room_id"},
		{"signature", strings.Replace(recordingBody("5", "{}"), "signature", "sig", 1), "signature"},
		{"app", strings.Replace(recordingBody("5", "{}"), `"app_id":1`, `"app_id":4294967296`, 1), "app_id"},
		{"task", strings.Replace(recordingBody("5", "{}"), "YZ4joOE4IwmFAAAT", "../../../../etc/", 1), "task_id"},
		{"a short task", strings.Replace(recordingBody("5", "{}"), "YZ4joOE4IwmFAAAT", "T", 1), "task_id"},
		{"a session, too", strings.Replace(recordingBody("5", "{}"), `{`, `{"room_session_id":7,"event":"room_close",`, 1), "room_close_time"},
		{"too many files", recordingBody("1", `{"file_info":[`+strings.Repeat(file+",", 4096)+file+`]}`), "detail.file_info"},
		{"a file's name that is not text", recordingBody("1", `{"file_info":[{"file_id":"\ud800"}]}`), "detail.file_info[0].file_id"},
		{"no object", recordingBody("1", `"x"`), "detail"},
		{"no array", recordingBody("1", `{"file_info":{}}`), "detail.file_info"},
		{"no file", recordingBody("1", `{"file_info":[`+file+`,7]}`), "detail.file_info[1]"},
		{"file without a name", recordingBody("1", `{"file_info":[`+file+`,{"status":3}]}`), "detail.file_info[1].file_id"},
		{"a file that leads to another folder", recordingBody("1", `{"file_info":[{"file_id":"../x","status":3}]}`), "detail.file_info[0].file_id"},
		{"a file that fails and leads elsewhere", recordingBody("1", `{"file_info":[`+file+`,{"file_id":"a/../../x","status":5}]}`), "detail.file_info[1].file_id"},
		{"twice", recordingBody("1", `{"file_info":[{"file_id":"f","file_id":"g","status":3}]}`), "detail.file_info[0].file_id"},
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
	// A URL may be longer than a name.
	long := recordingBody("1", `{"file_info":[{"file_id":"f","status":4,"file_url":"`+strings.Repeat("u", 8192)+`"}]}`)
	if _, err := zego.Parse("", []byte(long)); err != nil {
		t.Error(err)
	}
}

func TestParseFileName(t *testing.T) {
	begin := time.Date(2021, 11, 24, 11, 36, 2, 84e6, time.UTC)
	tests := []struct {
		name       string
		ok         bool
		middle     string
		track      string
		room, none string // a room that may own the file, and a room that can't
	}{
		{"YZ4joOE4IwmFAAAT_6677_800221_800221_VA_20211124113602084.mp4", true, "6677_800221_800221", "VA", "6677", "667"},
		{"YZ4joOE4IwmFAAAT_a_b_mix_A_20211124113602084.aac", true, "a_b_mix", "A", "a_b", "a_b_mix"},
		{"YZ4joOE4IwmFAAAT_a_b_mix_A_20211124113602084.aac", true, "a_b_mix", "A", "a", "b"},
		{"YZ_joO_4IwmFAA_T_Zimmer 7/é..%_u_s_V_20211124113602084", true, "Zimmer 7/é..%_u_s", "V", "Zimmer 7/é..%", "Zimmer 7"},
		{"YZ4joOE4IwmFAAAT_r_whiteboard_V_20211124113602084_3.ts", true, "r_whiteboard", "V", "r", "R"},
		{"YZ4joOE4IwmFAAAT_20200101000000000_V_20211124113602084.sw", true, "20200101000000000", "V", "", "2020"},
		{"YZ4joOE4IwmFAAAT_r_u_s_X_20211124113602084.mp4", false, "", "", "", ""},
		{"YZ4joOE4IwmFAAAT_r_u_s_V_20211324113602084.mp4", false, "", "", "", ""},
		{"YZ4joOE4IwmFAAAT_r_u_s_V_202111241136020841.mp4", false, "", "", "", ""},
		{"YZ4joOE4IwmFAAAT_V_20211124113602084.mp4", false, "", "", "", ""},
		{"short_r_u_s_V_20211124113602084.mp4", false, "", "", "", ""},
		{"a folder/of_some_r_u_s_V_20211124113602084.mp4", false, "", "", "", ""},
		{"YZ4joOE4IwmFAAAT_", false, "", "", "", ""}, {"YZ4joOE4IwmFAAAT", false, "", "", "", ""}, {"", false, "", "", "", ""},
	}
	for _, test := range tests {
		f, ok := zego.ParseFileName(test.name)
		if ok != test.ok {
			t.Errorf("%s: %v, want %v", test.name, ok, test.ok)
			continue
		}
		if !ok {
			continue
		}
		if f.TaskID != test.name[:16] || f.Middle != test.middle || f.Type != test.track || !f.Begin.Equal(begin) {
			t.Errorf("%s: %+v", test.name, f)
		}
		if test.room != "" && !f.OfRoom(test.room) || f.OfRoom(test.none) {
			t.Errorf("%s: of %q: %v; of %q: %v", test.name, test.room, f.OfRoom(test.room), test.none, f.OfRoom(test.none))
		}
	}
}

func FuzzRecording(f *testing.F) {
	f.Add([]byte(uploaded))
	f.Add([]byte(recordingBody("2", `{"quit_reason":3}`)))
	f.Add([]byte(recordingBody("1", `{"file_info":[{"file_id":"f","status":3},7]}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		event, err := zego.Parse("", body)
		if (event == nil) == (err == nil) {
			t.Fatalf("event %v with error %v", event, err)
		}
		if r, ok := event.(*zego.Recording); ok {
			survives(t, r)
		}
	})
}

func FuzzParseFileName(f *testing.F) {
	f.Add("YZ4joOE4IwmFAAAT_6677_800221_800221_VA_20211124113602084.mp4")
	f.Add("YZ4joOE4IwmFAAAT_a_b_mix_A_20211124113602084_1.ts")
	f.Fuzz(func(t *testing.T, name string) {
		got, ok := zego.ParseFileName(name)
		if ok && !strings.HasPrefix(name, got.TaskID+"_"+got.Middle+"_"+got.Type+"_"+got.Begin.Format("20060102150405")) {
			t.Fatalf("%q: %+v", name, got)
		}
	})
}

// A file's name may have slashes, because the room's ID in it may, but no part that leads
// into another folder.
func TestValidFileID(t *testing.T) {
	for name, want := range map[string]bool{
		"YZ4joOE4IwmFAAAT_r_u_s_A_20211124113602084.aac": true, "YZ4joOE4IwmFAAAT_a/b_u_s_A_20211124113602084.aac": true, `YZ4joOE4IwmFAAAT_a\b_u_s.aac`: true,
		"chosen by hand.mp4": true, "..mp4": true, "YZ4joOE4IwmFAAAT_.._u.mp4": true, strings.Repeat("f", 1024): true,
		"": false, ".": false, "..": false, "../x": false, "/x": false, "x/": false, "a//b": false, "a/./b": false, "a/../b": false, `..\x`: false, `a\..\b`: false, `a/..\b`: false, `\\host\x`: false,
		"a\x00b": false, "a\u0085b": false, strings.Repeat("f", 1025): false,
	} {
		if got := zego.ValidFileID(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
