package intake_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/intake"
	"github.com/closeouthq/closeout/webhook"
)

// A second room_close that tells another room or time is answered as a duplicate, and
// not in silence.
func TestASecondCloseThatContradictsTheFirstIsReported(t *testing.T) {
	for _, first := range []error{nil, errFull} { // started, or queued
		var lines bytes.Buffer
		var outcomes []string
		var contradicted []activities.Session
		i := intake.New(intake.Options{
			Temporal: &starter{answer: always(first)}, Inbox: newInbox(t), TaskQueue: "q", Log: slog.New(slog.NewTextHandler(&lines, nil)),
			Observe: func(outcome string, _ bool) {
				if outcome == "contradicted" {
					outcomes = append(outcomes, outcome)
				}
			},
			Contradicted: func(s activities.Session) { contradicted = append(contradicted, s) },
		})
		t.Cleanup(i.Wait)
		other, later := callback(7), callback(7)
		other.RoomID = "attic"
		later.RoomCloseTime = later.RoomCloseTime.Add(time.Second)
		if _, err := i.RoomClose(t.Context(), callback(7)); err != nil {
			t.Fatal(err)
		}
		for n, c := range slices.Concat(slices.Repeat([]int{0}, 2), []int{1, 2}) {
			event := callback(7)
			switch c {
			case 1:
				event = other
			case 2:
				event = later
			}
			if r, err := i.RoomClose(t.Context(), event); err != nil || r.Status != webhook.Duplicate {
				t.Errorf("callback %d: %+v, %v", n, r, err)
			}
		}
		if len(outcomes) != 2 || len(contradicted) != 2 || contradicted[0].RoomID != "attic" || !contradicted[1].RoomCloseTime.Equal(later.RoomCloseTime) {
			t.Errorf("outcomes %v, contradicted %+v", outcomes, contradicted)
		}
		if n := strings.Count(lines.String(), "room_close contradicts the first of its session"); n != 2 {
			t.Errorf("%d lines in %s", n, lines.String())
		}
	}
}
