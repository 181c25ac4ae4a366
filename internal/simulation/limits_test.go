package simulation

import _ "unsafe" // for go:linkname

// limits are limits of the product. Few callbacks reach low ones.
type limits struct {
	page, pageBytes, listed, batch int
	memory, unwritten              int64
	ledgerPage, reconcilePage      int
}

// Variables of the product.
//
//go:linkname relayPage github.com/closeouthq/closeout/internal/delivery.page
//go:linkname pageBytes github.com/closeouthq/closeout/internal/inbox.maxPageBytes
//go:linkname listedBody github.com/closeouthq/closeout/internal/inbox.maxListedBody
//go:linkname maxBatch github.com/closeouthq/closeout/internal/eventsink.maxBatch
//go:linkname maxMemory github.com/closeouthq/closeout/internal/delivery.maxMemory
//go:linkname maxUnwritten github.com/closeouthq/closeout/internal/inbox.maxUnwritten
//go:linkname ledgerPage github.com/closeouthq/closeout/internal/ledger.pageSize
//go:linkname reconcilePage github.com/closeouthq/closeout/internal/reconcile.pageSize
var (
	relayPage, pageBytes, listedBody, maxBatch int
	maxMemory, maxUnwritten                    int64
	ledgerPage, reconcilePage                  int
)

var usual = limits{relayPage, pageBytes, listedBody, maxBatch, maxMemory, maxUnwritten, ledgerPage, reconcilePage}

// limit lowers the limits in a quarter of the seeds, and returns them.
func (h history) limit() limits {
	l, r := usual, h.chance("limits")
	if r.IntN(4) == 0 {
		l = limits{1 + r.IntN(3), 300 + r.IntN(1000), 50 + r.IntN(200), 1 + r.IntN(3), (1 + r.Int64N(16)) << 10, 300 + r.Int64N(1000), 1 + r.IntN(3), 1 + r.IntN(3)}
	}
	relayPage, pageBytes, listedBody, maxBatch, maxMemory, maxUnwritten = l.page, l.pageBytes, l.listed, l.batch, l.memory, l.unwritten
	ledgerPage, reconcilePage = l.ledgerPage, l.reconcilePage
	return l
}
