package session_test

import (
	"encoding/json"
	"testing"

	"github.com/closeouthq/closeout/session"
)

func TestReasonsRoundTrip(t *testing.T) {
	for r := range session.Reasons(1 << 17) {
		if back, err := session.ParseReasons(r.String()); err != nil || back != r {
			t.Fatalf("%q is %q, %v", r, back, err)
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
	if _, err := session.ParseReasons("no_idea"); err == nil {
		t.Error("any word is a reason")
	}
}
