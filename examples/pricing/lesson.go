package main

import (
	"time"

	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/zego"
)

// teacher is the user_role that the app gives to teachers in the LiveRoom SDK.
const teacher zego.Code = "1"

// Lesson charges each pupil per stay, in blocks of 15 minutes begun, and the host, who is
// the teacher, a fee for the room.
func Lesson(s pricing.Session) ([]pricing.Line, error) {
	const block, perBlock, room = 15 * time.Minute, 400, 150
	var lines []pricing.Line
	for p := range s.Participants {
		if p.Role == teacher { // a price per role
			lines = append(lines, pricing.Line{Payer: p.User, Description: "room", Quantity: 1, Unit: "lesson", UnitPrice: room, Amount: room, Currency: "EUR"})
			continue
		}
		blocks := int64(0)
		for _, stay := range p.Stays { // rounding per stay
			if in := stay.Logout.Time.Sub(stay.Login.Time); in > 0 {
				blocks += int64((in + block - 1) / block)
			}
		}
		if blocks > 0 {
			lines = append(lines, pricing.Line{Payer: p.User, Description: "lesson", Quantity: blocks, Unit: "block of 15 minutes",
				UnitPrice: perBlock, Amount: blocks * perBlock, Currency: "EUR"})
		}
	}
	return lines, nil
}
