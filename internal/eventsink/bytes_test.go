package eventsink_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/zego"
)

// big returns a recording callback of a megabyte.
func big(n int) *zego.Recording {
	r := &zego.Recording{Common: zego.Common{AppID: 1}, RoomID: "r", TaskID: fmt.Sprintf("%016d", n), EventType: zego.RecordingUploaded}
	for i := range 1000 {
		r.Files = append(r.Files, zego.RecordedFile{FileID: fmt.Sprint(i), URL: strings.Repeat("u", 1000), Status: zego.FileUploaded})
	}
	return r
}

// However many large callbacks wait, only a part of them is in memory, even if the ledger
// hangs.
func TestMemoryOfLargeCallbacksIsBounded(t *testing.T) {
	const callbacks, most = 150, 128 << 20
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b, box := &fakeLedger{answer: always(errGone)}, newInbox(t)
	c := newDelivery(t, b, box)
	for n := range callbacks {
		collected(t, c, big(n))
	}
	before := heap()
	release := make(chan struct{})
	var taken atomic.Int64
	b.set(func([]ledger.Event) error {
		if taken.Add(1) > 3 { // hang after the breaker has closed
			<-release
		}
		return nil
	})
	relay(t, c)
	last, same := 0, 0
	wait(t, "the relay has as many deliveries in flight as it may", func() bool {
		_, now := c.Load()
		if same++; now != last || now == 0 {
			last, same = now, 0
		}
		return same > 100
	})
	if now := heap(); now > before+most {
		t.Errorf("while the ledger hangs %d deliveries have %d MB", last, (now-before)>>20)
	}
	close(release)
	b.set(func([]ledger.Event) error { return nil })
	wait(t, "all are stored", func() bool { waiting, _ := stats(t, box); return waiting == 0 })
}
