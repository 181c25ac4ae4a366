package ledger

import "testing"

// SmallPages has bills listed in pages of a few, until the test ends.
func SmallPages(t *testing.T, size int) {
	before := billsPage
	billsPage = size
	t.Cleanup(func() { billsPage = before })
}
