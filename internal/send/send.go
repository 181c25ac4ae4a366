// Package send plays ZEGO for one room: it signs the room's callbacks and posts them, with ZEGO's retries.
package send

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// Ladder lists the pauses before ZEGO's retries, each counted from the end of the attempt before. After the last
// one ZEGO drops the callback.
var Ladder = [...]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}

// roomLife is how long a room was open before its room_close.
const roomLife = 10 * time.Minute

// maxAnswer bounds how much of an answer is read and shown.
const maxAnswer = 4096

// Sender posts callbacks of one app, and counts them.
type Sender struct {
	// URL is the webhook's address. Its path may end in a secret, which is never shown.
	URL string
	// Secret is the app's callback secret.
	Secret string
	// Timeout bounds one attempt.
	Timeout time.Duration
	// Once turns off retries.
	Once bool
	// Transport carries the requests; [http.DefaultTransport] if nil.
	Transport http.RoundTripper
	// Report is called with a line about each attempt, and the name of its callback.
	Report func(name, line string)

	// Sent and Lost count callbacks, acknowledged or not, and those that were not.
	Sent, Lost int
	// NoAnswer reports that the last attempt got no answer.
	NoAnswer bool
}

// CheckURL reports why callbacks cannot be posted to an address, without showing it.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch bad := new(url.Error); {
	case errors.As(err, &bad):
		return bad.Err
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("want an address like http://localhost:8080" + webhook.Path)
	}
	return nil
}

// Events returns the callbacks of a room that closes, in the order of time: room_create, room_login and room_logout of
// each participant, a stream of the first one, the upload of recording unless that is nil, and room_close. Repeats have
// the same content.
func Events(closed zego.RoomClose, participants int, recording *zego.Recording) []zego.Event {
	closed.Event = zego.EventRoomClose
	end := closed.RoomCloseTime.UTC().Truncate(time.Millisecond)
	closed.RoomCloseTime = end
	begin := end.Add(-roomLife)
	common := func(event string) zego.Common { return zego.Common{Event: event, AppID: closed.AppID} }
	seq := func(n int) zego.Sequence { return zego.Sequence{Number: uint64(n + 1), Valid: true} }
	var logins, logouts []zego.Event
	for n := range participants {
		// Later ones come in the first half of the room's life, and leave in its last quarter.
		later := roomLife * time.Duration(n) / time.Duration(2*participants)
		login := zego.RoomLogin{Common: common(zego.EventRoomLogin), RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID,
			UserAccount: fmt.Sprint("user-", n+1), Nickname: fmt.Sprint("User ", n+1), SessionID: fmt.Sprintf("%d-%d", closed.RoomSessionID, n+1),
			LoginTime: begin.Add(later.Truncate(time.Millisecond)), UserRole: "1", UserUpdateSeq: seq(n)}
		logout := &zego.RoomLogout{RoomLogin: login, LogoutTime: end.Add(-(later / 2).Truncate(time.Millisecond))}
		logout.Common, logout.UserUpdateSeq = common(zego.EventRoomLogout), seq(2*participants-1-n)
		logins, logouts = append(logins, &login), append(logouts, logout)
	}
	slices.Reverse(logouts) // who came last leaves first
	events := append([]zego.Event{&zego.RoomCreate{Common: common(zego.EventRoomCreate), RoomID: closed.RoomID,
		RoomSessionID: closed.RoomSessionID, RoomCreateTime: begin}}, logins...)
	if participants > 0 {
		stream := zego.StreamCreate{Common: common(zego.EventStreamCreate), RoomID: closed.RoomID, RoomSessionID: closed.RoomSessionID,
			UserID: "user-1", UserName: "User 1", StreamSID: fmt.Sprintf("%d-microphone", closed.RoomSessionID), StreamID: "user-1-microphone",
			StreamSeq: seq(0), CreateTime: begin.Add(roomLife / 2)}
		ended := &zego.StreamClose{StreamCreate: stream, CloseTime: begin.Add(roomLife * 7 / 10)}
		ended.Common, ended.StreamSeq = common(zego.EventStreamClose), seq(1)
		events = append(events, &stream, ended)
	}
	events = append(events, logouts...)
	if recording != nil {
		events = append(events, recording)
	}
	return append(events, &closed)
}

// Send posts a callback until it is acknowledged, ZEGO would drop it, or ctx ends.
func (s *Sender) Send(ctx context.Context, event zego.Event) error {
	head := event.Head()
	head.Timestamp, head.Nonce = time.Now().Unix(), nonce()
	head.Signature = zego.Sign(s.Secret, head.Timestamp, head.Nonce)
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode %s: %w", head.Event, err)
	}
	return s.Post(ctx, head.Event, body)
}

// Post posts a signed body, such as [Resign] returns, as [Sender.Send] does.
func (s *Sender) Post(ctx context.Context, name string, body []byte) error {
	for n := 0; ; n++ {
		acknowledged, text := s.attempt(ctx, body)
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("stopped before all was sent: %w", err)
		}
		last := s.Once || n == len(Ladder)
		switch {
		case acknowledged:
		case !last:
			text += fmt.Sprintf("; again in %v", Ladder[n])
		case !s.Once:
			text += "; ZEGO would now drop it"
		}
		s.Report(name, fmt.Sprintf("attempt %d: %s", n+1, text))
		if acknowledged || last {
			if s.Sent++; !acknowledged {
				s.Lost++
			}
			return nil
		}
		select {
		case <-time.After(Ladder[n]):
		case <-ctx.Done():
			return fmt.Errorf("stopped before all was sent: %w", context.Cause(ctx))
		}
	}
}

// attempt posts a body once. As ZEGO, it takes every 2XX for an acknowledgement, and follows no redirect.
func (s *Sender) attempt(ctx context.Context, body []byte) (acknowledged bool, text string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(body))
	if err != nil {
		return false, "no request can be made to the address"
	}
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: s.Timeout, Transport: s.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	s.NoAnswer = err != nil
	if failed := new(url.Error); errors.As(err, &failed) {
		if failed.Timeout() {
			return false, fmt.Sprintf("no answer within %v", s.Timeout)
		}
		return false, s.line(failed.Err.Error()) // the error around it shows the address
	}
	if err != nil {
		return false, s.line(err.Error())
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // the status decides
	return response.StatusCode/100 == 2, s.line(response.Status + " " + string(answer))
}

// line makes a line of foreign text, without the secret at the end of the address, which an answer may repeat.
func (s *Sender) line(text string) string {
	if u, err := url.Parse(s.URL); err == nil {
		for _, path := range []string{u.Path, u.EscapedPath()} {
			if _, secret, _ := strings.Cut(path, webhook.Path+"/"); secret != "" {
				text = strings.ReplaceAll(text, secret, "...")
			}
		}
	}
	return printable.Foreign(text, maxAnswer)
}

func nonce() string { return strconv.FormatUint(rand.Uint64()>>1, 10) }
