package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/metering"
	"github.com/closeouthq/closeout/pricing"
)

// found returns the error for a value that is not what was wanted.
func found(v, want string) error { return fmt.Errorf("found %q, want %s", v, want) }

func text(to *string) func(string) error { return checked(to, func(string) error { return nil }) }

// checked sets a text that check accepts.
func checked(to *string, check func(string) error) func(string) error {
	return func(v string) error {
		*to = v
		return check(v)
	}
}

func parse[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(v string) (err error) {
		*to, err = parse(v)
		return err
	}
}

func address(to *string) func(string) error { return checked(to, checkAddress) }

func checkAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return found(v, "host:port, as in 127.0.0.1:8080 or :8080")
	}
	return nil
}

var tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{8,}$`)

func token(to *string) func(string) error {
	return checked(to, func(v string) error {
		if !tokenForm.MatchString(v) {
			return errors.New("want at least 8 letters, digits, '-' and '_'")
		}
		return nil
	})
}

func schemes(to *string, schemes ...string) func(string) error {
	return checked(to, func(v string) error { return checkScheme(v, schemes...) })
}

// checkScheme does not show the URL, which may hold a password.
func checkScheme(v string, schemes ...string) error {
	u, err := url.Parse(v)
	if err == nil && slices.Contains(schemes, u.Scheme) {
		return nil
	}
	return fmt.Errorf("not a URL with one of the schemes %s", strings.Join(schemes, ", "))
}

func oneOf(to *string, values ...string) func(string) error {
	return checked(to, func(v string) error {
		if !slices.Contains(values, v) {
			last := len(values) - 1
			return found(v, strings.Join(values[:last], ", ")+" or "+values[last])
		}
		return nil
	})
}

// boolean parses the one grammar of booleans.
func boolean(to *bool) func(string) error {
	return func(v string) error {
		*to = v == "on" || v == "true"
		if !*to && v != "off" && v != "false" {
			return found(v, "on or off (or true or false)")
		}
		return nil
	}
}

func number[T int | int64](to *T, minimum, maximum int64) func(string) error {
	want := fmt.Sprintf("a number from %d to %d", minimum, maximum)
	if maximum == math.MaxInt64 {
		want = fmt.Sprintf("a number, %d or more", minimum)
	}
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < minimum || n > maximum {
			return found(v, want)
		}
		*to = T(n)
		return nil
	}
}

// bounds are those of a duration. There is no upper one if max is 0, and 0 is allowed beside them if zero is set.
type bounds struct {
	min, max time.Duration
	zero     bool
}

// want describes the bounds.
func (b bounds) want() string {
	switch {
	case b.max > 0:
		return short(b.min) + " to " + short(b.max)
	case b.zero:
		return "0 or at least " + short(b.min)
	}
	return "at least " + short(b.min)
}

// short returns a duration without trailing zero units: 24h, not 24h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func duration(to *time.Duration, b bounds) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return found(v, "a duration such as 10m or 1h30m")
		}
		if *to = d; !(b.zero && d == 0) && (d < b.min || b.max > 0 && d > b.max) {
			return found(v, b.want())
		}
		return nil
	}
}

// checkDeployment refuses the characters by which Temporal separates the name from the build ID.
func checkDeployment(v string) error {
	if strings.ContainsAny(v, ".:") {
		return found(v, "no '.' and no ':' in it")
	}
	return nil
}

// entries calls f for each name=value of a list, separated by semicolons or line ends, with the entry's number. It skips
// comments, and joins the errors.
func entries(s string, f func(n int, name, value string) error) (n int, err error) {
	var faults []error
	for entry := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ';' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" || entry[0] == '#' {
			continue
		}
		n++
		name, value, _ := strings.Cut(entry, "=")
		faults = append(faults, f(n, strings.TrimSpace(name), strings.TrimSpace(value)))
	}
	return n, errors.Join(faults...)
}

func parseApp(id string) (uint32, error) {
	app, err := strconv.ParseUint(id, 10, 32)
	return uint32(app), err
}

// parseApps parses appid=secret[,older-secret]. Its errors do not show a secret.
func parseApps(s string) (map[uint32][]string, error) {
	apps := map[uint32][]string{}
	n, err := entries(s, func(n int, id, list string) error {
		app, err := parseApp(id)
		secrets := strings.Split(list, ",")
		for i := range secrets {
			secrets[i] = strings.TrimSpace(secrets[i])
		}
		switch {
		case err != nil: // id may be a secret without its appid
			return fmt.Errorf("entry %d: doesn't begin with an appid, want appid=secret[,older-secret]", n)
		case len(apps[app]) > 0:
			return fmt.Errorf("entry %d: app %d is there twice, want its secrets in one entry, separated by commas", n, app)
		case slices.Contains(secrets, ""):
			return fmt.Errorf("entry %d: app %d has an empty secret, want %d=secret[,older-secret]", n, app, app)
		}
		apps[app] = secrets
		return nil
	})
	if n == 0 {
		err = errors.New("no app in it, want appid=secret[,older-secret]")
	}
	return apps, err
}

// parseWeights parses appid=weight.
func parseWeights(s string) (map[uint32]float32, error) {
	weights := map[uint32]float32{}
	_, err := entries(s, func(_ int, id, value string) error {
		app, err := parseApp(id)
		weight, notNumber := strconv.ParseFloat(value, 32)
		if err != nil || notNumber != nil || !(0.001 <= weight && weight <= 1000) {
			return found(id+"="+value, "appid=weight, the weight from 0.001 to 1000")
		}
		if _, twice := weights[app]; twice {
			return fmt.Errorf("app %d is there twice, want it once", app)
		}
		weights[app] = float32(weight)
		return nil
	})
	return weights, err
}

// parseTags parses name=value[,name=value].
func parseTags(s string) (map[string]string, error) {
	tags := map[string]string{}
	for entry := range strings.SplitSeq(s, ",") {
		name, value, isTag := strings.Cut(strings.TrimSpace(entry), "=")
		if name == "" || !isTag {
			return nil, found(entry, "name=value[,name=value]")
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("found %q twice, want each name once", name)
		}
		tags[name] = value
	}
	return tags, nil
}

// parsePrices parses appid=currency amount; the app * is all others.
func parsePrices(s string) (metering.Prices, error) {
	prices := metering.Prices{Apps: map[uint32]pricing.Price{}}
	_, err := entries(s, func(_ int, id, value string) error {
		entry := id + "=" + value
		app, err := parseApp(id)
		words := strings.Fields(value)
		_, twice := prices.Apps[app]
		if id == "*" {
			err, twice = nil, prices.Default.Currency != ""
		}
		if err != nil || len(words) != 2 {
			return found(strings.TrimSuffix(entry, "="), "appid=currency amount, as in 1234567890=EUR 2, or *=EUR 2 for all other apps")
		}
		amount, err := strconv.ParseUint(words[1], 10, 63)
		switch {
		case err != nil:
			return fmt.Errorf("found amount %q in %q, want an integer of the currency's minor units, such as cents", words[1], entry)
		case twice:
			return fmt.Errorf("app %s is there twice, want one price", id)
		}
		if _, err := pricing.Decimals(words[0]); err != nil {
			return fmt.Errorf("in %q: %w", entry, err)
		}
		price := pricing.Price{Currency: words[0], PerMinute: int64(amount)}
		if id == "*" {
			prices.Default = price
		} else {
			prices.Apps[app] = price
		}
		return nil
	})
	return prices, err
}

// parseAppIDs parses appids.
func parseAppIDs(v string) (apps []uint32, err error) {
	for _, text := range strings.FieldsFunc(v, func(c rune) bool { return c == ';' || c == ' ' || c == '\n' }) {
		app, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, found(text, "appids separated by ';', as in 1234567890;987654321")
		}
		apps = append(apps, uint32(app))
	}
	return apps, nil
}
