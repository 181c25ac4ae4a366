// Package zegofake is a fake of ZEGO's server APIs that is as strict as their documentation.
package zegofake

import (
	"crypto/md5" // #nosec G501 -- ZEGO's scheme.
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// User is a user in a room.
type User struct {
	ID    string
	Login time.Time
	// Admin marks a user that records or moderates.
	Admin bool
}

// API answers like ZEGO. The zero value knows no app.
type API struct {
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	mu      sync.Mutex
	secrets map[uint32]string
	rooms   map[room][]User
	tasks   map[uint32][]Task
	usage   map[uint32][]Usage
	calls   []url.Values
	lately  map[string][]time.Time // recent calls, by the key of their limit
	fail    func(url.Values) *Failure
}

type room struct {
	app  uint32
	name string
}

// Failure is an answer that reports a failure.
type Failure struct {
	// Status is the HTTP status. Default: 200.
	Status int
	// Body is sent verbatim. If empty, Code and Message are sent.
	Body    string
	Code    int
	Message string
	// Hang delays the answer until the client gives up.
	Hang bool
	// Partial leaves the first element out of each list of the usual answer.
	Partial bool
}

// New returns an API with one app. App adds others.
func New(appID uint32, secret string) *API {
	a := &API{Now: time.Now, secrets: map[uint32]string{}, rooms: map[room][]User{}, tasks: map[uint32][]Task{}, usage: map[uint32][]Usage{}, lately: map[string][]time.Time{}}
	a.App(appID, secret)
	return a
}

// Serve serves the API on this machine until the test ends, and returns its URL.
func (a *API) Serve(t testing.TB) string {
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return server.URL
}

// App adds an app, or changes its secret.
func (a *API) App(appID uint32, secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets[appID] = secret
}

// Room sets the users of a room. A room without users does not exist.
func (a *API) Room(appID uint32, name string, users ...User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rooms[room{appID, name}] = users
}

// Fail sets a function that may return a failure for the parameters of a call.
func (a *API) Fail(fail func(url.Values) *Failure) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = fail
}

// Calls returns the parameters of all calls so far, or only those of one action.
func (a *API) Calls(action string) (calls []url.Values) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.calls {
		if action == "" || c.Get("Action") == action {
			calls = append(calls, c)
		}
	}
	return calls
}

// ServeHTTP implements [http.Handler].
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	a.mu.Lock()
	a.calls = append(a.calls, query)
	n := len(a.calls)
	var failure *Failure
	if a.fail != nil {
		failure = a.fail(query)
	}
	a.mu.Unlock()
	if failure != nil && failure.Hang {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if failure != nil && failure.Status != 0 {
		w.WriteHeader(failure.Status)
	}
	if failure != nil && failure.Body != "" {
		_, _ = w.Write([]byte(failure.Body))
		return
	}
	var (
		code    int
		message string
		data    any
	)
	switch {
	case failure != nil && !failure.Partial:
		code, message = failure.Code, failure.Message
	case r.Method != map[bool]string{false: http.MethodGet, true: http.MethodPost}[posts[query.Get("Action")]] || r.URL.Path != "/":
		code, message = 100000007, "unsupported action"
	default:
		body, _ := io.ReadAll(r.Body)
		code, message, data = a.answer(query, body)
		if failure != nil {
			leaveOut(data)
		}
	}
	// Both kinds are seen in ZEGO's documentation.
	id := any(strconv.FormatUint(7840039829955402142+uint64(n), 10))
	if n%2 == 0 {
		id = json.Number(id.(string))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Code": code, "Message": message, "RequestId": id, "Data": data})
}

// leaveOut removes the first element of each list.
func leaveOut(data any) {
	fields, _ := data.(map[string]any)
	for name, value := range fields {
		if list, ok := value.([]map[string]any); ok && len(list) > 0 {
			fields[name] = list[1:]
		}
	}
}

var nonces = regexp.MustCompile(`^[0-9a-f]{16}$`)

func (a *API) answer(q url.Values, body []byte) (code int, message string, data any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, err := strconv.ParseUint(q.Get("AppId"), 10, 32)
	if err != nil {
		return 100000001, "invalid AppId", nil
	}
	app := uint32(id)
	timestamp, err := strconv.ParseInt(q.Get("Timestamp"), 10, 64)
	if err != nil {
		return 100000003, "invalid Timestamp", nil
	}
	if off := a.Now().Sub(time.Unix(timestamp, 0)).Abs(); off > 10*time.Minute {
		return 100000004, "signature expired", nil
	}
	if !nonces.MatchString(q.Get("SignatureNonce")) {
		return 100000008, "SignatureNonce is null", nil
	}
	if q.Get("SignatureVersion") != "2.0" {
		return 100000014, "unsupported SignatureVersion", nil
	}
	secret, known := a.secrets[app]
	if !known {
		return 100000010, "failed to get ServerSecret", nil
	}
	sum := md5.Sum([]byte(q.Get("AppId") + q.Get("SignatureNonce") + secret + q.Get("Timestamp"))) // #nosec G401
	if hex.EncodeToString(sum[:]) != q.Get("Signature") {
		// A message may echo secrets, so the client must not show it.
		return 100000005, "invalid signature " + q.Get("Signature"), nil
	}
	switch action := q.Get("Action"); action {
	case "DescribeUserNum":
		return a.userNum(app, q)
	case "DescribeUsers":
		return a.users(app, q)
	case "DescribeUserList":
		return a.userList(app, q)
	case "DescribeTasks":
		return a.describeTasks(app, body)
	case "DescribeRecordStatus":
		return a.recordStatus(app, body)
	case "GetRealtimeUsage":
		return a.realtimeUsage(app, q)
	default:
		return 100000007, "unsupported Action", nil
	}
}

// limited records a call, and reports whether there were more than most calls of its kind within a
// second.
func (a *API) limited(kind string, most int) bool {
	now := a.Now()
	a.lately[kind] = append(slices.DeleteFunc(a.lately[kind], func(t time.Time) bool { return now.Sub(t) >= time.Second }), now)
	return len(a.lately[kind]) > most
}

func (a *API) userNum(app uint32, q url.Values) (int, string, any) {
	if a.limited(fmt.Sprint(app, " num"), 10) {
		return 206, "app qps limit", nil
	}
	names := q["RoomId[]"]
	if len(names) == 0 || len(names) > 10 {
		return 2, "input params error", nil
	}
	var list []map[string]any
	for _, name := range names {
		users := a.rooms[room{app, name}]
		admins := 0
		for _, u := range users {
			if u.Admin {
				admins++
			}
		}
		list = append(list, map[string]any{"RoomId": name, "UserCount": len(users), "AdminUserCount": admins})
	}
	return 0, "success", map[string]any{"UserCountList": list}
}

func (a *API) users(app uint32, q url.Values) (int, string, any) {
	if a.limited(fmt.Sprint(app, " users"), 10) {
		return 206, "app qps limit", nil
	}
	ids := q["UserId[]"]
	if q.Get("RoomId") == "" || len(ids) == 0 || len(ids) > 10 {
		return 2, "input params error", nil
	}
	there := a.rooms[room{app, q.Get("RoomId")}]
	if len(there) == 0 {
		return 50001, "room not exist", nil
	}
	var list []map[string]any
	for _, id := range ids {
		status := map[string]any{"UserId": id, "Status": 0, "LoginTime": 0, "UserRole": 0}
		for _, u := range there {
			if u.ID == id {
				status = map[string]any{"UserId": id, "Status": 1, "LoginTime": u.Login.UnixMilli(), "UserRole": role(u)}
			}
		}
		list = append(list, status)
	}
	return 0, "success", map[string]any{"UserStatusList": list}
}

func (a *API) userList(app uint32, q url.Values) (int, string, any) {
	if a.limited(fmt.Sprint(app, " list"), 200) {
		return 206, "app qps limit", nil
	}
	if a.limited(fmt.Sprint(app, " list ", q.Get("RoomId")), 1) {
		return 207, "room qps limit", nil
	}
	limit := 200
	if text := q.Get("Limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 200 {
			return 2, "input params error", nil
		}
		limit = n
	}
	if q.Get("RoomId") == "" || !slices.Contains([]string{"", "0", "1"}, q.Get("Mode")) {
		return 2, "input params error", nil
	}
	users := slices.Clone(a.rooms[room{app, q.Get("RoomId")}])
	slices.SortStableFunc(users, func(x, y User) int { return x.Login.Compare(y.Login) })
	if q.Get("Mode") == "1" {
		slices.Reverse(users)
	}
	from := 0
	if _, after, ok := strings.Cut(q.Get("Marker"), "-"); ok {
		from = 1 + slices.IndexFunc(users, func(u User) bool { return u.ID == after })
	}
	users = users[from:]
	marker := ""
	if len(users) > limit {
		users = users[:limit]
		marker = fmt.Sprintf("%d-%s", users[limit-1].Login.UnixMilli(), users[limit-1].ID)
	}
	list := []map[string]any{}
	for _, u := range users {
		list = append(list, map[string]any{"UserId": u.ID, "UserName": u.ID, "UserRole": role(u)})
	}
	return 0, "success", map[string]any{"Marker": marker, "UserList": list}
}

func role(u User) int {
	if u.Admin {
		return 4
	}
	return 1
}
