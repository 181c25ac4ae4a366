package service

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// privateSuffixes are suffixes that public DNS does not resolve: those of RFC 6761, RFC 6762 and
// RFC 8375, ICANN's .internal, and Kubernetes' .svc.
var privateSuffixes = []string{".localhost", ".local", ".home.arpa", ".internal", ".svc"}

// expectedHosts refuses requests for a Host of public DNS. Otherwise a web page with a name that
// resolves to 127.0.0.1 could read operators' data.
func expectedHosts(listen string, log *slog.Logger, next http.Handler) http.Handler {
	named := []string{}
	if host, _, err := net.SplitHostPort(listen); err == nil {
		named = append(named, strings.ToLower(host))
	}
	if host, err := os.Hostname(); err == nil {
		named = append(named, strings.ToLower(host))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !expectedHost(r.Host, named) {
			log.Warn("admin request refused", "host", r.Host, "remote", r.RemoteAddr)
			http.Error(w, "Host is not one of this machine; use its IP address, its host name or that of CLOSEOUT_ADMIN_LISTEN", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func expectedHost(host string, named []string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	// A name without a dot is local: a container, a Service, localhost.
	return host != "" && !strings.Contains(host, ".") || slices.Contains(named, host) ||
		slices.ContainsFunc(privateSuffixes, func(suffix string) bool { return strings.HasSuffix(host, suffix) })
}
