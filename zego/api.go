package zego

import (
	"context"
	"crypto/md5" // #nosec G501 -- ZEGO's scheme, not our choice.
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"
)

// ServerAPI is where ZEGO's server API is, whatever the region. Those of the
// regions are https://rtc-api-fra.zego.im and the like.
const ServerAPI = "https://rtc-api.zego.im"

// How many rooms and users one call may ask about, and how many users of a room
// one call lists.
const (
	MostRooms = 10
	MostUsers = 10
	MostList  = 200
)

// ErrNoServerSecret means that a [Client] has no secret for the app.
var ErrNoServerSecret = errors.New("zego: no server secret for the app")

// Client asks ZEGO's server API, version 2, about rooms. No answer tells a room's
// session: the API knows rooms by their names alone.
//
// It keeps to the documented limits by letting calls wait for their turn, and
// leaves it to its caller to try again. It is safe for concurrent use. None of its
// errors has a secret or a signature in it.
type Client struct {
	// HTTP makes the requests. Those of NewClient give up after ten seconds, and
	// follow no redirect: a request proves who sent it.
	HTTP *http.Client

	base    *url.URL
	secrets map[uint32][]string
	now     func() time.Time

	mu    sync.Mutex
	turns map[string]*rate.Limiter // of each kind of call
}

// NewClient makes a client for the API at baseURL, which is [ServerAPI] outside
// tests. Secrets are the ServerSecrets of each app, not the CallbackSecrets; those
// after the first are tried where ZEGO finds the signature of the one before wrong,
// so that a secret can be replaced. It has to be https, unless it is this machine:
// who can forge an answer can have rooms taken for gone.
func NewClient(baseURL string, secrets map[uint32][]string) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Host == "" || base.RawQuery != "" || base.User != nil {
		return nil, errors.New("zego: not a URL of a server API, want one such as " + ServerAPI)
	}
	if local := base.Hostname() == "localhost" || base.Hostname() == "127.0.0.1" || base.Hostname() == "::1"; base.Scheme != "https" && !(base.Scheme == "http" && local) {
		return nil, fmt.Errorf("zego: server API at %s://%s: want https, as who forges an answer decides what becomes of rooms", base.Scheme, base.Host)
	}
	for app, list := range secrets {
		if len(list) == 0 || slices.Contains(list, "") {
			return nil, fmt.Errorf("zego: app %d: no server secret, or an empty one", app)
		}
	}
	return &Client{
		HTTP: &http.Client{
			Timeout:       10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		base: base, secrets: maps.Clone(secrets), now: time.Now, turns: map[string]*rate.Limiter{},
	}, nil
}

// Knows says whether the client has a secret for the app.
func (c *Client) Knows(appID uint32) bool { return len(c.secrets[appID]) > 0 }

// SignRequest makes the Signature of a request to the server API: the MD5 of the
// app, the nonce, the ServerSecret and the timestamp in Unix seconds, joined, in
// lower-case hex (ZEGO's "Calling APIs"). It covers no other parameter.
func SignRequest(appID uint32, nonce, secret string, timestamp int64) string {
	sum := md5.Sum(fmt.Appendf(nil, "%d%s%s%d", appID, nonce, secret, timestamp)) // #nosec G401
	return hex.EncodeToString(sum[:])
}

// RoomUsers is how many users a room has.
type RoomUsers struct {
	// Users includes Admins. It is 0 for a room that doesn't exist.
	Users int
	// Admins are those that record or moderate; they are no participants.
	Admins int
}

// Participants are the users without the admins.
func (r RoomUsers) Participants() int { return r.Users - r.Admins }

// UserStatus is what is known of a user of a room.
type UserStatus struct {
	// UserID is the user's name, user_account in callbacks.
	UserID string
	// InRoom says whether the user is in the room.
	InRoom bool
	// LoginTime is when it entered, by ZEGO's clock, to the millisecond and in UTC;
	// zero if it isn't in the room.
	LoginTime time.Time
	// Role is [RoleService] for an admin. ZEGO says that it means nothing but to its
	// LiveRoom service.
	Role UserRole
}

// RoomUser is one of the users that a room's list has.
type RoomUser struct {
	// UserID is the user's name.
	UserID string
	// Role is as in [UserStatus].
	Role UserRole
}

// DescribeUserNum asks how many users rooms have, for up to [MostRooms] of them.
// An answer that lacks one of the rooms is an error: a room that ZEGO says nothing
// of isn't an empty one. The rooms that it does tell of are given with the error.
// ZEGO's limit is ten calls a second for each app.
func (c *Client) DescribeUserNum(ctx context.Context, appID uint32, rooms []string) (map[string]RoomUsers, error) {
	if len(rooms) == 0 || len(rooms) > MostRooms {
		return nil, fmt.Errorf("zego: DescribeUserNum: found %d rooms, want 1 to %d", len(rooms), MostRooms)
	}
	var data struct {
		UserCountList []struct {
			RoomID         string `json:"RoomId"`
			UserCount      *int   `json:"UserCount"`
			AdminUserCount int    `json:"AdminUserCount"`
		} `json:"UserCountList"`
	}
	if err := c.call(ctx, appID, "DescribeUserNum", url.Values{"RoomId[]": rooms}, &data); err != nil {
		return nil, err
	}
	counts := make(map[string]RoomUsers, len(rooms))
	var fault error
	for _, r := range data.UserCountList {
		switch {
		case r.UserCount == nil || *r.UserCount < r.AdminUserCount || r.AdminUserCount < 0:
			fault = fmt.Errorf("zego: DescribeUserNum of app %d: room %q has no UserCount, or one that can't be", appID, r.RoomID)
		case slices.Contains(rooms, r.RoomID):
			counts[r.RoomID] = RoomUsers{*r.UserCount, r.AdminUserCount}
		}
	}
	for _, room := range rooms {
		if _, told := counts[room]; !told && fault == nil {
			fault = fmt.Errorf("zego: DescribeUserNum of app %d: the answer says nothing of room %q", appID, room)
		}
	}
	if len(counts) == 0 {
		return nil, fault
	}
	return counts, fault
}

// DescribeUsers asks about up to [MostUsers] users of a room. Of a room that
// doesn't exist the error is an [*APIError] with NoRoom. ZEGO's limit is ten calls
// a second for each app.
func (c *Client) DescribeUsers(ctx context.Context, appID uint32, room string, users []string) ([]UserStatus, error) {
	if len(users) == 0 || len(users) > MostUsers {
		return nil, fmt.Errorf("zego: DescribeUsers: found %d users, want 1 to %d", len(users), MostUsers)
	}
	var data struct {
		UserStatusList []struct {
			UserID    string   `json:"UserId"`
			Status    int      `json:"Status"`
			LoginTime int64    `json:"LoginTime"`
			UserRole  UserRole `json:"UserRole"`
		} `json:"UserStatusList"`
	}
	if err := c.call(ctx, appID, "DescribeUsers", url.Values{"RoomId": {room}, "UserId[]": users}, &data); err != nil {
		return nil, err
	}
	var all []UserStatus
	for _, u := range data.UserStatusList {
		status := UserStatus{UserID: u.UserID, InRoom: u.Status == 1, Role: u.UserRole}
		if status.InRoom {
			if u.LoginTime <= 0 {
				return nil, fmt.Errorf("zego: DescribeUsers of app %d: a user is in room %q without a LoginTime", appID, room)
			}
			status.LoginTime = time.UnixMilli(u.LoginTime).UTC()
		}
		all = append(all, status)
	}
	return all, nil
}

// DescribeUserList lists up to limit users of a room, and at most [MostList], those
// first that have been in it for the longest time. A room that doesn't exist has
// none. The marker is empty for the first of them, and then the next of the answer
// before; with an empty next there are no more. ZEGO's limits are 200 calls a
// second for each app, and one for each room.
func (c *Client) DescribeUserList(ctx context.Context, appID uint32, room string, limit int, marker string) (users []RoomUser, next string, err error) {
	if limit < 1 || limit > MostList {
		return nil, "", fmt.Errorf("zego: DescribeUserList: found limit %d, want 1 to %d", limit, MostList)
	}
	var data struct {
		Marker   string `json:"Marker"`
		UserList []struct {
			UserID   string   `json:"UserId"`
			UserRole UserRole `json:"UserRole"`
		} `json:"UserList"`
	}
	query := url.Values{"RoomId": {room}, "Mode": {"0"}, "Limit": {strconv.Itoa(limit)}}
	if marker != "" {
		query.Set("Marker", marker)
	}
	if err := c.call(ctx, appID, "DescribeUserList", query, &data); err != nil {
		return nil, "", err
	}
	for _, u := range data.UserList {
		users = append(users, RoomUser{u.UserID, u.UserRole})
	}
	return users, data.Marker, nil
}

// APIError is what the server API said instead of an answer.
type APIError struct {
	// Action is what was asked, and AppID of which app.
	Action string
	AppID  uint32
	// Status is that of HTTP, and Code ZEGO's own; 0 if there was none.
	Status int
	Code   int64
	// Message is ZEGO's, shortened.
	Message string
	// RequestID is by what ZEGO's support finds the request.
	RequestID string
}

// Error implements error.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "zego: %s of app %d: ", e.Action, e.AppID)
	if e.Code == 0 {
		fmt.Fprintf(&b, "HTTP status %d without an answer of the server API", e.Status)
	} else {
		fmt.Fprintf(&b, "code %d: %s", e.Code, e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// NoRoom says whether the room doesn't exist: 50001, or 104 and 5024, which ZEGO
// says are the same.
func (e *APIError) NoRoom() bool { return e.Code == 50001 || e.Code == 104 || e.Code == 5024 }

// RateLimited says whether there were too many calls, of the app or of the room.
func (e *APIError) RateLimited() bool { return e.Code == 206 || e.Code == 207 }

// Unauthorized says whether ZEGO doesn't believe who asks: the app or its secret
// is wrong, or our clock.
func (e *APIError) Unauthorized() bool {
	return e.Code == 100000001 || e.Code == 100000004 || e.Code == wrongSignature || e.Code == 100000010 || e.Code == 100000011
}

const wrongSignature = 100000005

// The limits of ZEGO's documentation, as the time between two calls. It is a tenth
// longer, as calls don't arrive as evenly as they were sent.
const (
	tenASecond    = 110 * time.Millisecond
	listsInAnApp  = 5500 * time.Microsecond
	listsInARoom  = 1100 * time.Millisecond
	forgetTurnsAt = 10_000 // of rooms, mostly
)

// call asks, with each of the app's secrets until ZEGO takes its signature.
func (c *Client) call(ctx context.Context, appID uint32, action string, query url.Values, data any) error {
	err := fmt.Errorf("zego: %s of app %d: %w", action, appID, ErrNoServerSecret)
	for _, secret := range c.secrets[appID] {
		if err := c.await(ctx, appID, action, query.Get("RoomId")); err != nil {
			return fmt.Errorf("zego: %s of app %d: wait for its turn: %w", action, appID, err)
		}
		err = c.callWith(ctx, appID, secret, action, query, data)
		if refused := new(APIError); !errors.As(err, &refused) || refused.Code != wrongSignature {
			return err
		}
	}
	return err
}

// await waits until the limits allow a call.
func (c *Client) await(ctx context.Context, appID uint32, action, room string) error {
	app := fmt.Sprintf("%d %s", appID, action)
	if action != "DescribeUserList" {
		return c.turn(ctx, app, tenASecond)
	}
	if err := c.turn(ctx, app+" "+room, listsInARoom); err != nil {
		return err
	}
	return c.turn(ctx, app, listsInAnApp)
}

// turn waits until nobody else has called within the pause.
func (c *Client) turn(ctx context.Context, kind string, pause time.Duration) error {
	c.mu.Lock()
	if len(c.turns) > forgetTurnsAt {
		maps.DeleteFunc(c.turns, func(_ string, turns *rate.Limiter) bool { return turns.Tokens() >= 1 })
	}
	turns := c.turns[kind]
	if turns == nil {
		turns = rate.NewLimiter(rate.Every(pause), 1)
		c.turns[kind] = turns
	}
	c.mu.Unlock()
	return turns.Wait(ctx)
}

// answer is what all of the API's answers are like.
type answer struct {
	Code      *int64          `json:"Code"`
	Message   string          `json:"Message"`
	RequestID json.RawMessage `json:"RequestId"` // a string, or a number beyond 2^53
	Data      json.RawMessage `json:"Data"`
}

// mostAnswer is how much of an answer is read; 200 users are some dozens of KB.
const mostAnswer = 4 << 20

func (c *Client) callWith(ctx context.Context, appID uint32, secret, action string, query url.Values, data any) error {
	fault := func(what string, err error) error {
		return fmt.Errorf("zego: %s of app %d: %s: %w", action, appID, what, err)
	}
	nonce, timestamp := make([]byte, 8), c.now().Unix()
	_, _ = rand.Read(nonce) // never fails
	query = maps.Clone(query)
	query.Set("Action", action)
	query.Set("AppId", strconv.FormatUint(uint64(appID), 10))
	query.Set("SignatureNonce", hex.EncodeToString(nonce))
	query.Set("Timestamp", strconv.FormatInt(timestamp, 10))
	query.Set("SignatureVersion", "2.0")
	signature := SignRequest(appID, query.Get("SignatureNonce"), secret, timestamp)
	query.Set("Signature", signature)
	u := *c.base
	u.Path, u.RawQuery = "/"+strings.TrimPrefix(u.Path, "/"), query.Encode()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fault("make the request", errors.Unwrap(err))
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		// The error of package http has the URL in it, and so the signature.
		if at := new(url.Error); errors.As(err, &at) {
			err = at.Err
		}
		return fault("ask "+c.base.Host, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer+1))
	switch {
	case err != nil:
		return fault("read the answer", err)
	case len(body) > mostAnswer:
		return fault("read the answer", fmt.Errorf("it has more than %d bytes", mostAnswer))
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Code == nil {
		// A proxy, perhaps, or a page that says to log in.
		return &APIError{Action: action, AppID: appID, Status: response.StatusCode}
	}
	if *a.Code != 0 || response.StatusCode/100 != 2 {
		return &APIError{action, appID, response.StatusCode, *a.Code,
			shorten(strings.NewReplacer(secret, "…", signature, "…").Replace(a.Message)), shorten(strings.Trim(string(a.RequestID), `"`))}
	}
	if err := json.Unmarshal(a.Data, data); err != nil {
		return fault("read the answer's Data", err)
	}
	return nil
}

// shorten keeps what others wrote short, and on one line.
func shorten(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return -1 // a terminal could act on it
		}
		return r
	}, strings.ToValidUTF8(s, ""))), " ")
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}
