package serverapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closeouthq/closeout/internal/zegofake"
	"github.com/closeouthq/closeout/zego"
	"github.com/closeouthq/closeout/zego/serverapi"
)

const (
	serverSecret = "9193cc662a4c0ec135ec71fb57194b38"
	apiApp       = 12345
)

// The test vector is from ZEGO's documentation.
func TestRequestsAreSignedAsDocumented(t *testing.T) {
	if got := serverapi.Sign(apiApp, "4fd24687296dd9f3", serverSecret, 1615186943); got != "43e5cfcca828314675f91b001390566a" {
		t.Errorf("signature %s", got)
	}
}

// inProcess connects a client to a server without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

func apiClient(t *testing.T, api http.Handler, secrets ...string) *serverapi.Client {
	t.Helper()
	c, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{apiApp: secrets})
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP.Transport = inProcess{api}
	return c
}

func TestServerAPI(t *testing.T) {
	login := time.UnixMilli(1675674019365).UTC()
	api := zegofake.New(apiApp, serverSecret)
	// A room's name may be anything that a URL has to escape.
	api.Room(apiApp, "room+1&a=b", zegofake.User{ID: "a", Login: login}, zegofake.User{ID: "b", Login: login.Add(time.Second)},
		zegofake.User{ID: "recorder", Login: login.Add(-time.Second), Admin: true})
	c := apiClient(t, api, serverSecret)

	counts, err := c.DescribeUserNum(t.Context(), apiApp, []string{"room+1&a=b", "gone"})
	if err != nil || counts["room+1&a=b"] != (serverapi.RoomUsers{Users: 3, Admins: 1}) || counts["room+1&a=b"].Participants() != 2 {
		t.Errorf("counts %v, %v", counts, err)
	}
	if gone, found := counts["gone"]; !found || gone.Users != 0 {
		t.Errorf("of a room that is gone: %v, %v", gone, found)
	}
	if q := api.Calls("DescribeUserNum")[0]; !slices.Equal(q["RoomId[]"], []string{"room+1&a=b", "gone"}) {
		t.Errorf("asked with %v", q)
	}

	statuses, err := c.DescribeUsers(t.Context(), apiApp, "room+1&a=b", []string{"a", "x", "recorder"})
	want := []serverapi.User{{UserID: "a", InRoom: true, LoginTime: login, Role: "1"}, {UserID: "x", Role: "0"},
		{UserID: "recorder", InRoom: true, LoginTime: login.Add(-time.Second), Role: zego.RoleService}}
	if err != nil || !slices.Equal(statuses, want) {
		t.Errorf("statuses %v, %v", statuses, err)
	}
	_, err = c.DescribeUsers(t.Context(), apiApp, "gone", []string{"a"})
	if e := new(serverapi.Error); !errors.As(err, &e) || !e.NoRoom() || e.Code != 50001 {
		t.Errorf("of a room that is gone: %v", err)
	}

	var names []string
	for marker := ""; ; {
		users, next, err := c.DescribeUserList(t.Context(), apiApp, "room+1&a=b", 2, marker)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			names = append(names, u.UserID)
		}
		if marker = next; marker == "" {
			break
		}
	}
	if !slices.Equal(names, []string{"recorder", "a", "b"}) {
		t.Errorf("users %v", names)
	}
	if users, next, err := c.DescribeUserList(t.Context(), apiApp, "gone", 2, ""); err != nil || len(users) != 0 || next != "" {
		t.Errorf("of a room that is gone: %v, %q, %v", users, next, err)
	}
}

// An invalid answer is an error, so that no room is considered empty.
func TestInvalidAnswersAreErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		zegofake.Failure
		want string
	}{
		"limited":             {zegofake.Failure{Code: 206, Message: "app qps limit"}, "code 206: app qps limit"},
		"busy, in an answer":  {zegofake.Failure{Status: 500, Code: 1, Message: "failed"}, "code 1: failed"},
		"a proxy":             {zegofake.Failure{Status: 502, Body: "<html>Bad Gateway</html>"}, "HTTP status 502"},
		"a page to log in":    {zegofake.Failure{Body: "<html>Welcome</html>"}, "HTTP status 200 without an answer"},
		"an empty object":     {zegofake.Failure{Body: "{}"}, "HTTP status 200 without an answer"},
		"no Data":             {zegofake.Failure{Body: `{"Code":0,"Message":"success"}`}, "Data"},
		"Data that is null":   {zegofake.Failure{Body: `{"Code":0,"Data":null}`}, `says nothing of room "lobby"`},
		"another room":        {zegofake.Failure{Body: `{"Code":0,"Data":{"UserCountList":[{"RoomId":"other","UserCount":0}]}}`}, `says nothing of room "lobby"`},
		"no count":            {zegofake.Failure{Body: `{"Code":0,"Data":{"UserCountList":[{"RoomId":"lobby"}]}}`}, "no UserCount"},
		"more admins than it": {zegofake.Failure{Body: `{"Code":0,"Data":{"UserCountList":[{"RoomId":"lobby","UserCount":1,"AdminUserCount":2}]}}`}, "impossible"},
		"a redirect":          {zegofake.Failure{Status: 302, Body: "Found"}, "HTTP status 302"},
		"success, but not":    {zegofake.Failure{Status: 503, Body: `{"Code":0,"Data":{"UserCountList":[{"RoomId":"lobby","UserCount":0}]}}`}, "HTTP status 503"},
		"too much":            {zegofake.Failure{Body: strings.Repeat(" ", 5<<20)}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			api := zegofake.New(apiApp, serverSecret)
			api.Fail(func(url.Values) *zegofake.Failure { return &tt.Failure })
			counts, err := apiClient(t, api, serverSecret).DescribeUserNum(t.Context(), apiApp, []string{"lobby"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || counts != nil {
				t.Errorf("got %v, %v, want an error with %q", counts, err, tt.want)
			}
		})
	}
}

// If an answer lacks a room, the other rooms are still returned.
func TestAnswerWithoutARoomReturnsTheOthers(t *testing.T) {
	for name, list := range map[string]string{
		"it isn't there": `{"RoomId":"lobby","UserCount":2}`,
		"no count":       `{"RoomId":"hall"},{"RoomId":"lobby","UserCount":2}`,
		"another room":   `{"RoomId":"other","UserCount":0},{"RoomId":"lobby","UserCount":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			api := zegofake.New(apiApp, serverSecret)
			api.Fail(func(url.Values) *zegofake.Failure {
				return &zegofake.Failure{Body: `{"Code":0,"Data":{"UserCountList":[` + list + `]}}`}
			})
			counts, err := apiClient(t, api, serverSecret).DescribeUserNum(t.Context(), apiApp, []string{"lobby", "hall"})
			if err == nil || !strings.Contains(err.Error(), `room "hall"`) || len(counts) != 1 || counts["lobby"].Users != 2 {
				t.Errorf("counts %v, %v", counts, err)
			}
		})
	}
}

// RequestId is a string, or a number that a float would round.
func TestErrorsHaveTheRequestID(t *testing.T) {
	for _, id := range []string{`"7840039829955402143"`, `7840039829955402143`} {
		api := zegofake.New(apiApp, serverSecret)
		api.Fail(func(url.Values) *zegofake.Failure {
			return &zegofake.Failure{Body: `{"Code":1,"Message":"failed","RequestId":` + id + `}`}
		})
		_, err := apiClient(t, api, serverSecret).DescribeUserNum(t.Context(), apiApp, []string{"lobby"})
		if e := new(serverapi.Error); !errors.As(err, &e) || e.RequestID != "7840039829955402143" {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestErrorsHaveNoSecretAndNoSignature(t *testing.T) {
	api := zegofake.New(apiApp, "another")
	c := apiClient(t, api, serverSecret) // the fake's message contains the secret
	_, refused := c.DescribeUserNum(t.Context(), apiApp, []string{"lobby"})
	if e := new(serverapi.Error); !errors.As(refused, &e) || !e.Unauthorized() || !strings.Contains(e.Message, "invalid signature …") {
		t.Errorf("refused: %v", refused)
	}
	away := httptest.NewServer(api)
	away.Close()
	c, err := serverapi.New(away.URL, map[uint32][]string{apiApp: {serverSecret}})
	if err != nil {
		t.Fatal(err)
	}
	_, unreachable := c.DescribeUserNum(t.Context(), apiApp, []string{"lobby"})
	_, unknown := c.DescribeUserNum(t.Context(), 7, []string{"lobby"})
	if !errors.Is(unknown, serverapi.ErrNoSecret) {
		t.Errorf("of an app without a secret: %v", unknown)
	}
	for _, err := range []error{refused, unreachable} {
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); err == nil || strings.Contains(text, serverSecret) || strings.Contains(text, "Signature=") ||
			strings.Contains(text, api.Calls("")[0].Get("Signature")) {
			t.Errorf("it says %s", text)
		}
	}
}

// While a secret is being replaced, one of the two is valid.
func TestSecretsAreTriedInTurn(t *testing.T) {
	api := zegofake.New(apiApp, serverSecret)
	if _, err := apiClient(t, api, "new", serverSecret).DescribeUserNum(t.Context(), apiApp, []string{"lobby"}); err != nil {
		t.Error(err)
	}
	if n := len(api.Calls("")); n != 2 {
		t.Errorf("%d calls", n)
	}
}

// The fake refuses calls above the documented limits. No call is refused.
func TestCallsKeepToTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := zegofake.New(apiApp, serverSecret)
		api.Room(apiApp, "lobby", zegofake.User{ID: "a", Login: time.Now()})
		c := apiClient(t, api, serverSecret)
		began := time.Now()
		for range 50 {
			if _, err := c.DescribeUserNum(t.Context(), apiApp, []string{"lobby"}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 4900*time.Millisecond || took > 6*time.Second {
			t.Errorf("50 calls took %v", took)
		}
		for range 3 {
			if _, _, err := c.DescribeUserList(t.Context(), apiApp, "lobby", 10, ""); err != nil {
				t.Fatal(err)
			}
		}
		began = time.Now()
		for n := range 400 {
			if _, _, err := c.DescribeUserList(t.Context(), apiApp, fmt.Sprint(n), 10, ""); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("400 lists of as many rooms took %v", took)
		}
	})
}

func TestContextEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := zegofake.New(apiApp, serverSecret)
		api.Fail(func(url.Values) *zegofake.Failure { return &zegofake.Failure{Code: 1} })
		c := apiClient(t, api, serverSecret)
		_, _ = c.DescribeUserNum(t.Context(), apiApp, []string{"lobby"})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := c.DescribeUserNum(ctx, apiApp, []string{"lobby"}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := c.DescribeUserNum(ctx, apiApp, []string{"lobby"}); err == nil {
			t.Error("a call before its turn")
		}
		if calls := api.Calls("DescribeUserNum"); len(calls) != 1 {
			t.Errorf("%d calls", len(calls))
		}
	})
}

// Without TLS, a forged answer could close out rooms.
func TestHTTPIsForLocalhostOnly(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://rtc-api.zego.im":     true,
		"https://proxy.internal/zego": true,
		"http://127.0.0.1:8080":       true,
		"http://localhost:8080":       true,
		"http://[::1]:8080":           true,
		"http://rtc-api.zego.im":      false,
		"http://localhost.example":    false,
		"rtc-api.zego.im":             false,
		"ftp://localhost":             false,
		"https://u:p@rtc-api.zego.im": false,
		"https://rtc-api.zego.im/?a":  false,
	} {
		if _, err := serverapi.New(address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := serverapi.New(serverapi.DefaultURL, map[uint32][]string{1: {""}}); err == nil {
		t.Error("an empty secret is taken")
	}
}
