package metering

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Exclude returns why a user is not a participant, or "" for a participant.
type Exclude func(session.Participant) string

// Rules decide which users are not participants.
type Rules struct {
	// List holds the rules of the setting. The first match excludes a user.
	List []Rule
	// Func, if set, is called for users that no rule excludes.
	Func func(session.Session, session.Participant) string
}

// A Rule excludes users.
type Rule struct {
	// App restricts the rule to one app; 0 means all.
	App uint32
	// Auto excludes users with role 4 that have not published, if another user of the session
	// has another role. That shows an app of the LiveRoom SDK, where roles have a meaning.
	Auto bool
	// Role excludes users with this role, unless empty.
	Role zego.Code
	// User excludes users with a matching name. * stands for any text.
	User string
}

// Default is the default of the setting.
var Default = Rules{List: []Rule{{Auto: true}}}

// ParseRules parses rules separated by commas: role=auto, role=<number> or user=<pattern>.
// The prefix <appid>: restricts a rule to one app. The text none means no rules.
func ParseRules(text string) (r Rules, err error) {
	if strings.TrimSpace(text) == "none" {
		return r, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		fail := func(problem string) (Rules, error) {
			return Rules{}, fmt.Errorf("rule %q: %s; want role=auto, role=<number> or user=<pattern>, with <appid>: in front for one app, or none", part, problem)
		}
		var rule Rule
		rest := part
		if app, after, ok := strings.Cut(part, ":"); ok && !strings.Contains(app, "=") {
			n, err := strconv.ParseUint(app, 10, 32)
			if err != nil || n == 0 {
				return fail("found no appid before the colon")
			}
			rule.App, rest = uint32(n), after
		}
		kind, value, _ := strings.Cut(rest, "=")
		switch {
		case kind == "user" && value != "":
			rule.User = value
		case kind == "role" && value == "auto":
			rule.Auto = true
		case kind == "role":
			if n, err := strconv.ParseUint(value, 10, 32); err != nil || n == 0 {
				return fail("found no role after the equals sign")
			}
			rule.Role = zego.Code(strings.TrimLeft(value, "0"))
		default:
			return fail("found neither a role nor a user")
		}
		r.List = append(r.List, rule)
	}
	if len(r.List) == 0 {
		return r, errors.New("found no rule")
	}
	return r, nil
}

// Auto reports whether role=auto applies to the app.
func (r Rules) Auto(app uint32) bool {
	for _, rule := range r.List {
		if rule.Auto && (rule.App == 0 || rule.App == app) {
			return true
		}
	}
	return false
}

// Of returns the function that excludes users of a session.
func (r Rules) Of(s session.Session, room Room) Exclude {
	return func(p session.Participant) string {
		for _, rule := range r.List {
			if rule.App != 0 && rule.App != s.AppID {
				continue
			}
			switch {
			case rule.Auto && room.Roles && p.Role == zego.RoleService && len(p.Streams) == 0:
				return "role 4"
			case rule.Role != "" && p.Role == rule.Role:
				return "role " + string(rule.Role)
			case rule.User != "" && matches(rule.User, p.User):
				return "user " + rule.User
			}
		}
		if r.Func != nil {
			return r.Func(s, p)
		}
		return ""
	}
}

// matches reports whether text matches pattern, where * stands for any text.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	text, ok := strings.CutPrefix(text, parts[0])
	if len(parts) == 1 || !ok {
		return ok && text == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(text, part)
		if !found {
			return false
		}
		text = after
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
