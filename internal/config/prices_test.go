package config_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
)

func TestPrices(t *testing.T) {
	euro, yen := pricing.Price{Currency: "EUR", PerMinute: 2}, pricing.Price{Currency: "JPY", PerMinute: 1}
	for value, want := range map[string]metering.Prices{
		"*=EUR 2":                            {Default: euro},
		"1=EUR 2":                            {Apps: map[uint32]pricing.Price{1: euro}},
		" * = EUR 2 ; 4294967295=JPY 1;":     {Apps: map[uint32]pricing.Price{4294967295: yen}, Default: euro},
		"# what they cost\n1=EUR 2\n2=JPY 1": {Apps: map[uint32]pricing.Price{1: euro, 2: yen}},
		"*=EUR 9223372036854775807":          {Default: pricing.Price{Currency: "EUR", PerMinute: 1<<63 - 1}},
		"1=EUR 0":                            {Apps: map[uint32]pricing.Price{1: {Currency: "EUR"}}},
	} {
		c, err := load(t, map[string]string{"CLOSEOUT_PRICES": value}, nil, false)
		if err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if want.Apps == nil {
			want.Apps = map[uint32]pricing.Price{}
		}
		if !reflect.DeepEqual(c.Prices, want) {
			t.Errorf("%q is %+v, want %+v", value, c.Prices, want)
		}
	}
	for value, want := range map[string]string{
		"EUR 2":                     `found "EUR 2", want appid=currency amount`,
		"x=EUR 2":                   `found "x=EUR 2", want appid=currency amount`,
		"1=EUR":                     "want appid=currency amount",
		"1=EUR 2 3":                 "want appid=currency amount",
		"1=eur 2":                   `in "1=eur 2": found currency "eur", want the three capital letters of an ISO 4217 code`,
		"1=EUX 2":                   `in "1=EUX 2": found currency "EUX"`,
		"1=EUR 0.5":                 `found amount "0.5" in "1=EUR 0.5", want an integer of the currency's minor units`,
		"1=EUR -2":                  `found amount "-2"`,
		"1=EUR 9223372036854775808": `found amount "9223372036854775808"`,
		"1=EUR 2;1=EUR 3":           "app 1 is there twice",
		"*=EUR 2;*=EUR 3":           "app * is there twice",
		"4294967296=EUR 2":          "want appid=currency amount",
	} {
		if _, err := load(t, map[string]string{"CLOSEOUT_PRICES": value}, nil, false); err == nil || !strings.Contains(err.Error(), "CLOSEOUT_PRICES: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", value, err, want)
		}
	}
}

func TestBillsWaitForTheSettlingTimeByDefault(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 90 * time.Second, "0s": 0, "5m": 5 * time.Minute} {
		if c, err := load(t, map[string]string{"CLOSEOUT_SETTLING": value}, nil, false); err != nil || c.Settling != want {
			t.Errorf("%q is %v, %v, want %v", value, c, err, want)
		}
	}
}
