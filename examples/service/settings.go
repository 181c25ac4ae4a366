package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/closeouthq/closeout/activities"
)

// settings are the settings of this program. Closeout reads its own.
type settings struct {
	supportApp uint32 // 0: none
	studio     Studio
	helpDesk   HelpDesk
}

// load reads and checks the settings. The error names each wrong one, and shows no value
// that may be a secret.
func (c *settings) load(getenv func(string) string) error {
	var faults []error
	if v := getenv("SUPPORT_APP"); v != "" {
		app, err := strconv.ParseUint(v, 10, 32)
		if err != nil || app == 0 {
			faults = append(faults, fmt.Errorf("SUPPORT_APP: found %q, want the appid of the support calls", v))
		}
		c.supportApp = uint32(app)
	}
	endpoint := func(name, service string) activities.Endpoint {
		e := activities.Endpoint{Name: service, URL: getenv(name + "_URL"), Token: getenv(name + "_TOKEN")}
		u, err := url.Parse(e.URL)
		switch {
		case e.URL == "" && e.Token == "":
			e.URL, e.Client = "http://fake", &http.Client{Transport: &fake{}}
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			faults = append(faults, fmt.Errorf("%s_URL: want a URL as in https://example.com/api", name))
		case e.Token == "":
			faults = append(faults, fmt.Errorf("%s_TOKEN: missing, %s wants one", name, service))
		}
		return e
	}
	c.studio.api = endpoint("STUDIO", "the studio")
	c.helpDesk.api = endpoint("HELPDESK", "the help desk")
	return errors.Join(faults...)
}
