package main

import (
	"testing"
	"time"

	"github.com/closeouthq/closeout/closeouttest"
)

func TestHostsAreSharedTheChargesByMicrophoneTime(t *testing.T) {
	session := closeouttest.PricedSession(
		closeouttest.Participant("alice", 14*time.Minute+time.Second, 0), // 15 minutes begun
		closeouttest.Participant("bob", 5*time.Minute, 0),
		closeouttest.Participant("harry", time.Hour, 30*time.Minute),
		closeouttest.Participant("hanna", time.Hour, 10*time.Minute),
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
