package archive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
)

// publicOnly reads URLs from callbacks. It connects only to public addresses, to the configured
// proxy, and to listed loopback addresses. If hosts are listed, it connects to no others.
type publicOnly struct {
	hosts  []string // such as storage.example.com and *.example.com; all if empty
	proxy  func(*http.Request) (*url.URL, error)
	direct *http.Transport
	local  *http.Transport
	mu     sync.Mutex
	by     map[string]*http.Transport // by proxy
}

// publicClient returns a client for public addresses.
func publicClient(hosts []string) *http.Client {
	p := &publicOnly{hosts: hosts, proxy: http.ProxyFromEnvironment, direct: transportTo(""), local: plainTransport(), by: map[string]*http.Transport{}}
	return &http.Client{Transport: p, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Scheme != "https" || len(via) > 5 {
			return errors.New("redirected too often, or away from https")
		}
		return nil
	}}
}

func plainTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout, t.Proxy = time.Minute, nil
	return t
}

// transportTo returns a transport that dials only public addresses and the proxy.
func transportTo(proxy string) *http.Transport {
	t := plainTransport()
	free := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	checked := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: refusePrivate}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if proxy != "" && address == proxy {
			return free.DialContext(ctx, network, address)
		}
		return checked.DialContext(ctx, network, address)
	}
	return t
}

// RoundTrip implements [http.RoundTripper].
func (p *publicOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	host := strings.TrimSuffix(strings.ToLower(req.URL.Hostname()), ".")
	if !listed(p.hosts, host) {
		return nil, fmt.Errorf("%w: CLOSEOUT_RECORDINGS_HOSTS doesn't list %q", ErrImpossible, host)
	}
	if ownMachine(p.hosts, host) {
		return p.local.RoundTrip(req)
	}
	// A proxy resolves names itself, but connects to any address.
	if a, err := netip.ParseAddr(host); err == nil && !public(a) {
		return nil, fmt.Errorf("%s is no public address", a)
	} else if err != nil && !name(host) {
		return nil, fmt.Errorf("%w: found the host %q, want a name in ASCII, or an address", ErrImpossible, host)
	}
	proxy, err := p.proxy(req)
	if err != nil {
		return nil, errors.New("HTTPS_PROXY isn't a URL")
	}
	if proxy == nil {
		return p.direct.RoundTrip(req)
	}
	p.mu.Lock()
	t := p.by[proxy.String()]
	if t == nil {
		t = transportTo(proxyAddress(proxy))
		t.Proxy = http.ProxyURL(proxy)
		p.by[proxy.String()] = t
	}
	p.mu.Unlock()
	return t.RoundTrip(req)
}

// name reports whether a host is a name and not an address in disguise. Resolvers also accept
// 2130706433, 0x7f.1 and full-width digits as addresses.
func name(host string) bool {
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return false
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// proxyAddress returns the address to dial for a proxy.
func proxyAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// listed reports whether a host may be read from.
func listed(hosts []string, host string) bool {
	return len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool {
		if domain, ok := strings.CutPrefix(h, "*."); ok {
			return strings.HasSuffix(host, "."+domain)
		}
		return h == host
	})
}

// ownMachine reports whether a host is a listed loopback address. Only an operator can list it.
func ownMachine(hosts []string, host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() && slices.Contains(hosts, host)
}

// ParseHosts parses a list of hosts such as storage.example.com,*.example.net.
func ParseHosts(list string) ([]string, error) {
	var hosts []string
	for h := range strings.SplitSeq(list, ",") {
		h = strings.ToLower(strings.TrimSpace(h))
		if name := strings.TrimPrefix(h, "*."); name == "" || strings.ContainsAny(name, "*/:@ ") {
			return nil, fmt.Errorf("found %q, want names of hosts, as in storage.example.com,*.example.net", h)
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func refusePrivate(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !public(a.Addr()) {
		return fmt.Errorf("%s is no public address", a.Addr())
	}
	return nil
}

// inside lists addresses that are not public, besides private ones: those that IANA's registries
// of special-purpose addresses list as not globally reachable, and those that a tunnel or a
// translator maps to IPv4 addresses.
var inside = func() (prefixes []netip.Prefix) {
	for _, p := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"168.63.129.16/32",           // Azure's own services in every virtual network
		"2001::/23",                  // Teredo, ORCHID, benchmarks and the like
		"2001:db8::/32", "3fff::/20", // documentation
		"2002::/16", // 6to4
	} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	return prefixes
}()

var (
	// translated holds IPv4 addresses in a network without IPv4.
	translated = netip.MustParsePrefix("64:ff9b::/96")
	// global6 holds all other IPv6 addresses that may be globally reachable.
	global6 = netip.MustParsePrefix("2000::/3")
)

func public(a netip.Addr) bool {
	if a = a.Unmap().WithZone(""); translated.Contains(a) {
		b := a.As16()
		return public(netip.AddrFrom4([4]byte(b[12:])))
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && (a.Is4() || global6.Contains(a)) && !slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(a) })
}
