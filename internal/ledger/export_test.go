package ledger

import "testing"

// SmallPages has bills listed in pages of a few, until the test ends.
func SmallPages(t *testing.T, size int) {
	before := billsPage
	billsPage = size
	t.Cleanup(func() { billsPage = before })
}

// Forget takes out of the database what says that it was migrated.
func (l *Ledger) Forget(t *testing.T) {
	if _, err := l.db.Exec("DELETE FROM " + versions + " WHERE version_id > 0"); err != nil {
		t.Fatal(err)
	}
}
