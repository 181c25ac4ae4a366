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

// Alice's logout arrives after the bill, which counted her for an hour.
func TestALateLogoutCorrectsAliceAndTheSharesOfHer(t *testing.T) {
	host := closeouttest.Participant("harry", time.Hour, 30*time.Minute)
	bob := closeouttest.Participant("bob", 15*time.Minute, 0)
	lines, _ := closeouttest.PriceAdjustment(t, Price,
		closeouttest.PricedSession(closeouttest.Participant("alice", time.Hour, 0), bob, host),
		closeouttest.PricedSession(closeouttest.Participant("alice", 15*time.Minute, 0), bob, host))
	if len(lines) != 2 || lines[0].Payer != "alice" || lines[0].Amount != -900 || lines[1].Payee != "harry" || lines[1].Amount != 630 {
		t.Errorf("%+v", lines)
	}
}
