package zego_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/zego"
)

const form = "application/x-www-form-urlencoded"

// documented is the body in ZEGO's documentation of the callback, with a room_session_id
// that a float would round.
const documented = `{"event":"room_close","appid":1,"timestamp":1499676989,"nonce":"350176","signature":"signature",` +
	`"room_id":"rid_1242649","room_session_id":858012925204410417,"close_reason":1,"room_close_time":"1499676989909"}`

func body(changes ...any) string {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(documented), &m); err != nil {
		panic(err)
	}
	for i := 0; i < len(changes); i += 2 {
		if name := changes[i].(string); changes[i+1] == nil {
			delete(m, name)
		} else {
			m[name] = json.RawMessage(changes[i+1].(string))
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestParseRoomClose(t *testing.T) {
	type want struct {
		id      string
		session uint64
		reason  zego.Code
		millis  int64
	}
	std := want{"rid_1242649", 858012925204410417, zego.CloseHeartbeatTimeout, 1499676989909}
	asForm := url.Values{"event": {"room_close"}, "appid": {"1"}, "timestamp": {"1499676989"}, "nonce": {"350176"}, "signature": {"signature"},
		"room_id": {"a+b %&"}, "room_session_id": {"18446744073709551615"}, "close_reason": {"0"}, "room_close_time": {"1499676989909"}}.Encode()
	tests := []struct {
		name, contentType, body string
		want                    want
	}{
		{"documented", "application/json", documented, std},
		{"no content type", "", documented, std},
		{"JSON under a form's content type", form, documented, std},
		{"spaces around", "", "\r\n " + documented + "\n", std},
		{"numbers as strings", "", body("appid", `"1"`, "timestamp", `"1499676989"`, "room_session_id", `"858012925204410417"`, "close_reason", `"1"`), std},
		{"escapes", "", strings.NewReplacer(`"appid":1`, `"app\u0069d":"\u0031"`, `"rid_1242649"`, `"\u0061\/\"\ud83d\ude00"`).Replace(documented),
			want{`a/"😀`, std.session, std.reason, std.millis}},
		{"room_close_time as a number", "", body("room_close_time", `1499676989909`), std},
		{"largest session", "", body("room_session_id", `18446744073709551615`), want{std.id, math.MaxUint64, std.reason, std.millis}},
		{"largest session as a string", "", body("room_session_id", `"18446744073709551615"`), want{std.id, math.MaxUint64, std.reason, std.millis}},
		{"smallest session", "", body("room_session_id", `1`), want{std.id, 1, std.reason, std.millis}},
		{"beyond a float's integers", "", body("room_session_id", `9007199254740993`), want{std.id, 9007199254740993, std.reason, std.millis}},
		{"unknown reason", "", body("close_reason", `4294967295`), want{std.id, std.session, "4294967295", std.millis}},
		{"unknown fields", "", body("new", `{"a":[1,null]}`, "Room", `7`), std},
		{"an unknown field given twice", "", strings.Replace(documented, "{", `{"new":1,"new":2,`, 1), std},
		{"an unknown field that is not text", "", strings.Replace(documented, "{", "{\"new\":\"\xff\\ud800\",", 1), std},
		{"byte order mark", "", "\ufeff" + documented, std},
		{"percent-encoded byte order mark", "", url.PathEscape("\ufeff" + documented), std},
		{"spaces around percent-encoding", "", " \n" + url.PathEscape(documented) + "\n", std},
		{"no close_reason", "", body("close_reason", nil), want{std.id, std.session, "", std.millis}},
		{"close_reason null", "", body("close_reason", `null`), want{std.id, std.session, "", std.millis}},
		{"close_reason in words", "", body("close_reason", `"kicked"`), want{std.id, std.session, "kicked", std.millis}},
		{"negative close_reason", "", body("close_reason", `-1`), want{std.id, std.session, "-1", std.millis}},
		{"close_reason beyond 32 bits", "", body("close_reason", `4294967296`), want{std.id, std.session, "4294967296", std.millis}},
		{"close_reason an object", "", body("close_reason", `{}`), want{std.id, std.session, "{}", std.millis}},
		{"nested as deep as may be", "", body("new", strings.Repeat("[", 31)+strings.Repeat("]", 31)), std},
		{"JSON is not percent-decoded", "", body("room_id", `"50%25+a"`), want{"50%25+a", std.session, std.reason, std.millis}},
		{"form", form, asForm, want{"a+b %&", math.MaxUint64, zego.CloseNormal, std.millis}},
		{"form with a charset", form + "; charset=utf-8", asForm, want{"a+b %&", math.MaxUint64, zego.CloseNormal, std.millis}},
		{"percent-encoded", "", url.PathEscape(documented), std},
		{"percent-encoded in lower case", "text/plain", strings.ToLower(url.QueryEscape(documented)), std},
		{"percent-encoded under a form's content type", form, url.QueryEscape(documented), std},
		{"spaces as plus in percent-encoded JSON", "", url.QueryEscape(strings.ReplaceAll(documented, ",", ", ")), std},
		{"a plus in percent-encoded JSON", "", url.QueryEscape(body("room_id", `"a+b c"`)), want{"a+b c", std.session, std.reason, std.millis}},
		{"longest room_id", "", body("room_id", `"`+strings.Repeat("r", 1024)+`"`), want{strings.Repeat("r", 1024), std.session, std.reason, std.millis}},
		{"last millisecond of the year 9999", "", body("room_close_time", `"253402300799999"`), want{std.id, std.session, std.reason, 253402300799999}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event, err := zego.Parse(tt.contentType, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			got, ok := event.(*zego.RoomClose)
			if !ok {
				t.Fatalf("Parse gave a %T", event)
			}
			if got.Event != "room_close" || got.AppID != 1 || got.Timestamp != 1499676989 || got.Nonce != "350176" || got.Signature != "signature" {
				t.Errorf("common fields: %+v", got.Common)
			}
			if g := (want{got.RoomID, got.RoomSessionID, got.CloseReason, got.RoomCloseTime.UnixMilli()}); g != tt.want {
				t.Errorf("got %+v, want %+v", g, tt.want)
			}
			if got.RoomCloseTime.Location() != time.UTC {
				t.Errorf("room_close_time in %v", got.RoomCloseTime.Location())
			}
		})
	}
}

// Callbacks of ZEGO's other products, in their spellings of the common fields.
func TestParseOther(t *testing.T) {
	const rest = `,"RoomId":"r","Data":{"Text":"\ud800"}`
	sent := time.Unix(1499676989, 0)
	tests := []struct {
		name, body, event string
		sent              time.Time
	}{
		{"small", `{"event":"mix_stop","appid":"7","timestamp":"1499676989","nonce":"n","signature":"s","room_seq":"5"}`, "mix_stop", sent},
		{"AI agent", `{"Event":"AgentInstanceDeleted","AppId":7,"Timestamp":1499676989250,"Nonce":"n","Signature":"s"` + rest + `}`, "AgentInstanceDeleted", sent.Add(250 * time.Millisecond)},
		{"moderation", `{"Event":"censor_audio_v2_result","Appid":7,"Timestamp":1499676989,"Nonce":"n","Signature":"s"` + rest + `}`, "censor_audio_v2_result", sent},
		{"cloud player", `{"EventType":"player","AppID":7,"Timestamp":"1499676989","Nonce":"n","Signature":"s"` + rest + `}`, "player", sent},
		{"a numbered event", `{"EventType":12,"AppId":7,"Timestamp":1499676989,"Nonce":"n","Signature":"s"}`, "12", sent},
		{"in-app chat", `{"event":"user_action","appid":7,"timestamp":1499676989250,"nonce":"n","signature":"s"}`, "user_action", sent.Add(250 * time.Millisecond)},
		{"another product's room_close", `{"Event":"room_close","AppId":7,"Timestamp":1499676989,"Nonce":"n","Signature":"s"` + rest + `}`, "room_close", sent},
	}
	for _, tt := range tests {
		event, err := zego.Parse("", []byte(tt.body))
		other, ok := event.(*zego.Other)
		if err != nil || !ok || other.Event != tt.event || other.AppID != 7 || !other.SentAt().Equal(tt.sent) || other.Nonce != "n" || other.Signature != "s" || other.Fingerprint == [32]byte{} {
			t.Errorf("%s: Parse = %+v, %v", tt.name, event, err)
		}
	}
	for _, name := range []string{"EVENT", "eventType", "Appid ", "APPID", "appId", "TIMESTAMP", "NONCE", "signatureX"} {
		small := strings.ToLower(strings.TrimRight(name, " X"))
		if _, err := zego.Parse("", []byte(strings.Replace(tests[0].body, `"`+strings.TrimSuffix(small, "type")+`"`, `"`+name+`"`, 1))); err == nil {
			t.Errorf("%q was read as a field", name)
		}
	}
}

// A repeated callback has the same digest, even with another signature and another order of
// fields. The fingerprint covers the whole body.
func TestDigestIdentifiesTheContent(t *testing.T) {
	parse := func(contentType, body string) *zego.Other {
		t.Helper()
		event, err := zego.Parse(contentType, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return event.(*zego.Other)
	}
	const text = `{"Event":"AgentInstanceDeleted","AppId":7,"Timestamp":1745502313000,"Nonce":"n","Signature":"s","AgentInstanceId":"1912","Data":{"Code":0}}`
	first := parse("", text)
	if string(first.JSON) != text {
		t.Errorf("JSON %s", first.JSON)
	}
	for name, body := range map[string]string{
		"signed anew":     `{"Event":"AgentInstanceDeleted","AppId":7,"Timestamp":1745502315000,"Nonce":"m","Signature":"t","AgentInstanceId":"1912","Data":{"Code":0}}`,
		"another order":   `{ "Data" : {"Code": 0}, "AgentInstanceId":"1912","Event":"AgentInstanceDeleted","AppId":7,"Timestamp":1745502313000,"Nonce":"n","Signature":"s"}`,
		"percent-encoded": url.PathEscape(text),
	} {
		if got := parse("", body); got.Digest != first.Digest || (got.Fingerprint == first.Fingerprint) != (name != "signed anew") || !json.Valid(got.JSON) {
			t.Errorf("%s: digest %x, want %x; JSON %s", name, got.Digest, first.Digest, got.JSON)
		}
	}
	for name, change := range map[string][2]string{
		"another value":       {`"1912"`, `"1913"`},
		"another inner value": {`"Code":0`, `"Code":1`},
		"one more field":      {`"Data"`, `"Sequence":2,"Data"`},
		"another name":        {`"AgentInstanceId"`, `"AgentInstanceID"`},
	} {
		if got := parse("", strings.Replace(text, change[0], change[1], 1)); got.Digest == first.Digest || got.Fingerprint == first.Fingerprint {
			t.Errorf("%s: the same digest or fingerprint", name)
		}
	}
	if one, other := parse("", `{"event":"x","appid":7,"timestamp":1,"nonce":"n","signature":"s","a":"b","c":"d"}`), parse("", `{"event":"x","appid":7,"timestamp":1,"nonce":"n","signature":"s","a":"b\",\"c\":\"d"}`); one.Digest == other.Digest {
		t.Error("two bodies run together")
	}
	if form := parse(form, "event=mix_start&appid=7&timestamp=1&nonce=n&signature=s&channel_id=r"); string(form.JSON) != `{"event":"mix_start","appid":"7","timestamp":"1","nonce":"n","signature":"s","channel_id":"r"}` {
		t.Errorf("form: JSON %s", form.JSON)
	}
}

// Optional fields that can't be read are listed.
func TestUnknownFieldsAreNamed(t *testing.T) {
	tests := []struct {
		name, body string
		want       string
	}{
		{"nothing", documented, ""},
		{"missing", body("close_reason", nil), ""},
		{"in words", body("close_reason", `"kicked"`), `close_reason: found "kicked", want a decimal integer from 0 to 4294967295`},
		{"in a list", recordingBody("1", `{"file_info":[{"file_id":"f"},{"file_id":"g","status":"x","file_size":-1}]}`),
			`detail.file_info[1].file_size: found -1, want a decimal integer from 0 to 9223372036854775807; detail.file_info[1].status: found "x", want a decimal integer from 0 to 4294967295`},
	}
	for _, tt := range tests {
		c, err := zego.Scan("", []byte(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Parse(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range c.Unknown {
			got = append(got, f.Field+": "+f.Problem)
		}
		if g := strings.Join(got, "; "); g != tt.want {
			t.Errorf("%s: %s", tt.name, g)
		}
	}
}

// Each error names the field or is ErrMalformed.
func TestParseRefuses(t *testing.T) {
	const malformed = ""
	tests := []struct{ name, contentType, body, field string }{
		{"empty", "", "", malformed},
		{"empty form", form, "", "event"},
		{"array", "", "[" + documented + "]", malformed},
		{"null", "", "null", malformed},
		{"string", "", `"room_close"`, malformed},
		{"cut off", "", documented[:len(documented)-1], malformed},
		{"cut off in a value", "", documented[:60], malformed},
		{"cut off percent-encoding", "", url.PathEscape(documented)[:20] + "%", malformed},
		{"percent-encoded twice", "", url.PathEscape(url.PathEscape(documented)), malformed},
		{"two objects", "", documented + documented, malformed},
		{"rubbish behind", "", documented + "x", malformed},
		{"form without its content type", "", "event=room_close", malformed},
		{"not UTF-8", "", strings.Replace(documented, "rid_", "rid_\xff", 1), "room_id"},
		{"byte order mark twice", "", "\ufeff\ufeff" + documented, malformed},
		{"half of a surrogate pair", "", body("room_id", `"a\ud83d"`), "room_id"},
		{"halves in the wrong order", "", body("room_id", `"\ude00\ud83d"`), "room_id"},
		{"half of a pair ahead of another escape", "", body("room_id", `"\ud83d\u0041"`), "room_id"},
		{"a field in two cases", "", body("Room_ID", `"r"`), "room_id"},
		{"a common field in two cases", "", body("TIMESTAMP", `1499676989`), "timestamp"},
		{"a common field in two spellings", "", body("AppId", `1`), "appid"},
		{"an event in two spellings", "", body("EventType", `"room_close"`), "event"},
		{"session 0", "", body("room_session_id", `0`), "room_session_id"},
		{"session 0 as a string", "", body("room_session_id", `"0"`), "room_session_id"},
		{"more fields than may be", "", strings.Replace(documented, "{", "{"+strings.Repeat(`"x":0,`, 1000), 1), malformed},
		{"control character in a form", form, "event=a\x01", malformed},
		{"more form fields than may be", form, strings.Repeat("x&", 1001), malformed},
		{"nested too deep", "", body("new", strings.Repeat("[", 32)+strings.Repeat("]", 32)), malformed},
		{"field given twice", "", strings.Replace(documented, "{", `{"room_session_id":1,`, 1), "room_session_id"},
		{"form field given twice", form, "event=a&event=b", "event"},
		{"form not UTF-8", form, "event=%ff", "event"},
		{"form with an invalid escape", form, "event=%f", malformed},
		{"no event", "", body("event", nil), "event"},
		{"event not a string", "", body("event", `["room_close"]`), "event"},
		{"event a number", "", body("event", `5`), "event"},
		{"empty event", "", body("event", `""`), "event"},
		{"no appid", "", body("appid", nil), "appid"},
		{"appid beyond 32 bits", "", body("appid", `4294967296`), "appid"},
		{"negative appid", "", body("appid", `-1`), "appid"},
		{"appid an object", "", body("appid", `{}`), "appid"},
		{"no timestamp", "", body("timestamp", nil), "timestamp"},
		{"timestamp null", "", body("timestamp", `null`), "timestamp"},
		{"timestamp with an exponent", "", body("timestamp", `1.499676989e9`), "timestamp"},
		{"timestamp with leading zeros", "", body("timestamp", `"01499676989"`), "timestamp"},
		{"timestamp beyond the year 9999", "", body("timestamp", `253402300800000`), "timestamp"},
		{"no nonce", "", body("nonce", nil), "nonce"},
		{"nonce a number", "", body("nonce", `350176`), "nonce"},
		{"no signature", "", body("signature", nil), "signature"},
		{"signature true", "", body("signature", `true`), "signature"},
		{"no room_id", "", body("room_id", nil), "room_id"},
		{"field in other case", "", body("room_id", nil, "Room_id", `"r"`), "room_id"},
		{"room_id a number", "", body("room_id", `5`), "room_id"},
		{"room_id too long", "", body("room_id", `"`+strings.Repeat("r", 1025)+`"`), "room_id"},
		{"room_id with NUL", "", body("room_id", `"a\u0000b"`), "room_id"},
		{"no room_session_id", "", body("room_session_id", nil), "room_session_id"},
		{"session beyond 64 bits", "", body("room_session_id", `18446744073709551616`), "room_session_id"},
		{"negative session", "", body("room_session_id", `"-1"`), "room_session_id"},
		{"session with a fraction", "", body("room_session_id", `858012925204410417.0`), "room_session_id"},
		{"session through a float", "", body("room_session_id", `8.580129252044104e17`), "room_session_id"},
		{"session with a space", "", body("room_session_id", `" 1"`), "room_session_id"},
		{"empty session", "", body("room_session_id", `""`), "room_session_id"},
		{"huge number", "", body("room_session_id", strings.Repeat("9", 5000)), "room_session_id"},
		{"no room_close_time", "", body("room_close_time", nil), "room_close_time"},
		{"room_close_time not digits", "", body("room_close_time", `"2017-07-10"`), "room_close_time"},
		{"room_close_time zero", "", body("room_close_time", `"0"`), "room_close_time"},
		{"room_close_time after the year 9999", "", body("room_close_time", `"253402300800000"`), "room_close_time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event, err := zego.Parse(tt.contentType, []byte(tt.body))
			if event != nil {
				t.Errorf("Parse gave %+v", event)
			}
			var field *zego.FieldError
			switch {
			case tt.field == malformed:
				if !errors.Is(err, zego.ErrMalformed) {
					t.Errorf("error %v, want ErrMalformed", err)
				}
			case !errors.As(err, &field) || field.Field != tt.field:
				t.Errorf("error %v, want one about %s", err, tt.field)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("an error of %d characters", len(err.Error()))
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	print := func(body string) [32]byte {
		t.Helper()
		event, err := zego.Parse("", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return event.Head().Fingerprint
	}
	reordered := body() // json.Marshal sorts by name
	if reordered == documented || print(reordered) != print(documented) {
		t.Error("another order of the same fields has another fingerprint")
	}
	if print(strings.ReplaceAll(documented, ",", " ,\n")) != print(documented) {
		t.Error("spaces between fields change the fingerprint")
	}
	if print(body("unknown", "1", "room_session_id", `"858012925204410417"`)) != print(documented) {
		t.Error("a field that isn't read changes the fingerprint")
	}
	for _, change := range [][]any{{"room_session_id", "858012925204410418"}, {"room_id", `"r"`}, {"close_reason", "2"}, {"room_close_time", `"1499676989910"`},
		{"event", `"room_destroy"`}, {"appid", "2"}, {"timestamp", "1499676990"}, {"nonce", `"350177"`}} {
		if print(body(change...)) == print(documented) {
			t.Errorf("another %v has the same fingerprint", change[0])
		}
	}
}

func TestRoomCloseRoundTrip(t *testing.T) {
	want := zego.RoomClose{
		Common: zego.Common{Event: zego.EventRoomClose, AppID: math.MaxUint32, Timestamp: 1499676989, Nonce: "1", Signature: "s"},
		RoomID: "a b+%25é", RoomSessionID: math.MaxUint64, CloseReason: "9", RoomCloseTime: time.UnixMilli(1499676989909).UTC(),
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	event, err := zego.Parse("", b)
	if err != nil {
		t.Fatal(err)
	}
	got := *event.(*zego.RoomClose)
	got.Fingerprint = want.Fingerprint
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCloseReasonText(t *testing.T) {
	for reason, want := range map[zego.Code]string{"": "unknown", "0": "normal", "3": "last user was kicked out", "4": "unknown reason 4", "kicked": "kicked"} {
		if got := zego.CloseReasonText(reason); got != want {
			t.Errorf("reason %q: %q, want %q", reason, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range []string{documented, url.PathEscape(documented), body("room_session_id", `"1"`), "event=a&appid=1", "%7B", "{", `{"event":"\ud800"}`} {
		f.Add("", []byte(b))
		f.Add(form, []byte(b))
	}
	for _, b := range hostile(200) {
		f.Add("", []byte(b))
		f.Add(form, []byte(b))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		boundedAllocation(t, contentType, body)
		event, err := zego.Parse(contentType, body)
		if (event == nil) == (err == nil) {
			t.Fatalf("event %v with error %v", event, err)
		}
		closed, ok := event.(*zego.RoomClose)
		if !ok {
			return
		}
		// A parsed event must survive encoding and parsing.
		b, err := json.Marshal(closed)
		if err != nil {
			t.Fatal(err)
		}
		again, err := zego.Parse("", b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		got := *again.(*zego.RoomClose)
		got.Fingerprint = closed.Fingerprint
		if got != *closed {
			t.Fatalf("got %+v, want %+v", got, *closed)
		}
	})
}

// hostile returns bodies of a given size that would be expensive for a careless parser.
func hostile(size int) map[string]string {
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	recording := func(detail string) string { return recordingBody("1", detail) }
	list := func(element string) string { return recording(`{"file_info":[` + fill(element+",") + element + `]}`) }
	with := func(x string) string { return strings.Replace(documented, "{", `{"x":`+x+`,`, 1) }
	room := func(id string) string { return body("room_id", `"`+id+`"`) }
	return map[string]string{
		"empty files":             list(`{}`),
		"files of a name":         list(`{"file_id":"f"}`),
		"files that are null":     list(`null`),
		"files of nulls":          list(`{"file_id":"f","status":null,"file_size":null}`),
		"files of many fields":    recording(`{"file_info":[{` + fill(`"":0,`) + `"file_id":"f"}]}`),
		"unreadable files":        list(`{"file_id":"f","status":"x"}`),
		"lists of lists":          list(strings.Repeat("[", 20) + strings.Repeat("]", 20)),
		"nesting":                 with(fill("[")),
		"nested objects":          with(fill(`{"a":`)),
		"members":                 with(`{` + fill(`"":0,`) + `"":0}`),
		"outermost members":       `{` + fill(`"":0,`) + documented[1:],
		"a field again and again": `{` + fill(`"event":0,`) + documented[1:],
		"a field in other cases":  `{` + fill(`"EVENT":0,`) + documented[1:],
		"escaped names":           `{` + fill(`"\u0065":0,`) + documented[1:],
		"a long name":             `{"` + fill("n") + `":0,` + documented[1:],
		"a long escaped name":     `{"` + fill(`\u0065`) + `":0,` + documented[1:],
		"a long string":           room(fill("r")),
		"escapes":                 room(fill(`\u0061`)),
		"surrogates":              room(fill(`\ud83d\ude00`)),
		"an unread string":        with(`"` + fill(`\n`) + `"`),
		"a long number":           body("room_session_id", fill("9")),
		"a long timestamp":        body("timestamp", `"`+fill("9")+`"`),
		"a long nonce":            body("nonce", `"`+fill("9")+`"`),
		"a long signature":        body("signature", `"`+fill("a")+`"`),
		"a long event":            body("event", `"`+fill("e")+`"`),
		"spaces":                  documented + fill(" "),
		"not closed":              `{"a":"` + fill("a"),
		"percent-encoded":         url.QueryEscape(list(`{}`)),
		"all percent-encoded":     "%7B" + fill("%22"),
		"percent signs":           "%7B" + fill("%"),
		"plus signs":              "%7B" + fill("+"),
		"form fields":             fill("a&"),
		"empty form fields":       "event=" + fill("&"),
		"form quotes":             "event=" + fill(`"`),
		"form control characters": "event=" + fill("%01"),
		"a form in percent":       fill("%61"),
	}
}

// boundedAllocation checks that scanning and parsing a body allocate at most a small
// multiple of its length plus a fixed amount.
func boundedAllocation(t *testing.T, contentType string, body []byte) {
	t.Helper()
	if got, most := allocated(func() { _, _ = zego.Scan(contentType, body) }), 4*len(body)+8<<10; got > most {
		t.Errorf("a body of %d bytes: scanning allocated %d bytes, want at most %d", len(body), got, most)
	}
	if got, most := allocated(func() { _, _ = zego.Parse(contentType, body) }), 20*len(body)+16<<10; got > most {
		t.Errorf("a body of %d bytes: parsing allocated %d bytes, want at most %d", len(body), got, most)
	}
}

// allocated returns how many bytes f allocates. It takes the minimum of a few rounds,
// because other goroutines allocate too.
func allocated(f func()) int {
	least := math.MaxInt
	var before, after runtime.MemStats
	for range 3 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, int(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}

func TestParseAllocatesASmallMultipleOfTheBody(t *testing.T) {
	for _, size := range []int{100, 8 << 10, 1 << 20} {
		for name, body := range hostile(size) {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				boundedAllocation(t, "", []byte(body))
				boundedAllocation(t, form, []byte(body))
			})
		}
	}
}

func BenchmarkParseAndVerify(b *testing.B) {
	now := func() time.Time { return time.Unix(1499676989, 0) }
	ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, time.Minute, now)
	if err != nil {
		b.Fatal(err)
	}
	signed := []byte(strings.Replace(documented, `"signature":"signature"`, `"signature":"`+zego.Sign("secret", 1499676989, "350176")+`"`, 1))
	b.ReportAllocs()
	for b.Loop() {
		c, err := zego.Scan("application/json", signed)
		if err != nil {
			b.Fatal(err)
		}
		if err := ring.Verify(&c.Common); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Parse(); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	// Make and sign a callback, as in a test of your own handler.
	sent := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	received, _ := json.Marshal(zego.RoomClose{
		Common: zego.Common{
			AppID: 1, Timestamp: sent.Unix(), Nonce: "7266888922840654370",
			Signature: zego.Sign("secret", sent.Unix(), "7266888922840654370"),
		},
		RoomID: "lobby", RoomSessionID: 858012925204410417, CloseReason: zego.CloseOffline, RoomCloseTime: sent,
	})

	keyring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 10*time.Minute, func() time.Time { return sent })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	callback, err := zego.Scan("application/json", received)
	if err != nil {
		fmt.Println("answer 400:", err)
		return
	}
	if err := keyring.Verify(&callback.Common); err != nil {
		fmt.Println("answer 401:", err)
		return
	}
	event, err := callback.Parse()
	if err != nil {
		fmt.Println("answer 400:", err)
		return
	}
	if closed, ok := event.(*zego.RoomClose); ok {
		fmt.Println(closed.RoomID, closed.RoomSessionID, zego.CloseReasonText(closed.CloseReason))
	}
	// Output: lobby 858012925204410417 last user went offline
}
