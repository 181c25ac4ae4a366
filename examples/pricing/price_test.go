package main

import (
	"testing"
	"time"

	"github.com/closeouthq/closeout/closeouttest"
)

func TestHostsAreSharedTheChargesByMicrophoneTime(t *testing.T) {
	session := closeouttest.PricedSession(
		closeouttest.Stayed("alice", 14*time.Minute+time.Second, 0), // 15 minutes begun
		closeouttest.Stayed("bob", 5*time.Minute, 0),
		closeouttest.Stayed("harry", time.Hour, 30*time.Minute),
		closeouttest.Stayed("hanna", time.Hour, 10*time.Minute),
	)
	lines, platform := closeouttest.Price(t, Price, session)
	amounts := map[string]int64{}
	for _, l := range lines {
		amounts[l.Payer+l.Payee] = l.Amount
	}
	if len(lines) != 3 || amounts["alice"] != 200 || amounts["harry"] != -105 || amounts["hanna"] != -35 || platform != 60 {
		t.Errorf("the platform keeps %d of %+v", platform, lines)
	}
}
