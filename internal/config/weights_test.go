package config

import "testing"

func TestAppWeights(t *testing.T) {
	got, err := parseWeights(" 1=5 ; 4294967295=0.001;")
	if err != nil || len(got) != 2 || got[1] != 5 || got[4294967295] != 0.001 {
		t.Errorf("%v, %v", got, err)
	}
	for _, wrong := range []string{"1", "1=", "=5", "1=0", "1=1001", "1=NaN", "x=1", "4294967296=1", "1=2;1=3"} {
		if got, err := parseWeights(wrong); err == nil {
			t.Errorf("%q: %v", wrong, got)
		}
	}
}
