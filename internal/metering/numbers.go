package metering

import "github.com/closeouthq/closeout/session"

// Numbers are those of a session's callbacks of stays, or of streams.
type Numbers struct {
	// First and Last are the lowest and the highest, and Distinct is how many there are in
	// all.
	First, Last, Distinct int64
	// Repeated reports that two callbacks have the same one.
	Repeated bool
	// Unnumbered is how many stays have an end without one, or with several.
	Unnumbered int64
	// Stated is how many stays lack the callback of their beginning, between First and Last,
	// and have its time from that of their end. Nothing is lost with it.
	Stated int64
	// Open is how many stays lack the callback of their end.
	Open int64
}

// Gaps returns how many numbers between First and Last are missing.
func (n Numbers) Gaps() int64 {
	if n.Distinct == 0 {
		return 0
	}
	return n.Last - n.First + 1 - n.Distinct
}

// Completeness returns what the numbers prove. A callback that ends a stay, and is missing,
// may be in a gap or after Last; others are in gaps.
func (n Numbers) Completeness() session.Completeness {
	if n.Distinct == 0 || n.Repeated || n.Unnumbered > 0 {
		return session.Completeness{}
	}
	return session.Completeness{Known: true, Missing: max(n.Gaps()-n.Stated, n.Open)}
}
