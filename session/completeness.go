package session

import "fmt"

// Completeness reports whether callbacks of a session are missing. ZEGO numbers the logins
// and logouts of a session, and the changes of its streams. A gap between the lowest and
// the highest number is a missing callback. ZEGO doesn't document the first and last
// number, so callbacks missing before the lowest or after the highest can't be detected.
type Completeness struct {
	// Known reports whether all callbacks have numbers. The zero Completeness is unknown.
	Known bool
	// Missing is the minimum number of missing callbacks.
	Missing int64
}

// Complete reports whether the numbers have no gap, and every stay and stream has an end.
func (c Completeness) Complete() bool { return c.Known && c.Missing == 0 }

// String returns "complete", "unknown", or "missing" and a number.
func (c Completeness) String() string {
	switch {
	case !c.Known:
		return "unknown"
	case c.Missing == 0:
		return "complete"
	}
	return fmt.Sprintf("missing %d", c.Missing)
}

// MarshalText implements [encoding.TextMarshaler].
func (c Completeness) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Completeness) UnmarshalText(text []byte) error {
	var n int64
	switch s := string(text); {
	case s == "unknown":
		*c = Completeness{}
	case s == "complete":
		*c = Completeness{Known: true}
	default:
		if _, err := fmt.Sscanf(s, "missing %d", &n); err != nil || n < 1 {
			return fmt.Errorf("completeness %q: want complete, unknown, or missing and a number", s)
		}
		*c = Completeness{Known: true, Missing: n}
	}
	return nil
}
