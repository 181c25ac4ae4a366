package metering

import (
	"github.com/closeouthq/closeout/pricing"
)

// Prices holds the prices of all apps.
type Prices struct {
	// Apps holds the apps with their own price.
	Apps map[uint32]pricing.Price
	// Default is the price of the other apps. Without a currency they have none.
	Default pricing.Price
}

// Of returns an app's price.
func (p Prices) Of(app uint32) pricing.Price {
	if price, ok := p.Apps[app]; ok {
		return price
	}
	return p.Default
}
