package recordings

import (
	"fmt"
	"strconv"
	"strings"
	"text/template"

	"github.com/closeouthq/closeout/session"
)

// DefaultPrefix is the session's folder. An app can set it as OutputFolder when it starts a
// recording.
const DefaultPrefix = "{{.appid}}/{{.room_session_id}}/"

// Prefix is a template for the key prefix of a session's recordings, with appid, room_id and
// room_session_id. The zero value is [DefaultPrefix].
type Prefix struct{ template *template.Template }

// ParsePrefix parses a prefix and executes it once as a check. "/" is the whole bucket.
func ParsePrefix(text string) (Prefix, error) {
	t, err := template.New("prefix").Option("missingkey=error").Parse(strings.TrimPrefix(text, "/"))
	if err != nil {
		return Prefix{}, fmt.Errorf("found %q, want a template such as %s: %w", text, DefaultPrefix, err)
	}
	p := Prefix{t}
	if _, err := p.of("1", "lobby", "1"); err != nil {
		return Prefix{}, fmt.Errorf("found %q, want a template of appid, room_id and room_session_id, such as %s: %w", text, DefaultPrefix, err)
	}
	return p, nil
}

// Place is the prefix of one session.
type Place struct {
	Prefix string
	// OfRoom and OfSession report whether the prefix is unique to the room, and to the
	// session.
	OfRoom, OfSession bool
}

// Of returns the session's place. It returns an error if the template fails for the room's
// name.
func (p Prefix) Of(s session.Session) (Place, error) {
	app, session := strconv.FormatUint(uint64(s.AppID), 10), strconv.FormatUint(s.RoomSessionID, 10)
	prefix, err := p.of(app, s.RoomID, session)
	if err != nil {
		return Place{}, fmt.Errorf("prefix of the recordings of room %q: %w", s.RoomID, err)
	}
	another, _ := p.of(app, s.RoomID, session+"0")
	elsewhere, _ := p.of(app, s.RoomID+"?", session)
	ofSession := !strings.HasPrefix(another, prefix)
	return Place{prefix, ofSession || !strings.HasPrefix(elsewhere, prefix), ofSession}, nil
}

func (p Prefix) of(appID, roomID, roomSessionID string) (string, error) {
	if p.template == nil {
		return appID + "/" + roomSessionID + "/", nil
	}
	var b strings.Builder
	err := p.template.Execute(&b, map[string]string{"appid": appID, "room_id": roomID, "room_session_id": roomSessionID})
	return b.String(), err
}
