package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/config"
)

const uiOrigin = "https://temporal.example.com"

func codecServer(t *testing.T, token string) (url string, encrypted []byte) {
	t.Helper()
	keys, err := codec.ParseKeys("k=" + base64.StdEncoding.EncodeToString(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(CodecServer(&config.Config{PayloadKeys: keys, CodecToken: token}, slog.New(slog.DiscardHandler), uiOrigin).Handler)
	t.Cleanup(s.Close)
	all, err := keys.Codec().Encode([]*common.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(`"Anna"`)}})
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err = protojson.Marshal(&common.Payloads{Payloads: all})
	if err != nil {
		t.Fatal(err)
	}
	return s.URL, encrypted
}

// call sends a request and returns the response. seen reports whether a browser would let a page of
// the request's origin read it.
func call(t *testing.T, method, url string, body []byte, header ...string) (code int, text string, seen bool) {
	t.Helper()
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header.Get("Access-Control-Allow-Origin") == r.Header.Get("Origin")
}

func TestCodecServerDecryptsOnlyForTheWebUI(t *testing.T) {
	url, encrypted := codecServer(t, "")
	anna := base64.StdEncoding.EncodeToString([]byte(`"Anna"`))
	for _, path := range []string{"/decode", "/my-namespace/decode"} {
		if code, text, seen := call(t, "POST", url+path, encrypted, "Origin", uiOrigin, "X-Namespace", "default"); code != 200 || !seen || !strings.Contains(text, anna) {
			t.Errorf("the Web UI: %d %s", code, text)
		}
		if code, text, _ := call(t, "POST", url+path, encrypted); code != 200 || !strings.Contains(text, anna) {
			t.Errorf("the command line: %d %s", code, text)
		}
	}
	if code, _, seen := call(t, "OPTIONS", url+"/decode", nil, "Origin", uiOrigin, "Access-Control-Request-Method", "POST"); code != 204 || !seen {
		t.Errorf("the Web UI's browser asks first: %d", code)
	}
	for _, origin := range []string{"https://evil.example.com", uiOrigin + ".evil.example.com", "http://temporal.example.com", "null", url} {
		for _, method := range []string{"POST", "OPTIONS"} {
			if code, text, seen := call(t, method, url+"/decode", encrypted, "Origin", origin); code != 403 || seen || strings.Contains(text, anna) {
				t.Errorf("%s by a page of %s: %d %s", method, origin, code, text)
			}
		}
	}
	if code, text, _ := call(t, "POST", url+"/encode", []byte(`{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"`+anna+`"}]}`)); code != 200 || strings.Contains(text, anna) {
		t.Errorf("encode: %d %s", code, text)
	}
	for _, path := range []string{"/", "/metrics", "/decode/x"} {
		if code, _, _ := call(t, "POST", url+path, encrypted); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _, _ := call(t, "POST", url+"/decode", make([]byte, maxCodecBody+1)); code != 400 {
		t.Errorf("too large: %d", code)
	}
}

func TestCodecServerNamesAMissingKey(t *testing.T) {
	url, encrypted := codecServer(t, "")
	other := bytes.ReplaceAll(encrypted, []byte(base64.StdEncoding.EncodeToString([]byte("k"))), []byte(base64.StdEncoding.EncodeToString([]byte("j"))))
	if code, text, _ := call(t, "POST", url+"/decode", other); code != 400 || !strings.Contains(text, `key "j", and CLOSEOUT_PAYLOAD_KEYS has only k`) {
		t.Errorf("%d %s", code, text)
	}
}

func TestCodecServerRequiresItsToken(t *testing.T) {
	url, encrypted := codecServer(t, "a-long-token")
	for authorization, want := range map[string]int{"": 401, "Bearer ": 401, "Bearer a-long-toke": 401, "a-long-token": 200, "Bearer a-long-token": 200} {
		code, text, _ := call(t, "POST", url+"/decode", encrypted, "Authorization", authorization)
		if code != want {
			t.Errorf("%q: %d %s", authorization, code, text)
		}
		if strings.Contains(text, "a-long-token") {
			t.Error("the answer has the token")
		}
	}
	// A browser sends a preflight request before one with the Authorization header, so the
	// preflight needs no token.
	for asked, want := range map[string]string{"": "", "true": "true"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, url+"/decode", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", uiOrigin)
		r.Header.Set("Access-Control-Request-Private-Network", asked)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Private-Network"); got != want {
			t.Errorf("a preflight for the private network %q is answered %q, want %q", asked, got, want)
		}
	}
	if code, _, seen := call(t, "OPTIONS", url+"/decode", nil, "Origin", uiOrigin); code != 204 || !seen {
		t.Errorf("the browser asks first: %d", code)
	}
}

func TestCodecServerWithoutATokenIsLocal(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		if l, err := ListenCodec(t.Context(), &config.Config{CodecListen: address}, silent); err == nil || !strings.Contains(err.Error(), "want CLOSEOUT_CODEC_TOKEN set") {
			t.Errorf("%s: %v, %v", address, l, err)
		}
	}
	for _, c := range []config.Config{{CodecListen: "127.0.0.1:0"}, {CodecListen: "0.0.0.0:0", CodecToken: "a-long-token"}} {
		l, err := ListenCodec(t.Context(), &c, silent)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestCodecServerRequiresKeysAndStops(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	c := &config.Config{CodecListen: "127.0.0.1:0", UIURL: uiOrigin + "/namespaces"}
	if err := RunCodec(t.Context(), c, silent); err == nil || !strings.Contains(err.Error(), "CLOSEOUT_PAYLOAD_KEYS: missing") {
		t.Errorf("got %v", err)
	}
	c.PayloadKeys, _ = codec.ParseKeys("k=" + base64.StdEncoding.EncodeToString(make([]byte, 32)))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.CodecListen = free.Addr().String()
	free.Close()
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := RunCodec(ctx, c, slog.New(slog.NewJSONHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	var line struct{ Origin string }
	if err := json.Unmarshal(log.Bytes(), &line); err != nil || line.Origin != uiOrigin {
		t.Errorf("%s, %v", log.String(), err)
	}
}
