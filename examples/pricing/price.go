package main

import "github.com/closeouthq/closeout/pricing"

const (
	freeMinutes = 5
	perMinute   = 20 // cents
	hostsShare  = 70 // percent
)

// Price charges listeners and pays hosts. The platform keeps the rest.
func Price(s pricing.Session) ([]pricing.Line, error) {
	var lines []pricing.Line
	var hosts []string
	var microphone []int64 // milliseconds of each host
	charged := int64(0)
	for p := range s.Participants {
		if p.Published.Millis > 0 {
			hosts, microphone = append(hosts, p.User), append(microphone, p.Published.Millis)
			continue
		}
		minutes := p.InRoom.Minutes() - freeMinutes
		if minutes <= 0 {
			continue
		}
		lines = append(lines, pricing.Line{Payer: p.User, Description: "listening, five minutes free",
			Quantity: minutes, Unit: "minute", UnitPrice: perMinute, Amount: minutes * perMinute, Currency: "EUR"})
		charged += minutes * perMinute
	}
	for i, share := range pricing.Split(charged*hostsShare/100, microphone) {
		lines = append(lines, pricing.Line{Payee: hosts[i], Description: "70 % of the charges by microphone time",
			Quantity: microphone[i] / 1000, Unit: "second", Amount: -share, Currency: "EUR"})
	}
	return lines, nil
}
