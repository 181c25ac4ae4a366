package cli

import (
	"math"
	"slices"
	"testing"
)

func TestSumsOfAmountsDoNotOverflow(t *testing.T) {
	sums := amounts{}
	for range 3 {
		sums.add("EUR", math.MaxInt64)
	}
	sums.subtract("USD", 5)
	if got := sums.texts(); !slices.Equal(got, []string{"EUR 27670116110564327421 (minor units)", "USD -0.05"}) {
		t.Errorf("%q", got)
	}
}
