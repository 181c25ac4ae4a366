package activities

import (
	"context"
	"fmt"
	"strings"

	"github.com/closeouthq/closeout/pricing"
)

// Standard names the standard steps, for Workflows that start them and for tests
// that mock them.
var Standard = &Steps{}

// Steps are the standard steps. Every worker runs them; the methods here only name
// them, and fail when called.
type Steps struct{}

// FinalizeBill makes the session's bill in the ledger and posts it to the billing API, if
// one is set. A repeat returns the same bill.
func (*Steps) FinalizeBill(context.Context, Task) (bill Bill, err error) { return bill, errOnlyNamed }

// AdjustBill adjusts the bill for callbacks that arrived after billing. Adjustments of a
// session are numbered from 1. A repeat returns the same adjustment.
func (*Steps) AdjustBill(_ context.Context, _ Task, number int) (adjusted Adjusted, err error) {
	return adjusted, errOnlyNamed
}

// ArchiveRecordings copies the session's recordings to the archive, verifies each copy,
// and writes the manifest. It waits while recordings are missing.
func (*Steps) ArchiveRecordings(context.Context, Task) (archived Archived, err error) {
	return archived, errOnlyNamed
}

// AddRecordings archives recordings that were reported after the manifest was written,
// and writes the next manifest.
func (*Steps) AddRecordings(context.Context, Task) (archived Archived, err error) {
	return archived, errOnlyNamed
}

var errOnlyNamed = Blockedf("activities.Standard only names the standard steps; a worker of package closeout runs them")

// Bill is the result of [Steps.FinalizeBill].
type Bill struct {
	// Bill is the bill as it is posted to the billing API.
	pricing.Bill
	// Posted reports whether the billing API has the bill.
	Posted bool `json:"posted"`
	// Waiting is set while the bill waits for missing callbacks.
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Waits implements [Waiter].
func (b Bill) Waits() *Waiting { return b.Waiting }

// String describes the bill in a few words.
func (b Bill) String() string { return b.Bill.String() + atAPI(b.Posted) }

func atAPI(posted bool) string {
	if posted {
		return "; also at the billing API"
	}
	return ""
}

// Adjusted is the result of [Steps.AdjustBill].
type Adjusted struct {
	// Adjustment is the adjustment as it is posted to the billing API.
	pricing.Adjustment
	// Posted reports whether the billing API has the adjustment.
	Posted bool `json:"posted"`
	// Nothing reports that there was nothing to adjust.
	Nothing bool `json:"nothing,omitempty"`
}

// String describes the adjustment in a few words.
func (a Adjusted) String() string {
	if a.Nothing {
		return "nothing to adjust"
	}
	amount := ""
	if a.Charge.Currency != "" {
		amount = ", " + pricing.Format(a.Charge.Currency, a.Difference.Amount)
	}
	return fmt.Sprintf("adjustment %d of bill %s, by %+d s, %+d min%s, now %s%s",
		a.Number, a.Bill.ID, a.Difference.Seconds, a.Difference.Minutes, amount, a.Figures(), atAPI(a.Posted))
}

// Archived is the result of [Steps.ArchiveRecordings] and [Steps.AddRecordings].
type Archived struct {
	// Manifest is the manifest's key in the archive.
	Manifest string `json:"manifest"`
	// Files and Bytes count the session's recordings.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Links are the addresses of the manifest and the first recordings: s3://bucket/key or
	// a file's path.
	Links []string `json:"links,omitempty"`
	// Lost names the first of the LostFiles recordings that ZEGO failed to upload.
	Lost      []string `json:"lost,omitempty"`
	LostFiles int      `json:"lost_files,omitempty"`
	// Waiting is set while recordings are missing.
	Waiting *Waiting `json:"waiting,omitempty"`
}

// Waits implements [Waiter].
func (a Archived) Waits() *Waiting { return a.Waiting }

// String describes the archive in a few words.
func (a Archived) String() string {
	const maxNames = 5
	text := fmt.Sprintf("%d recordings of %d bytes", a.Files, a.Bytes)
	switch a.Files {
	case 0:
		text = "no recordings"
	case 1:
		text = fmt.Sprintf("1 recording of %d bytes", a.Bytes)
	}
	if len(a.Lost) > 0 {
		names := strings.Join(a.Lost[:min(len(a.Lost), maxNames)], "; ")
		if more := len(a.Lost) - maxNames; more > 0 {
			names += fmt.Sprintf("; and %d more", more)
		}
		text += fmt.Sprintf(", %d lost (%s)", a.LostFiles, names)
	}
	return text + ", see " + a.Manifest
}
