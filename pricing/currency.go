package pricing

import (
	"fmt"
	"strconv"
	"strings"
)

// currencies lists the codes of ISO 4217 (its list one) by the number of decimals of their
// minor unit. A test in the module examples compares them with github.com/bojanz/currency,
// which is generated from that list. golang.org/x/text/currency has customary decimals
// instead, such as none for COP, PKR and IDR.
var currencies = map[int]string{
	0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
	2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY " +
		"COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS " +
		"INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR " +
		"MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP " +
		"STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
	3: "BHD IQD JOD KWD LYD OMR TND",
	4: "CLF UYW",
}

var decimals = func() map[string]int {
	all := map[string]int{}
	for n, codes := range currencies {
		for code := range strings.FieldsSeq(codes) {
			all[code] = n
		}
	}
	return all
}()

// Decimals returns the number of decimals of a currency in ISO 4217: 2 for EUR, 0 for JPY, 3
// for KWD.
func Decimals(currency string) (int, error) {
	n, ok := decimals[currency]
	if !ok {
		return 0, fmt.Errorf("found currency %q, want the three capital letters of an ISO 4217 code, as in EUR", currency)
	}
	return n, nil
}

// Format formats an amount of minor units with the currency's decimals, as in "EUR 0.36".
// It returns "" without a currency.
func Format(currency string, amount int64) string {
	if currency == "" {
		return ""
	}
	n := decimals[currency] // 0 for an unknown currency
	digits := strconv.FormatUint(magnitude(amount), 10)
	if n > 0 {
		digits = strings.Repeat("0", max(0, n+1-len(digits))) + digits
		digits = digits[:len(digits)-n] + "." + digits[len(digits)-n:]
	}
	if amount < 0 {
		digits = "-" + digits
	}
	return currency + " " + digits
}
