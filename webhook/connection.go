package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// ConnectionFault is why a connection ended without a request that a handler saw.
type ConnectionFault string

// The faults of connections. A connection that brings nothing, as a load balancer's
// probe, has none.
const (
	// FaultTLS means that TLS wasn't agreed on: often, the other side doesn't trust the
	// certificate, as an intermediate one is missing.
	FaultTLS ConnectionFault = "tls_handshake"
	// FaultPlain means plain HTTP where TLS is expected, and FaultEncrypted the opposite.
	FaultPlain     ConnectionFault = "plain_http"
	FaultEncrypted ConnectionFault = "encrypted"
	// FaultProxy means a proxy that announces the address it speaks for (PROXY
	// protocol). Nothing here reads that.
	FaultProxy ConnectionFault = "proxy_preamble"
	// FaultRequest means that what came is no request, or never all of it.
	FaultRequest ConnectionFault = "no_request"
)

// ConnectionFaults are all that [ServerOptions].Observe is told.
func ConnectionFaults() []ConnectionFault {
	return []ConnectionFault{FaultTLS, FaultPlain, FaultEncrypted, FaultProxy, FaultRequest}
}

// Watch wraps the listener of a server, below TLS if it is encrypted: so that it is
// known what a connection began with that never became a request.
func Watch(l net.Listener, encrypted bool) net.Listener { return &watched{l, encrypted} }

type watched struct {
	net.Listener
	encrypted bool
}

func (l *watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, encrypted: l.encrypted}, nil
}

// connection remembers its first bytes, and what became of what it brought.
type connection struct {
	net.Conn
	encrypted bool
	began     atomic.Bool  // something was read that may be a request
	handled   atomic.Bool  // a handler got one
	idle      atomic.Bool  // one was answered, and no other one is being handled
	written   atomic.Int64 // bytes since then

	mu    sync.Mutex // two goroutines may read, one after the other
	first []byte
}

const (
	// firstBytes is how many of them tell protocols apart.
	firstBytes = 12
	// leastAnswer is fewer bytes than any answer has, and more than TLS needs to say
	// goodbye.
	leastAnswer = 64
)

func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if missing := firstBytes - len(c.first); n > 0 && missing > 0 {
		c.first = append(c.first, b[:min(n, missing)]...)
	}
	return n, err
}

// fault returns what kept the connection from being of use; nothing if it was, or if
// nothing came.
func (c *connection) fault() ConnectionFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	hello := len(c.first) > 0 && c.first[0] == 0x16 // a record of TLS' handshake
	switch {
	case len(c.first) == 0:
		return ""
	case c.handled.Load():
		// The server itself answered what came after the last request.
		if c.idle.Load() && c.written.Load() >= leastAnswer {
			return FaultRequest
		}
		return ""
	case bytes.HasPrefix(c.first, []byte("PROXY ")), bytes.HasPrefix(c.first, []byte("\r\n\r\n\x00\r\nQUIT\n")):
		return FaultProxy
	case c.encrypted && !hello:
		return FaultPlain
	case c.encrypted && !c.began.Load():
		return FaultTLS
	case !c.encrypted && hello:
		return FaultEncrypted
	}
	return FaultRequest
}

// connectionOf returns what is known of a server's connection; nil if its listener
// isn't watched.
func connectionOf(c net.Conn) *connection {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	watched, _ := c.(*connection)
	return watched
}

type connectionKey struct{}

// faults counts and logs connections that were of no use.
type faults struct {
	log      *slog.Logger
	observe  func(ConnectionFault)
	refusals *refusals
	errors   sync.Map // of an address to the error of its handshake, until the connection is closed
}

// watch has a server tell of its connections.
func (f *faults) watch(s *http.Server) {
	crowded := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		crowded(c, state)
		switch known := connectionOf(c); {
		case known == nil:
		case state == http.StateActive:
			known.began.Store(true)
		case state == http.StateIdle:
			known.written.Store(0)
			known.idle.Store(true)
		case state == http.StateClosed:
			f.closed(known)
		}
	}
	context0 := s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(context0(ctx, c), connectionKey{}, connectionOf(c))
	}
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connectionKey{}).(*connection); c != nil {
			c.handled.Store(true)
			c.idle.Store(false)
		}
		next.ServeHTTP(w, r)
	})
	s.ErrorLog = slog.NewLogLogger(&errorHandler{f.log.Handler(), f}, slog.LevelDebug)
}

func (f *faults) closed(c *connection) {
	remote := c.RemoteAddr().String()
	problem, _ := f.errors.LoadAndDelete(remote)
	fault := c.fault()
	if fault == "" {
		return
	}
	f.observe(fault)
	if unlogged, ok := f.refusals.line(remote, Outcome(fault)); ok {
		if problem == nil {
			problem = ""
		}
		f.log.Warn("connection without a request", "fault", fault, "remote", remote, "error", problem, "unlogged", unlogged)
	}
}

// errorHandler keeps what a server logs of handshakes for the connection's own line.
type errorHandler struct {
	slog.Handler
	faults *faults
}

// Handle implements [slog.Handler].
func (h *errorHandler) Handle(ctx context.Context, r slog.Record) error {
	if rest, ok := strings.CutPrefix(r.Message, "http: TLS handshake error from "); ok {
		if remote, problem, ok := strings.Cut(rest, ": "); ok {
			h.faults.errors.Store(remote, problem)
			return nil
		}
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// Enabled implements [slog.Handler].
func (h *errorHandler) Enabled(context.Context, slog.Level) bool { return true }
