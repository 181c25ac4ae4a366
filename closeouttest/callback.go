package closeouttest

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// The app of the callbacks, and its secret.
const (
	AppID  = 1
	Secret = "secret"
)

// RoomClose returns a room_close of a new session, as if ZEGO had just sent it, signed with
// [Secret]. The changes are applied before it is signed.
func RoomClose(changes ...func(*zego.RoomClose)) *zego.RoomClose {
	now := time.Now()
	c := &zego.RoomClose{
		Common: zego.Common{Event: zego.EventRoomClose, AppID: AppID, Timestamp: now.Unix(), Nonce: strconv.FormatUint(rand.Uint64(), 10)},
		RoomID: "lobby",
		// A float or a signed integer can't hold this number.
		RoomSessionID: rand.Uint64() | 1<<63 | 1,
		CloseReason:   zego.CloseNormal,
		RoomCloseTime: now.UTC().Truncate(time.Millisecond),
	}
	for _, change := range changes {
		change(c)
	}
	c.Signature = zego.Sign(Secret, c.Timestamp, c.Nonce)
	return c
}

// Session returns a new session as a Workflow gets it.
func Session(changes ...func(*zego.RoomClose)) session.Session {
	return session.Of(RoomClose(changes...))
}

// Request returns the request with which ZEGO posts the callback to [webhook.Path].
func Request(c *zego.RoomClose) *http.Request {
	body, err := c.MarshalJSON()
	if err != nil {
		panic(err) // every RoomClose can be encoded
	}
	r := httptest.NewRequest(http.MethodPost, webhook.Path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// Keyring returns a keyring that verifies the callbacks.
func Keyring() *zego.Keyring {
	k, err := zego.NewKeyring(map[uint32][]string{AppID: {Secret}}, 10*time.Minute, time.Now)
	if err != nil {
		panic(err) // the app and its secret are constants
	}
	return k
}
