package session_test

import (
	"encoding/json"
	"testing"

	"github.com/closeouthq/closeout/session"
)

func TestReasonsRoundTrip(t *testing.T) {
	for r := range session.Reasons(1 << 18) {
		if back := session.ParseReasons(r.String()); back != r {
			t.Fatalf("%q is %q", r, back)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back session.Reasons
		if err := json.Unmarshal(b, &back); err != nil || back != r {
			t.Fatalf("%s is %q, %v", b, back, err)
		}
	}
	if b, _ := json.Marshal(session.Reasons(0)); string(b) != "[]" {
		t.Errorf("none: %s", b)
	}
	var newer session.Reasons
	if err := json.Unmarshal([]byte(`["no_login", "in_version_9"]`), &newer); err != nil || newer != session.NoLogin|session.OtherReason {
		t.Errorf("a reason of a newer version: %q, %v", newer, err)
	}
}
