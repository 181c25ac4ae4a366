package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/zego/serverapi"
)

// checkCertificate checks the certificate of the listener for callbacks.
func (d doctor) checkCertificate(context.Context) checkResult {
	if d.TLSCert == "" {
		return pass("none, callbacks come without TLS; terminate it in front")
	}
	r, pair := checkPair(service.CallbackCertificate(d.Config), "ZEGO may refuse to connect")
	if r.Status == statusFail {
		return r
	}
	if len(pair.Leaf.DNSNames)+len(pair.Leaf.IPAddresses) == 0 {
		return fail("use one for the name in ZEGO's callback address", "%s is for no name", d.TLSCert)
	}
	if err := verifyChain(pair, nil); err != nil && r.Status == statusOK {
		return warn("append the authority's intermediate certificates to the file: ZEGO refuses a chain that does not lead to a public authority", "%s; %v", r.Detail, err)
	}
	return r
}

// verifyChain verifies a certificate as a client does that gets the whole file, and has these roots, or this machine's
// if nil.
func verifyChain(pair *tls.Certificate, roots *x509.CertPool) error {
	intermediates, last := x509.NewCertPool(), pair.Leaf
	for _, der := range pair.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(cert)
			last = cert
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Intermediates: intermediates, Roots: roots}); err != nil {
		return fmt.Errorf("the chain of %d certificates in it ends at one signed by %q: %w", len(pair.Certificate), last.Issuer, err)
	}
	return nil
}

// checkClientCertificate checks the certificate for Temporal.
func (d doctor) checkClientCertificate(context.Context) checkResult {
	if d.TemporalCert == "" {
		return pass("none from a file")
	}
	r, _ := checkPair(service.TemporalCertificate(d.Config), "Temporal refuses it then")
	return r
}

// checkPair checks that a certificate can be used, and for how long.
func checkPair(files service.CertificateFiles, otherwise string) (checkResult, *tls.Certificate) {
	pair, err := files.Load()
	if err != nil {
		return fail("the files must be a certificate and its key, in PEM, that this user may read", "%v", err), nil
	}
	names := slices.Clone(pair.Leaf.DNSNames)
	for _, ip := range pair.Leaf.IPAddresses {
		names = append(names, ip.String())
	}
	what := fmt.Sprintf("%s is for %s, until %s", files.Cert, cmp.Or(strings.Join(names, ", "), pair.Leaf.Subject.String()), moment(pair.Leaf.NotAfter))
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left < 0:
		return fail("renew it: "+otherwise, "%s: it has expired", what), pair
	case time.Now().Before(pair.Leaf.NotBefore):
		return fail("set this machine's clock, or wait", "%s: it isn't valid before %s", what, moment(pair.Leaf.NotBefore)), pair
	case left < service.RenewWithin:
		return warn("renew it: "+otherwise, "%s", what), pair
	}
	return pass("%s", what), pair
}

// checkSecretFiles checks whether others can read files with secrets.
func (d doctor) checkSecretFiles(context.Context) checkResult {
	var open []string
	for _, file := range d.SecretFiles {
		if info, err := os.Stat(file.Path); err == nil && info.Mode().Perm()&0o004 != 0 {
			open = append(open, fmt.Sprintf("%s: %s is %#o", file.Setting, file.Path, info.Mode().Perm()))
		}
	}
	if len(open) > 0 {
		return warn("chmod o= on each; in Kubernetes by the volume's defaultMode", "every user of this machine can read %s", strings.Join(open, ", "))
	}
	return pass("%d files, which others can't read", len(d.SecretFiles))
}

// checkBilling checks that the billing API's name resolves. Only a bill would show more.
func (d doctor) checkBilling(ctx context.Context) checkResult {
	if d.BillingURL == "" {
		return pass("no API, bills are in the ledger only")
	}
	u, err := url.Parse(d.BillingURL)
	if err != nil || u.Hostname() == "" {
		return fail("CLOSEOUT_BILLING_URL wants one, as in https://billing.example.com/v1/bills", "the URL has no host")
	}
	host, via := u.Hostname(), ""
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		host, via = proxy.Hostname(), ", by way of the proxy "+proxy.Hostname()
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return fail("check the host in CLOSEOUT_BILLING_URL or HTTPS_PROXY, and this machine's DNS", "%s%s: %v", config.Where(d.BillingURL), via, err)
	}
	return pass("%s%s: found at %s; nothing was posted", config.Where(d.BillingURL), via, strings.Join(addresses, ", "))
}

// checkServerAPI asks ZEGO, for each app with a server secret, about a room that does not exist.
func (d doctor) checkServerAPI(ctx context.Context) checkResult {
	if len(d.ServerSecrets) == 0 {
		return pass("no app has a server secret: sessions without a room_close are only reported; CLOSEOUT_SERVER_SECRETS lets workers close them out")
	}
	api, err := serverapi.New(d.ServerAPI, d.ServerSecrets)
	if err != nil {
		return fail("", "%v", err)
	}
	for _, app := range slices.Sorted(maps.Keys(d.ServerSecrets)) {
		_, err := api.DescribeUserNum(ctx, app, []string{"closeout-doctor"})
		if refused := new(serverapi.Error); errors.As(err, &refused) && refused.Unauthorized() {
			return fail("CLOSEOUT_SERVER_SECRETS wants the app's ServerSecret, not its CallbackSecret; and this machine's clock must be right", "%v", err)
		} else if err != nil {
			return fail("check that this machine reaches it; CLOSEOUT_SERVER_API_URL is its address", "%s: %v", config.Where(d.ServerAPI), err)
		}
	}
	return pass("%s answers for %d apps with a server secret", config.Where(d.ServerAPI), len(d.ServerSecrets))
}

// checkProcess asks the process that runs with these settings.
func (d doctor) checkProcess(ctx context.Context) checkResult {
	ready, state, err := askReady(ctx, d.Config)
	const hint = "the checks above cover what it says; its log says more"
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fail("see its log, and /debug/pprof/goroutine there", "at %s: no answer: %v", d.AdminListen, err)
	case err != nil:
		return warn("start it, or give it the same CLOSEOUT_ADMIN_LISTEN", "none answers at %s: %v", d.AdminListen, err)
	case !ready:
		return fail(hint, "at %s: %s", d.AdminListen, state)
	case !strings.HasPrefix(state, "ok"):
		return warn(hint, "at %s: %s", d.AdminListen, state)
	}
	return pass("at %s: %s", d.AdminListen, state)
}
