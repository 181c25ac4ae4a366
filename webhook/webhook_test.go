package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

var now = time.Unix(1499676989, 0)

// receiver is a function as a webhook.Receiver.
type receiver func(context.Context, zego.Event) (webhook.Receipt, error)

func (f receiver) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	return f(ctx, event)
}

// intake is a webhook.Receiver that calls a function for each room_close and ignores all
// other events.
type intake func(context.Context, *zego.RoomClose) (webhook.Receipt, error)

func (f intake) Receive(ctx context.Context, event zego.Event) (webhook.Receipt, error) {
	if closed, ok := event.(*zego.RoomClose); ok {
		return f(ctx, closed)
	}
	return webhook.Receipt{Status: webhook.Ignored}, nil
}

// bundle is a router with its outcomes and its log.
type bundle struct {
	http.Handler
	taken    atomic.Int64
	outcomes []string
	log      bytes.Buffer
}

func newBundle(t *testing.T, take intake, change ...func(*webhook.Options)) *bundle {
	t.Helper()
	b := &bundle{}
	ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret", "older"}}, 10*time.Minute, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	o := webhook.Options{
		Keyring: ring,
		Receiver: intake(func(ctx context.Context, c *zego.RoomClose) (webhook.Receipt, error) {
			b.taken.Add(1)
			return take(ctx, c)
		}),
		Log: slog.New(slog.NewJSONHandler(&b.log, nil)),
		Observe: func(event string, o webhook.Outcome, _ time.Duration) {
			b.outcomes = append(b.outcomes, event+":"+string(o))
		},
	}
	for _, f := range change {
		f(&o)
	}
	b.Handler = webhook.Router(o)
	return b
}

func started(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
	return webhook.Receipt{Status: webhook.Started, WorkflowID: "room-close-1-858012925204410417"}, nil
}

func (b *bundle) do(method, path, contentType, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

func (b *bundle) post(body string) *httptest.ResponseRecorder {
	return b.do(http.MethodPost, webhook.Path, "application/json", body)
}

// signed returns a room_close signed with the secret, changed by f before it is encoded.
func signed(secret string, f ...func(*zego.RoomClose)) string {
	c := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: now.Unix(), Nonce: "350176"},
		RoomID: "rid_1242649", RoomSessionID: 858012925204410417, CloseReason: "1", RoomCloseTime: time.UnixMilli(1499676989909),
	}
	c.Signature = zego.Sign(secret, c.Timestamp, c.Nonce)
	for _, f := range f {
		f(&c)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// signedOther returns a genuine callback of another event.
func signedOther(event string) string {
	return `{"event":"` + event + `","appid":"1","timestamp":"1499676989","nonce":"1","signature":"` + zego.Sign("secret", now.Unix(), "1") + `"}`
}

// signedCapitalized returns a callback of one of ZEGO's newer products, whose fields are
// capitalized.
func signedCapitalized(event, app string, timestamp int64, secret string) string {
	return fmt.Sprintf(`{%q:"AgentInstanceDeleted",%q:1,"Timestamp":%d,"Nonce":"7266888922840654370","Signature":%q,"RoomId":"r","Data":{"AgentUserId":"a"}}`,
		event, app, timestamp, zego.Sign(secret, timestamp, "7266888922840654370"))
}

func TestAnswers(t *testing.T) {
	genuine := signed("secret")
	at := func(seconds int64) string {
		return signed("secret", func(c *zego.RoomClose) {
			c.Timestamp = seconds
			c.Signature = zego.Sign("secret", seconds, c.Nonce)
		})
	}
	tests := []struct {
		name, method, path, contentType, body string
		status                                int
		contains                              string
		outcome                               string
	}{
		{"genuine", "POST", webhook.Path, "application/json", genuine, 200, `"status":"started","workflow_id":"room-close-1-858012925204410417"`, "room_close:started"},
		{"no content type", "POST", webhook.Path, "", genuine, 200, `"started"`, "room_close:started"},
		{"older secret", "POST", webhook.Path, "", signed("older"), 200, `"started"`, "room_close:started"},
		{"percent-encoded", "POST", webhook.Path, "", url.PathEscape(genuine), 200, `"started"`, "room_close:started"},
		{"query is nothing to us", "POST", webhook.Path + "?a=b", "", genuine, 200, `"started"`, "room_close:started"},
		{"other event", "POST", webhook.Path, "", signedOther("mix_start"), 200, `{"status":"ignored"}`, "other:ignored"},
		{"another product's", "POST", webhook.Path, "", signedCapitalized("Event", "AppId", now.UnixMilli(), "secret"), 200, `{"status":"ignored"}`, "other:ignored"},
		{"one of a third spelling", "POST", webhook.Path, "", signedCapitalized("EventType", "AppID", now.Unix(), "secret"), 200, `{"status":"ignored"}`, "other:ignored"},
		{"another product's, forged", "POST", webhook.Path, "", signedCapitalized("Event", "Appid", now.UnixMilli(), "guess"), 401, "could not be verified", ":bad_signature"},
		{"another product's, stale", "POST", webhook.Path, "", signedCapitalized("Event", "AppId", now.UnixMilli()-601_000, "secret"), 401, "could not be verified", ":too_old"},
		{"a field in two spellings", "POST", webhook.Path, "", strings.Replace(genuine, "{", `{"AppId":1,`, 1), 400, `"field":"appid"`, ":malformed"},

		{"empty", "POST", webhook.Path, "", "", 400, "neither a JSON object", ":malformed"},
		{"not JSON", "POST", webhook.Path, "", "hello", 400, "neither a JSON object", ":malformed"},
		{"field missing", "POST", webhook.Path, "", strings.Replace(genuine, "room_id", "room_ID", 1), 400, `"field":"room_id"`, "room_close:unreadable"},
		{"field out of range", "POST", webhook.Path, "", strings.Replace(genuine, "858012925204410417", "18446744073709551616", 1), 400, `"field":"room_session_id"`, "room_close:unreadable"},
		{"session 0", "POST", webhook.Path, "", strings.Replace(genuine, "858012925204410417", "0", 1), 400, `"field":"room_session_id"`, "room_close:unreadable"},
		{"field missing of a forged one", "POST", webhook.Path, "", strings.Replace(signed("guess"), "room_id", "room_ID", 1), 401, "could not be verified", ":bad_signature"},
		{"no appid", "POST", webhook.Path, "", strings.Replace(genuine, "appid", "app", 1), 400, `"field":"appid"`, ":malformed"},

		{"unknown app", "POST", webhook.Path, "", strings.Replace(genuine, `"appid":1`, `"appid":2`, 1), 401, "could not be verified", ":unknown_app"},
		{"forged", "POST", webhook.Path, "", signed("guess"), 401, "could not be verified", ":bad_signature"},
		{"forged other event", "POST", webhook.Path, "", strings.Replace(signedOther("x"), `"1"`, `"2"`, 1), 401, "could not be verified", ":unknown_app"},
		{"stale", "POST", webhook.Path, "", at(now.Unix() - 601), 401, "could not be verified", ":too_old"},
		{"from the future", "POST", webhook.Path, "", at(now.Unix() + 601), 401, "could not be verified", ":too_new"},

		{"other path", "POST", "/hello", "", genuine, 404, "Not Found", ":not_found"},
		{"half the path", "POST", "/zego", "", genuine, 404, "Not Found", ":wrong_path"},
		{"upper case", "POST", "/ZEGO/Callbacks", "", genuine, 404, "Not Found", ":wrong_path"},
		{"a missing letter", "POST", "/zego/callback", "", genuine, 404, "Not Found", ":wrong_path"},
		{"a gateway's prefix", "POST", "/prod" + webhook.Path, "", genuine, 404, "Not Found", ":wrong_path"},
		{"slash behind", "POST", webhook.Path + "/", "", genuine, 200, "started", "room_close:started"},
		{"slashes", "POST", "//zego///callbacks//", "", genuine, 200, "started", "room_close:started"},
		{"a token where there is none", "POST", webhook.Path + "/t0ken-t0ken", "", genuine, 404, "Not Found", ":wrong_path"},
		{"another way", "POST", "/hello/.." + webhook.Path, "", genuine, 404, "Not Found", ":wrong_path"},
		{"admin's path", "GET", "/metrics", "", "", 404, "Not Found", ":not_found"},
		{"GET", "GET", webhook.Path, "", "", 405, "Method Not Allowed", ":wrong_method"},
		{"PUT", "PUT", webhook.Path, "", genuine, 405, "Method Not Allowed", ":wrong_method"},
		{"OPTIONS", "OPTIONS", webhook.Path, "", "", 405, "Method Not Allowed", ":wrong_method"},

		{"as large as may be", "POST", webhook.Path, "", genuine + strings.Repeat(" ", webhook.MaxBody-len(genuine)), 200, `"started"`, "room_close:started"},
		{"too large", "POST", webhook.Path, "", genuine + strings.Repeat(" ", webhook.MaxBody-len(genuine)+1), 413, "1 MiB", ":too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBundle(t, started)
			w := b.do(tt.method, tt.path, tt.contentType, tt.body)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.contains) {
				t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, tt.status, tt.contains)
			}
			if want := strings.Contains(tt.outcome, "started"); (b.taken.Load() == 1) != want {
				t.Errorf("handed to the intake %d times", b.taken.Load())
			}
			if got := strings.Join(b.outcomes, ","); got != tt.outcome {
				t.Errorf("observed %q, want %q", got, tt.outcome)
			}
			if event, outcome, found := strings.Cut(tt.outcome, ":"); found && !slices.Contains(webhook.Outcomes()[event], webhook.Outcome(outcome)) {
				t.Errorf("%q is not among the outcomes", tt.outcome)
			}
			if tt.status == 405 && w.Header().Get("Allow") != "POST" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
			if tt.status == 200 {
				return
			}
			var problem struct {
				Type, Title, Detail string
				Status              int
			}
			if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("no problem document: %s %v", w.Header().Get("Content-Type"), err)
			}
			if problem.Status != tt.status || problem.Type != "about:blank" || problem.Title != http.StatusText(tt.status) || problem.Detail == "" {
				t.Errorf("problem %+v", problem)
			}
		})
	}
}

// The common fields of ZEGO's products as each page documents them: %[1]d is the app, %[2]d the
// time, %[3]s the signature.
func TestEveryDocumentedEncodingIsAccepted(t *testing.T) {
	const seconds, milliseconds = 1, 1000
	for _, form := range []struct {
		product string
		unit    int64
		body    string
	}{
		{"room's begin", seconds, `{"event":"room_create","appid":%[1]d,"timestamp":%[2]d,"nonce":"123412","signature":"%[3]s","room_id":"r","room_session_id":5,"room_create_time":"1499676980000","id_name":"u"}`},
		{"room's end", seconds, `{"event":"room_close","appid":%[1]d,"timestamp":%[2]d,"nonce":"123412","signature":"%[3]s","room_id":"r","room_session_id":858012925204410400,"close_reason":1,"room_close_time":"1499676980000"}`},
		{"login", seconds, `{"event":"room_login","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","room_id":"r","room_name":"","room_seq":"5","user_account":"u","user_nickname":"n","session_id":"1","login_time":"1499676980000","user_role":"1","relogin":"0"}`},
		{"room", seconds, `{"event":"room_logout","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","room_id":"r","room_seq":"5","user_account":"u","session_id":"1","login_time":"1499676980000","logout_time":"1499676989000"}`},
		{"stream", seconds, `{"event":"stream_create","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","room_id":"r","room_session_id":"5","user_id":"u","stream_id":"s","stream_sid":"2","create_time_ms":"1499676980000"}`},
		{"stream's end", seconds, `{"event":"stream_close","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","room_id":"r","room_session_id":"5","user_id":"u","channel_id":"r","stream_id":"s","stream_sid":"2","type":"0","create_time_ms":"1499676970000","destroy_timemillis":"1499676980000"}`},
		{"snapshots", seconds, `{"event":"snapshot","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","stream_id":"s"}`},
		{"cloud recording", seconds, `{"app_id":%[1]d,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":1,"message":"","nonce":"123412","timestamp":"%[2]d","signature":"%[3]s","sequence":0,"detail":{"upload_status":1,"file_info":[]}}`},
		{"CDN recording", seconds, `{"event":"record","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","stream_alias":"s","begin_time":"1"}`},
		{"composition", seconds, `{"event":"compose","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","task_id":"t"}`},
		{"stream mixing", seconds, `{"event":"mix_start","appid":"%[1]d","timestamp":"%[2]d","nonce":"123412","signature":"%[3]s","task_id":"t","channel_id":"r"}`},
		{"file conversion", seconds, `{"event":"cvt_finish","appid":%[1]d,"timestamp":%[2]d,"nonce":"123412","signature":"%[3]s"}`},
		{"in-app chat", seconds, `{"appid":"%[1]d","event":"call_create","nonce":"123412","signature":"%[3]s","timestamp":%[2]d,"payload":""}`},
		{"in-app chat's messages", milliseconds, `{"appid":"%[1]d","event":"send_msg","nonce":"123412","signature":"%[3]s","timestamp":%[2]d,"msg_body":"{}"}`},
		{"in-app chat's rooms", seconds, `{"appid":"%[1]d","event":"room_create","room_id":"1","nonce":"123412","signature":"%[3]s","timestamp":%[2]d,"operator_account":"o"}`},
		{"in-app chat's rooms that nobody made", milliseconds, `{"appid":"%[1]d","event":"room_create","room_id":"1","nonce":"123412","signature":"%[3]s","timestamp":%[2]d,"operator_account":""}`},
		{"in-app chat's rooms, null", seconds, `{"appid":"%[1]d","event":"room_create","room_id":"1","nonce":"123412","signature":"%[3]s","timestamp":%[2]d,"operator_account":null}`},
		{"AI agent", milliseconds, `{"AppId":%[1]d,"AgentInstanceId":"1912124734317838336","Data":{"Code":0},"Event":"AgentInstanceDeleted","Nonce":"123412","Signature":"%[3]s","Timestamp":%[2]d}`},
		{"speech recognition", milliseconds, `{"AppId":%[1]d,"Event":"TranslationResult","Nonce":"123412","Signature":"%[3]s","TaskId":"t","Timestamp":%[2]d}`},
		{"moderation", seconds, `{"AppId":%[1]d,"Event":"censor_audio_v2_result","Nonce":"123412","Signature":"%[3]s","TaskId":"t","Timestamp":%[2]d}`},
		{"transcoding", seconds, `{"Appid":"%[1]d","Event":"transcode_start","Nonce":"123412","Signature":"%[3]s","TaskId":"t","Timestamp":"%[2]d"}`},
		{"digital human", seconds, `{"AppId":%[1]d,"EventType":3,"Nonce":"123412","Signature":"%[3]s","TaskId":"t","Timestamp":"%[2]d"}`},
		{"cloud player", seconds, `{"AppID":%[1]d,"EventType":1,"Nonce":"123412","Signature":"%[3]s","Timestamp":"%[2]d"}`},
		{"cloud player's errors", seconds, `{"AppID":"%[1]d","EventType":10001,"Nonce":"123412","Signature":"%[3]s","Timestamp":"%[2]d"}`},
	} {
		// As JSON, percent-encoded, and as a form, unless that can't hold it.
		encodings := map[string]func(body string) (contentType, encoded string){
			"JSON":            func(body string) (string, string) { return "application/json", body },
			"percent-encoded": func(body string) (string, string) { return "", url.QueryEscape(body) },
			"a form": func(body string) (string, string) {
				values, decoder := url.Values{}, json.NewDecoder(strings.NewReader(body))
				decoder.UseNumber()
				fields := map[string]any{}
				if err := decoder.Decode(&fields); err != nil {
					t.Fatal(err)
				}
				for name, v := range fields {
					switch v.(type) {
					case map[string]any, []any:
						return "application/json", body
					}
					values.Set(name, fmt.Sprint(v))
				}
				return "application/x-www-form-urlencoded", values.Encode()
			},
		}
		for encoding, encode := range encodings {
			post := func(secret string, sent time.Time, app int, change func(string) string) int {
				b := newBundle(t, started)
				timestamp := sent.UnixMilli() / (milliseconds / form.unit)
				contentType, encoded := encode(fmt.Sprintf(form.body, app, timestamp, zego.Sign(secret, timestamp, "123412")))
				if change != nil {
					encoded = change(encoded)
				}
				return b.do(http.MethodPost, webhook.Path, contentType, encoded).Code
			}
			for _, try := range []struct {
				name, secret string
				sent         time.Time
				app, want    int
			}{
				{"genuine", "secret", now, 1, 200},
				{"as old as may be", "secret", now.Add(-10 * time.Minute), 1, 200},
				{"forged", "guess", now, 1, 401},
				{"too old", "secret", now.Add(-10*time.Minute - time.Second), 1, 401},
				{"too new", "secret", now.Add(10*time.Minute + time.Second), 1, 401},
				{"of an unknown app", "secret", now, 2, 401},
			} {
				if got := post(try.secret, try.sent, try.app, nil); got != try.want {
					t.Errorf("%s as %s, %s: %d, want %d", form.product, encoding, try.name, got, try.want)
				}
			}
			for _, name := range []string{"event", "Event", "app_id", "appid", "Appid", "AppId", "timestamp", "Timestamp", "nonce", "Nonce", "signature", "Signature"} {
				if strings.Contains(form.body, `"`+name+`"`) || strings.EqualFold(name, "event") && strings.Contains(form.body, `"event_type"`) {
					continue // its own spelling, or a recording's, which has no event
				}
				got := post("secret", now, 1, func(encoded string) string {
					switch {
					case strings.HasPrefix(encoded, "{"):
						return `{"` + name + `":"1",` + encoded[1:]
					case strings.HasPrefix(encoded, "%7B"):
						return url.QueryEscape(`{"`+name+`":"1",`) + encoded[3:]
					}
					return encoded + "&" + name + "=1"
				})
				if got != 400 {
					t.Errorf("%s as %s, with %s too: %d, want 400", form.product, encoding, name, got)
				}
			}
		}
	}
}

// The answer doesn't show why a callback could not be verified.
func TestRefusalsLookAlike(t *testing.T) {
	b := newBundle(t, started)
	var answers []string
	for _, body := range []string{
		signed("guess"),
		strings.Replace(signed("secret"), `"appid":1`, `"appid":2`, 1),
		signed("secret", func(c *zego.RoomClose) { c.Timestamp = 5; c.Signature = zego.Sign("secret", 5, c.Nonce) }),
	} {
		answers = append(answers, b.post(body).Body.String())
	}
	for _, a := range answers[1:] {
		if a != answers[0] {
			t.Errorf("%s differs from %s", a, answers[0])
		}
	}
}

func TestSignatureIsGoodForOneBody(t *testing.T) {
	b := newBundle(t, started)
	first := signed("secret")
	steps := []struct {
		name, body string
		status     int
	}{
		{"first", first, 200},
		{"retry", first, 200},
		{"retry, encoded another way", url.PathEscape(first), 200},
		{"another session under the same signature", strings.Replace(first, "858012925204410417", "858012925204410418", 1), 401},
		{"retry, with an unknown field", strings.Replace(first, "{", `{"new":1,`, 1), 200},
		{"retry, with another reason", strings.Replace(first, `"close_reason":1`, `"close_reason":2`, 1), 401},
		{"another event", strings.Replace(first, "room_close", "room_kill", 1), 401},
		{"still good for the first", first, 200},
	}
	for _, s := range steps {
		if w := b.post(s.body); w.Code != s.status {
			t.Errorf("%s: got %d %s, want %d", s.name, w.Code, w.Body, s.status)
		}
	}
	if n := b.taken.Load(); n != 5 {
		t.Errorf("handed to the intake %d times, want 5", n)
	}
}

// A forged callback must not use up a signature.
func TestForgeryDoesNotPoisonSignature(t *testing.T) {
	b := newBundle(t, started)
	genuine := signed("secret")
	forged := strings.Replace(genuine, `"nonce":"350176"`, `"nonce":"350177"`, 1) // the same signature
	if w := b.post(forged); w.Code != 401 {
		t.Fatalf("forged: %d", w.Code)
	}
	if w := b.post(genuine); w.Code != 200 {
		t.Errorf("genuine: %d %s", w.Code, w.Body)
	}
}

func TestToken(t *testing.T) {
	b := newBundle(t, started, func(o *webhook.Options) { o.Token = "s3cret-path" })
	for path, want := range map[string]int{
		webhook.Path + "/s3cret-path":        200,
		webhook.Path + "/s3cret-pat":         404,
		webhook.Path + "/s3cret-path2":       404,
		webhook.Path + "/s3cret-path/":       200,
		"/" + webhook.Path + "//s3cret-path": 200,
		"/x" + webhook.Path + "/s3cret-path": 404,
		"/s3cret-path":                       404,
		webhook.Path + "/":                   404,
		webhook.Path:                         404,
	} {
		if w := b.do("POST", path, "", signed("secret")); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := b.do("GET", webhook.Path+"/wrong-token", "", ""); w.Code != 404 {
		t.Errorf("GET with a wrong token: %d, want 404", w.Code)
	}
	if w := b.do("GET", webhook.Path+"/s3cret-path", "", ""); w.Code != 405 {
		t.Errorf("GET with the token: %d, want 405", w.Code)
	}
	if log := b.log.String(); !strings.Contains(log, `"path":"/*/zego/callbacks/*"`) {
		t.Errorf("the log doesn't have the path: %s", log)
	}
	if strings.Contains(b.log.String(), "s3cret") {
		t.Error("the token is in the log")
	}
}

func TestUnavailable(t *testing.T) {
	b := newBundle(t, func(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
		return webhook.Receipt{}, errors.New("dial tcp 10.1.2.3:7233: internal detail")
	})
	w := b.post(signed("secret"))
	if w.Code != 503 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	if strings.Contains(w.Body.String(), "internal detail") {
		t.Errorf("the answer shows internals: %s", w.Body)
	}
	if !strings.Contains(b.log.String(), "internal detail") || strings.Join(b.outcomes, ",") != "room_close:unavailable" {
		t.Errorf("not logged or counted: %s %v", b.log.String(), b.outcomes)
	}
}

// The receiver's context has a deadline.
func TestAnswersInTime(t *testing.T) {
	b := newBundle(t, func(ctx context.Context, _ *zego.RoomClose) (webhook.Receipt, error) {
		<-ctx.Done()
		return webhook.Receipt{}, ctx.Err()
	}, func(o *webhook.Options) { o.AnswerWithin = 20 * time.Millisecond })
	if code := b.post(signed("secret")).Code; code != 503 {
		t.Errorf("got %d, want 503", code)
	}
}

// A callback is accepted even if its sender hangs up.
func TestIntakeOutlivesClient(t *testing.T) {
	entered, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	b := newBundle(t, func(ctx context.Context, _ *zego.RoomClose) (webhook.Receipt, error) {
		close(entered)
		<-gone
		ended <- ctx.Err()
		return webhook.Receipt{Status: webhook.Started}, nil
	}, func(o *webhook.Options) { o.AnswerWithin = time.Minute })
	ctx, hangUp := context.WithCancel(context.Background())
	go b.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", webhook.Path, strings.NewReader(signed("secret"))).WithContext(ctx))
	<-entered
	hangUp()
	close(gone)
	if err := <-ended; err != nil {
		t.Errorf("the intake's context ended with the client: %v", err)
	}
}

func TestLogSaysWhoAndWhyAndNoSecret(t *testing.T) {
	b := newBundle(t, started)
	genuine := signed("secret")
	b.post(genuine)
	b.post(signed("guess"))
	log := b.log.String()
	for _, want := range []string{`"room_session_id":"858012925204410417"`, `"workflow_id":"room-close-1-858012925204410417"`, `"outcome":"bad_signature"`, `"remote":"192.0.2.1:1234"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	for _, secret := range []string{zego.Sign("secret", now.Unix(), "350176"), zego.Sign("guess", now.Unix(), "350176"), "350176"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows %s", secret)
		}
	}
}

// A sender of a much too large body can read the answer.
func TestHugeBodyIsAnswered(t *testing.T) {
	server := httptest.NewServer(newBundle(t, started))
	defer server.Close()
	resp, err := http.Post(server.URL+webhook.Path, "application/json", strings.NewReader(strings.Repeat("x", 12<<20)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("got %d, want 413", resp.StatusCode)
	}
}

// The server's own limits, over a real connection.
func TestServerRefusesLargeHeader(t *testing.T) {
	b := newBundle(t, started)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := webhook.NewServer(b, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout <= server.ReadTimeout+webhook.AnswerWithin || server.IdleTimeout == 0 {
		t.Errorf("timeouts: header %v, read %v, write %v, idle %v", server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout, server.IdleTimeout)
	}

	for size, want := range map[int]int{100: 200, 64 << 10: 431} {
		req, err := http.NewRequest("POST", "http://"+l.Addr().String()+webhook.Path, strings.NewReader(signed("secret")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", size))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("header of %d bytes: %d, want %d", size, resp.StatusCode, want)
		}
	}
}

// A truncated body is refused.
func TestBodyCutOff(t *testing.T) {
	b := newBundle(t, started)
	r := httptest.NewRequest("POST", webhook.Path, io.MultiReader(strings.NewReader(signed("secret")), brokenReader{}))
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	if w.Code != 400 || b.taken.Load() != 0 || strings.Join(b.outcomes, "") != ":unread" {
		t.Errorf("got %d, taken %d, observed %v", w.Code, b.taken.Load(), b.outcomes)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// An unreadable field is counted, whether or not the callback is refused for it.
func TestUnreadableFieldsAreCounted(t *testing.T) {
	recording := func(file string) string {
		return `{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":1,"timestamp":"1499676989","nonce":"1","signature":"` + zego.Sign("secret", now.Unix(), "1") +
			`","detail":{"file_info":[{"file_id":"f"},` + file + `]}}`
	}
	for name, tt := range map[string]struct{ body, want, logged string }{
		"refused":          {strings.Replace(signed("secret"), "rid_", `\ud800`, 1), "room_close room_id true", `"error":"zego: room_id: found half of a surrogate pair"`},
		"taken":            {strings.Replace(signed("secret"), `"close_reason":1`, `"close_reason":"kicked"`, 1), "room_close close_reason false", `"unknown":["close_reason: found \"kicked\"`},
		"in a list":        {recording(`{"file_id":7}`), "recording detail.file_info.file_id true", "detail.file_info[1].file_id"},
		"taken, in a list": {recording(`{"file_id":"g","status":"x"}`), "recording detail.file_info.status false", "detail.file_info[1].status"},
		"not verified":     {strings.Replace(signed("secret"), `"nonce"`, `"once"`, 1), " nonce true", `"error":"zego: nonce: missing"`},
		"nobody's event":   {strings.Replace(signed("secret"), `"room_close"`, `7`, 1), " event true", ""},
	} {
		var got []string
		b := newBundle(t, started, func(o *webhook.Options) {
			o.ObserveField = func(event, field string, refused bool) {
				got = append(got, fmt.Sprint(event, " ", field, " ", refused))
			}
		})
		w := b.post(tt.body)
		if g := strings.Join(got, ", "); g != tt.want || (w.Code == 200) == strings.HasSuffix(tt.want, "true") || !strings.Contains(b.log.String(), tt.logged) {
			t.Errorf("%s: %d, observed %q, logged %s", name, w.Code, g, b.log.String())
		}
	}
}

// A signature is bound only by an accepted callback.
func TestUnacceptedCallbackLeavesItsSignatureFree(t *testing.T) {
	var fault error
	b := newBundle(t, func(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
		return webhook.Receipt{Status: webhook.Started}, fault
	})
	first := signed("secret")
	other := strings.Replace(first, "858012925204410417", "858012925204410418", 1)
	steps := []struct {
		name, body string
		fault      error
		status     int
	}{
		{"one that isn't taken", other, errors.New("disk full"), 503},
		{"one that can't be read", strings.Replace(first, "858012925204410417", "0", 1), nil, 400},
		{"another body then", first, nil, 200},
		{"the first again", other, nil, 401},
		{"a retry that isn't taken", first, errors.New("disk full"), 503},
		{"the first again, after that", other, nil, 401},
		{"the retry", first, nil, 200},
	}
	for _, s := range steps {
		fault = s.fault
		if w := b.post(s.body); w.Code != s.status {
			t.Errorf("%s: got %d %s, want %d", s.name, w.Code, w.Body, s.status)
		}
	}
}

// Anybody who has seen one signature can store at most one unreadable callback with it.
func TestSignatureIsGoodForOneUnreadableBody(t *testing.T) {
	var kept []string
	b := newBundle(t, started, func(o *webhook.Options) {
		o.Receiver = receiver(func(_ context.Context, event zego.Event) (webhook.Receipt, error) {
			if u, ok := event.(*zego.Unreadable); ok {
				kept = append(kept, u.RoomID)
			}
			return webhook.Receipt{Status: webhook.Stored}, nil
		})
	})
	readable := signed("secret")
	unreadable := func(room string) string {
		return strings.NewReplacer("858012925204410417", "0", "rid_1242649", room).Replace(readable)
	}
	steps := []struct {
		name, body string
		status     int
	}{
		{"unreadable", unreadable("a"), 400},
		{"another unreadable", unreadable("b"), 401},
		{"the same again", unreadable("a"), 400},
		{"a readable one", readable, 200},
		{"the unreadable one after it", unreadable("a"), 401},
		{"another after it", unreadable("b"), 401},
		{"the readable one again", readable, 200},
	}
	for _, s := range steps {
		if w := b.post(s.body); w.Code != s.status {
			t.Errorf("%s: got %d %s, want %d", s.name, w.Code, w.Body, s.status)
		}
	}
	if got := strings.Join(kept, " "); got != "a a" {
		t.Errorf("kept %q, want only the first", got)
	}
}

// Long foreign text doesn't fill the log.
func TestForeignTextIsShortInTheLog(t *testing.T) {
	long := strings.Repeat("\"A", 7000)
	tests := map[string]func(*http.Request){
		"method":           func(r *http.Request) { r.Method = strings.Repeat("A", 15_000) },
		"path":             func(r *http.Request) { r.URL.Path = "/zego/" + long },
		"path of segments": func(r *http.Request) { r.URL.Path = strings.Repeat("/call", 3000) },
		"encoding":         func(r *http.Request) { r.Header.Set("Content-Encoding", long) },
		"type":             func(r *http.Request) { r.Header.Set("Content-Type", long) },
		"event": func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(strings.Replace(signed("guess"), "room_close", strings.Repeat("A", 1000), 1)))
		},
		"number": func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(`{"event":"room_close","appid":"` + strings.Repeat("A", 100_000) + `"}`))
		},
		"name": func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(`{"appid":1,"` + strings.Repeat("A", 100_000) + `":1,"APPID":2}`))
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, started)
			r := httptest.NewRequest(http.MethodPost, webhook.Path, strings.NewReader("{"))
			change(r)
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			if w.Code < 400 || b.log.Len() == 0 || b.log.Len() > 2000 || w.Body.Len() > 2000 {
				t.Errorf("answered %d with %d bytes and %d in the log, want a short refusal", w.Code, w.Body.Len(), b.log.Len())
			}
		})
	}
}

// Two bodies with the same signature are not both accepted, even at the same time.
func TestSignatureIsGoodForOneBodyAtATime(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	b := newBundle(t, func(context.Context, *zego.RoomClose) (webhook.Receipt, error) {
		entered <- struct{}{}
		<-leave
		return webhook.Receipt{Status: webhook.Started}, nil
	}, func(o *webhook.Options) {
		o.Observe, o.Log, o.AnswerWithin = nil, slog.New(slog.DiscardHandler), time.Minute
	})
	first := signed("secret")
	codes := make(chan int, 2)
	for range 2 { // twice, as ZEGO may send it
		go func() { codes <- b.post(first).Code }()
		<-entered
	}
	if w := b.post(strings.Replace(first, "858012925204410417", "858012925204410418", 1)); w.Code != 401 {
		t.Errorf("another body meanwhile: %d", w.Code)
	}
	close(leave)
	for range 2 {
		if code := <-codes; code != 200 {
			t.Errorf("the first: %d", code)
		}
	}
}

// The callbacks of one app don't displace the signatures of another, and a signature is
// forgotten only after its timestamp has left the window.
func TestSignaturesAreRememberedByAppAndTime(t *testing.T) {
	const window = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}, 2: {"secret"}}, window, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		b := newBundle(t, started, func(o *webhook.Options) { o.Keyring, o.Log = ring, slog.New(slog.DiscardHandler) })
		send := func(app uint32, nonce string, ahead time.Duration, session uint64) int {
			return b.post(signed("secret", func(c *zego.RoomClose) {
				c.AppID, c.Nonce, c.Timestamp, c.RoomSessionID = app, nonce, time.Now().Add(ahead).Unix(), session
				c.Signature = zego.Sign("secret", c.Timestamp, nonce)
			})).Code
		}
		if code := send(1, "first", 0, 1); code != 200 {
			t.Fatal(code)
		}
		for n := range 2*webhook.Remember + 2 {
			if code := send(2, fmt.Sprint(n), 0, uint64(n)+1); code != 200 {
				t.Fatal(code)
			}
		}
		if code := send(1, "first", 0, 2); code != 401 {
			t.Errorf("after another app's flood: %d, want 401", code)
		}
		time.Sleep(window - time.Second)
		if code := send(1, "ahead", window, 1); code != 200 {
			t.Fatal(code)
		}
		for n := range 3 {
			time.Sleep(399 * time.Second)
			if code := send(1, fmt.Sprint("another", n), 0, 1); code != 200 {
				t.Fatal(code)
			}
		}
		if code := send(1, "ahead", window-3*399*time.Second, 2); code != 401 {
			t.Errorf("while it is fresh: %d, want 401", code)
		}
	})
}
