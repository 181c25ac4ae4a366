package webhook

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ConnectionFault is the reason why a connection ended without a request for a handler.
type ConnectionFault string

// The faults of connections. A connection without any data, such as a load balancer's
// probe, has none.
const (
	// FaultTLS means a failed TLS handshake. Often the client doesn't trust the
	// certificate, because an intermediate certificate is missing.
	FaultTLS ConnectionFault = "tls_handshake"
	// FaultPlain means plain HTTP where TLS is expected, and FaultEncrypted the opposite.
	FaultPlain     ConnectionFault = "plain_http"
	FaultEncrypted ConnectionFault = "encrypted"
	// FaultProxy means the preamble of the PROXY protocol, which isn't supported.
	FaultProxy ConnectionFault = "proxy_preamble"
	// FaultRequest means that the data is not a complete HTTP request.
	FaultRequest ConnectionFault = "no_request"
)

// ConnectionFaults returns all faults that [ServerOptions].Observe is called with.
func ConnectionFaults() []ConnectionFault {
	return []ConnectionFault{FaultTLS, FaultPlain, FaultEncrypted, FaultProxy, FaultRequest}
}

// ServerOptions configure a server.
type ServerOptions struct {
	// Log gets a line for each connection without a request. If one source makes many, only
	// the first are logged, and a later line has the number of the others.
	Log *slog.Logger
	// IdleTimeout bounds how long a connection may be idle. Default: [IdleTimeout].
	IdleTimeout time.Duration
	// Observe, if set, is called for each connection without a request. The listener must
	// come from [Watch].
	Observe func(ConnectionFault)
}

// NewServer returns a server with the timeouts and limits that a listener open to the
// internet needs.
func NewServer(h http.Handler, o ServerOptions) *http.Server {
	return newServer(h, o, min(maxUnverified, openFiles()/2))
}

func newServer(h http.Handler, o ServerOptions, maxUnverified int) *http.Server {
	c := &connections{ServerOptions: o, max: maxUnverified, places: map[net.Conn]*list.Element{}, limiter: newLimiter()}
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p, _ := r.Context().Value(peerKey{}).(*peer); p != nil && p.conn != nil {
				p.conn.handled.Store(true)
				p.conn.idle.Store(false)
			}
			h.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       cmp.Or(o.IdleTimeout, IdleTimeout),
		MaxHeaderBytes:    maxHeader,
		ConnState:         c.state,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, &peer{watchedConn(conn), func() { c.leave(conn) }})
		},
		ErrorLog: slog.NewLogLogger(&errorHandler{o.Log.Handler(), c}, slog.LevelDebug),
	}
}

// connections bounds the connections that haven't brought a genuine callback, and reports
// connections that end without a request. A new connection is always accepted. If there
// are too many, the connection that has been idle or unverified for longest is closed: a
// genuine callback takes milliseconds, and slow clients must not keep it out.
type connections struct {
	ServerOptions
	max     int
	limiter *limiter
	errors  sync.Map // handshake errors of open connections, by remote address

	mu     sync.Mutex
	queue  list.List // of net.Conn, in the order in which they are closed
	places map[net.Conn]*list.Element
}

type peerKey struct{}

// peer is the connection of a request.
type peer struct {
	conn  *connection // nil if the listener isn't from Watch
	leave func()
}

// markGenuine protects the connection of a genuine callback from being closed, until it is
// idle again.
func markGenuine(ctx context.Context) {
	if p, ok := ctx.Value(peerKey{}).(*peer); ok {
		p.leave()
	}
}

func (c *connections) state(conn net.Conn, state http.ConnState) {
	watched := watchedConn(conn)
	switch state {
	case http.StateNew:
		c.enter(conn)
	case http.StateActive:
		if watched != nil {
			watched.began.Store(true)
		}
	case http.StateIdle:
		c.enter(conn)
		if watched != nil {
			watched.written.Store(0)
			watched.idle.Store(true)
		}
	case http.StateHijacked:
		c.leave(conn)
	case http.StateClosed:
		c.leave(conn)
		if watched != nil {
			c.closed(watched)
		}
	}
}

// enter appends a connection to the queue, and closes the first one if there are too many.
func (c *connections) enter(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places[conn] != nil {
		return
	}
	c.places[conn] = c.queue.PushBack(conn)
	if c.queue.Len() <= c.max {
		return
	}
	first := c.queue.Remove(c.queue.Front()).(net.Conn)
	delete(c.places, first)
	if t, ok := first.(*tls.Conn); ok {
		first = t.NetConn() // closing the TLS connection would send an alert first
	}
	_ = first.Close()
}

func (c *connections) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if place := c.places[conn]; place != nil {
		c.queue.Remove(place)
		delete(c.places, conn)
	}
}

// closed observes and logs the fault of a connection, if it had one.
func (c *connections) closed(conn *connection) {
	remote := conn.RemoteAddr().String()
	problem, failed := c.errors.LoadAndDelete(remote)
	fault := conn.fault()
	if fault == "" {
		return
	}
	if c.Observe != nil {
		c.Observe(fault)
	}
	if unlogged, ok := c.limiter.line(remote, Outcome(fault)); ok {
		attrs := []any{"fault", fault, "remote", remote, "unlogged", unlogged}
		if failed {
			attrs = append(attrs, "error", problem)
		}
		c.Log.Warn("connection without a request", attrs...)
	}
}

// errorHandler intercepts the handshake errors that the server logs, and keeps them for
// the line of [connections.closed].
type errorHandler struct {
	slog.Handler
	connections *connections
}

// Handle implements [slog.Handler].
func (h *errorHandler) Handle(ctx context.Context, r slog.Record) error {
	if rest, ok := strings.CutPrefix(r.Message, "http: TLS handshake error from "); ok {
		if remote, problem, ok := strings.Cut(rest, ": "); ok {
			h.connections.errors.Store(remote, problem)
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

// Watch wraps the listener of a server, so that the server can report connections without
// a request. With TLS, wrap the listener below TLS and set encrypted.
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

// connection records its first bytes and its state.
type connection struct {
	net.Conn
	encrypted bool
	began     atomic.Bool  // the server has read data that may be a request
	handled   atomic.Bool  // a handler got a request
	idle      atomic.Bool  // the last request was answered, and none is being handled
	written   atomic.Int64 // bytes written since it became idle

	mu    sync.Mutex // two goroutines may read, one after the other
	first []byte
}

// watchedConn returns the connection below c, or nil if c is not from a [Watch] listener.
func watchedConn(c net.Conn) *connection {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	watched, _ := c.(*connection)
	return watched
}

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

// fault returns why the connection brought no request. It returns "" if it brought a
// request or no data.
func (c *connection) fault() ConnectionFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	var record, text bool
	if len(c.first) > 0 {
		first := c.first[0]
		record = first == 0x15 || first == 0x16 || first >= 0x80 // a TLS alert or handshake, or an SSL hello
		text = 'A' <= first && first <= 'Z' || 'a' <= first && first <= 'z'
	}
	switch {
	case len(c.first) == 0:
		return ""
	case c.handled.Load():
		// The server itself answered the data after the last request.
		if c.idle.Load() && c.written.Load() >= minAnswer {
			return FaultRequest
		}
		return ""
	case bytes.HasPrefix(c.first, []byte("PROXY ")), bytes.HasPrefix(c.first, []byte("\r\n\r\n\x00\r\nQUIT\n")):
		return FaultProxy
	case c.encrypted && text:
		return FaultPlain
	case c.encrypted && !c.began.Load():
		return FaultTLS
	case !c.encrypted && record:
		return FaultEncrypted
	}
	return FaultRequest
}
