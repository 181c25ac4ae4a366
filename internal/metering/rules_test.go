package metering_test

import (
	"testing"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

func TestRulesExcludeUsers(t *testing.T) {
	streams := []session.Stream{{StreamSID: "1"}}
	for _, tt := range []struct {
		rules string
		app   uint32
		user  string
		role  zego.Code
		roles bool // whether others have roles
		does  []session.Stream
		want  string
	}{
		{"role=auto", 1, "r", "4", true, nil, "role 4"},
		{"role=auto", 1, "r", "4", true, streams, ""},
		{"role=auto", 1, "r", "4", false, nil, ""}, // an Express app, or only a recorder
		{"role=auto", 1, "r", "2", true, nil, ""},
		{"role=4", 1, "r", "4", false, streams, "role 4"},
		{"2:role=4", 1, "r", "4", true, nil, ""},
		{"role=auto, user=bot-*", 1, "bot-7", "1", true, nil, "user bot-*"},
		{"user=bot-*", 1, "robot-7", "1", true, nil, ""},
		{"user=*-bot", 1, "7-bot", "1", true, nil, "user *-bot"},
		{"user=a*b*c", 1, "a1b2c", "1", true, nil, "user a*b*c"},
		{"user=a*b*c", 1, "abbc", "1", true, nil, "user a*b*c"},
		{"user=a*ab", 1, "ab", "1", true, nil, ""},
		{"user=agent", 1, "agent", "1", true, nil, "user agent"},
		{"user=agent", 1, "agent2", "1", true, nil, ""},
		{"1:user=agent:*", 1, "agent:x", "1", true, nil, "user agent:*"},
		{"none", 1, "r", "4", true, nil, ""},
	} {
		rules, err := metering.ParseRules(tt.rules)
		if err != nil {
			t.Errorf("%s: %v", tt.rules, err)
			continue
		}
		p := session.Participant{User: tt.user, Role: tt.role, Streams: tt.does}
		if got := rules.Of(session.Session{ID: session.ID{AppID: tt.app}}, metering.Room{Roles: tt.roles})(p); got != tt.want {
			t.Errorf("%s excludes %s of role %s because of %q, want %q", tt.rules, tt.user, tt.role, got, tt.want)
		}
	}
	for _, bad := range []string{"", "bot", "user=", "role=", "role=0", "role=host", "x:role=4", "0:role=4", "role=4,,user=a"} {
		if rules, err := metering.ParseRules(bad); err == nil {
			t.Errorf("%q was parsed as %+v", bad, rules)
		}
	}
}

func TestCountedUserOfRole4MakesAnEstimate(t *testing.T) {
	room := metering.Room{Create: 1, Close: 100, RolesUnclear: true}
	m := metering.NewMeter(room)
	m.Add(metering.User{Account: "r", Stays: []metering.Stay{{ID: "1", Login: 1, Logout: 50, Role: zego.RoleService}}}, metering.Default.Of(session.Session{}, room))
	if f, err := m.Figures(); err != nil || f.Participants != 1 || f.Estimated != session.RolesUnclear {
		t.Errorf("%+v, %v", f, err)
	}
}
