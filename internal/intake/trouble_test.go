package intake

import (
	"testing"
	"time"
)

func TestTrouble(t *testing.T) {
	fail := func(tr *trouble) { tr.fail() }
	inVain := func(tr *trouble) { tr.unanswered.Add(1) }
	quick := func(tr *trouble) { tr.succeed(true) }
	slow := func(tr *trouble) { tr.succeed(false) }
	longAgo := func(tr *trouble) { tr.failed.Store(time.Now().Add(-recovery).UnixNano()) }
	times := func(n int, f func(*trouble)) func(*trouble) {
		return func(tr *trouble) {
			for range n {
				f(tr)
			}
		}
	}
	tests := []struct {
		name   string
		events []func(*trouble)
		want   bool
	}{
		{"at the start", nil, false},
		{"one waited in vain", []func(*trouble){inVain}, false},
		{"two did", []func(*trouble){inVain, inVain}, true},
		{"two did, and one between them didn't", []func(*trouble){inVain, slow, inVain}, false},
		{"a start failed", []func(*trouble){fail}, true},
		{"and another was quick", []func(*trouble){fail, quick}, true},
		{"and enough were quick", []func(*trouble){fail, times(calm, quick)}, false},
		{"but one in between was slow", []func(*trouble){fail, times(calm-1, quick), slow, quick}, true},
		{"enough were quick, and one was slow", []func(*trouble){fail, times(calm, quick), slow}, true},
		{"it was long ago", []func(*trouble){fail, slow, longAgo}, false},
		{"it failed again", []func(*trouble){fail, times(calm, quick), fail}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tr trouble
			for _, event := range tt.events {
				event(&tr)
			}
			if got := tr.is(); got != tt.want {
				t.Errorf("trouble: %v", got)
			}
		})
	}
}

// Before anything is known of how long a start takes, and when all is well, a
// sender waits for as long as it may; in trouble for as long as a quick start takes.
func TestPatience(t *testing.T) {
	i := &Intake{}
	if got := i.patience(); got != patience {
		t.Errorf("at the start %v", got)
	}
	i.trouble.fail()
	if got := i.patience(); got != patience {
		t.Errorf("when nothing is known %v", got)
	}
	i.fastest.add(10 * time.Millisecond)
	if got := i.patience(); got != patienceFactorBusy*10*time.Millisecond {
		t.Errorf("in trouble %v", got)
	}
	i.fastest.add(time.Millisecond)
	if got := i.patience(); got != leastPatienceBusy {
		t.Errorf("in trouble, with a quick Temporal, %v", got)
	}
	i.trouble = trouble{}
	if got := i.patience(); got != patience {
		t.Errorf("when all is well %v", got)
	}
}
