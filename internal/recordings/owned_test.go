package recordings

import (
	"strings"
	"testing"

	"github.com/closeouthq/closeout/session"
)

func prefix(t *testing.T, text string) Prefix {
	t.Helper()
	p, err := ParsePrefix(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSessionOwnsOnlyKeysOfItsAppAndPrefix(t *testing.T) {
	place, err := prefix(t, "zego/{{.room_id}}/").Of(session.Session{ID: session.ID{AppID: 7, RoomSessionID: 1}, RoomID: "lobby"})
	if err != nil {
		t.Fatal(err)
	}
	owned, ok := place.Own(7, "zego/lobby/kept/")
	if !ok {
		t.Fatal("it has none")
	}
	for key, want := range map[string]bool{
		"7/1/a.mp4": true, "7/2/a.mp4": true, "zego/lobby/a.mp4": true, "zego/lobby/in/a.mp4": true, "zego/lobby/ü +&.mp4": true, `7/1/a\b.mp4`: true,
		"8/1/a.mp4": false, "77/1/a.mp4": false, "07/1/a.mp4": false, "a.mp4": false, "zego/a.mp4": false, "zego/lobby2/a.mp4": false, "zego/lobby/kept/a": false, "zego/lobby/kept/7/1/manifest.json": false,
		"7/../8/1/a": false, "7/./a": false, "7//a": false, "/7/1/a": false, "7/1/a/": false, "": false, "7/1/a\\..\\b": false, "7/1/a\nb": false, "7/1/\xff": false, "7/" + strings.Repeat("a", 1024): false,
		`8\1\a.mp4`: false, `zego\lobby\kept\a`: false, `zego/lobby\kept/a`: false, `7\..\8/a`: false,
	} {
		if got := owned.Has(key); got != want {
			t.Errorf("%q: %v, want %v", key, got, want)
		}
	}
}

// A room's name may be anything, but never leads to another app's folder.
func TestRoomNameLeadsToNoOtherFolder(t *testing.T) {
	for _, tt := range []struct {
		prefix, room string
		want         bool
	}{
		{"{{.room_id}}/", "lobby", true}, {"{{.room_id}}/", "7/5", true}, {"zego/{{.room_id}}/", "8/5", true}, {"/", "8/5", true},
		{"{{.room_id}}/", "8/5", false}, {"{{.room_id}}/", "..", false}, {"zego/{{.room_id}}/", "../8/5", false}, {"zego/{{.room_id}}/", "kept", false},
		{"zego/{{.room_id}}/", "a//b", false}, {"zego/{{.room_id}}/", "a\nb", false},
	} {
		place, err := prefix(t, tt.prefix).Of(session.Session{ID: session.ID{AppID: 7, RoomSessionID: 1}, RoomID: tt.room})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := place.Own(7, "zego/kept/"); ok != tt.want {
			t.Errorf("%s of %q: %v, want %v", tt.prefix, tt.room, ok, tt.want)
		}
	}
}

func TestAppFolderBelongsToOneApp(t *testing.T) {
	for text, want := range map[string]string{
		"{{.appid}}/{{.room_session_id}}/": "7/", "zego/{{.appid}}/{{.room_id}}/": "zego/7/", "{{.appid}}/": "7/", "a/{{.appid}}/b/{{.room_id}}": "a/7/",
		"/": "", "zego/": "", "zego/{{.room_id}}/": "", "{{.room_id}}/{{.appid}}/": "", "{{.appid}}-{{.room_id}}/": "", "zego-{{.appid}}/": "", "7/": "", "{{.appid}}": "",
	} {
		if got := prefix(t, text).AppFolder(7); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := (Prefix{}).AppFolder(7); got != "7/" {
		t.Errorf("by default %q", got)
	}
}
