package metering

import "github.com/closeouthq/closeout/session"

// Numbers summarizes the sequence numbers of a session's login and logout callbacks, or of
// its stream callbacks.
type Numbers struct {
	// First and Last are the lowest and the highest number. Distinct counts the different
	// ones.
	First, Last, Distinct int64
	// Repeated reports whether two callbacks have the same number.
	Repeated bool
	// Unnumbered counts the stays with an end that has no number, or several.
	Unnumbered int64
	// Stated counts the stays whose first callback is missing between First and Last, but
	// whose last callback states its time. Such a gap loses nothing.
	Stated int64
	// Open counts the stays without the callback of their end.
	Open int64
}

// Gaps returns the number of missing numbers between First and Last.
func (n Numbers) Gaps() int64 {
	if n.Distinct == 0 {
		return 0
	}
	return n.Last - n.First + 1 - n.Distinct
}

// Completeness returns what the numbers prove. The missing end of a stay may be in a gap or
// after Last. Other missing callbacks are in gaps.
func (n Numbers) Completeness() session.Completeness {
	if n.Distinct == 0 || n.Repeated || n.Unnumbered > 0 {
		return session.Completeness{}
	}
	return session.Completeness{Known: true, Missing: max(n.Gaps()-n.Stated, n.Open)}
}
