package webhook

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"
)

// Every limit of the listener, each with its reason.
const (
	// MaxBody is the most bytes that a body may have. A room_close has 300; a
	// callback that lists the files of a long recording has some 100,000.
	MaxBody = 1 << 20
	// smallBody is how much of any body is read. The rest of a larger one, which no
	// room_close is, needs a part of bodyRoom, the memory for all of them: thirty of
	// the largest, or hundreds of those that ZEGO sends.
	smallBody = 8 << 10
	bodyRoom  = 32 << 20
	// minRate is how many bytes a second a large body has to bring on average, once
	// paceAfter has passed. At less, one of MaxBody wouldn't be there in readTimeout,
	// and a line on which 100 kB take three seconds is slow already.
	minRate   = 32 << 10
	paceAfter = time.Second
	// maxInflation is how many times its length a compressed body may have once it is
	// decompressed. A list of files, in which all but a few digits repeats, has some
	// thirty times.
	maxInflation = 64
	// drainBody is how much more of a body that is too large is read and forgotten.
	drainBody = 16 << 20
	// maxStrangers is how many connections there may be that are idle or haven't
	// brought a genuine callback, unless the process may not have twice as many
	// files open: the rest is for Temporal, the inbox and metrics. A stranger who
	// dribbles costs 12 to 20 kB, and some 40 kB with TLS.
	maxStrangers = 10_000
	// maxHeader bounds what a stranger can make us hold before anything is known
	// of him. ZEGO's headers have a few hundred bytes.
	maxHeader = 16 << 10
	// readHeaderTimeout and readTimeout end a connection that dribbles.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout counts from the end of the header, so it has to hold
	// readTimeout and AnswerWithin.
	writeTimeout = 20 * time.Second
	// IdleTimeout is how long a connection may be idle unless set otherwise: longer than
	// load balancers keep theirs, 60 s with most and 10 minutes with the slowest. The
	// side that sends has to be the one that closes: else a request and the end of its
	// connection meet on the way, and the request is lost.
	IdleTimeout = 620 * time.Second
	// AnswerWithin is how long the intake may take before ZEGO gets a 503. Nobody
	// knows how long ZEGO waits for an answer; it should have one within 2 s.
	AnswerWithin = 1500 * time.Millisecond
	// retryAfter is the number of seconds after which ZEGO tries first again.
	retryAfter = "2"
	// rememberSignatures is for how many signatures of one app, at least, the listener
	// remembers what they came with, if it is that many within the time for which a
	// signature is fresh: at 80 callbacks a second the 20 minutes that it is unless set
	// otherwise. They take up to 15 MB.
	rememberSignatures = 100_000
	// rememberAlways is how long it remembers them where a signature is always fresh.
	rememberAlways = time.Hour
	// sourceLines is how many lines at once, and then a minute, the log gets of what
	// is refused to one source, and rememberSources of how many sources, at least, it
	// is known how many there were. linesAtOnce and linesPerSecond bound the lines
	// of all sources, as a flood may come from many.
	sourceLines     = 30
	rememberSources = 1000
	linesAtOnce     = 300
	linesPerSecond  = 10
	// failuresAtOnce is how much of a source may fail to be verified at once, and
	// failuresPerSecond from then on, before it is answered later than at once: after
	// holdFailures. A forger who waits for his answers is slowed down to one a second
	// on each connection, and those are limited. ZEGO with a wrong secret has its 429
	// in time as well.
	failuresAtOnce    = 100
	failuresPerSecond = 10
	holdFailures      = time.Second
)

// unlimited is more files than can be made use of.
const unlimited = 1 << 30

// ServerOptions are what a server needs beside its handler.
type ServerOptions struct {
	// Log gets a line for each connection that brought no request, but of many only
	// the first: the next line says how many there were.
	Log *slog.Logger
	// IdleTimeout is how long a connection may be idle; 0 stands for [IdleTimeout].
	IdleTimeout time.Duration
	// Observe, if set, is told of each connection that brought no request. It takes
	// that the listener is one of [Watch].
	Observe func(ConnectionFault)
}

// NewServer makes a server with the timeouts and limits that a listener open to
// the internet needs.
func NewServer(h http.Handler, o ServerOptions) *http.Server {
	return newServer(h, o, min(maxStrangers, openFiles()/2))
}

func newServer(h http.Handler, o ServerOptions, most int) *http.Server {
	if o.Observe == nil {
		o.Observe = func(ConnectionFault) {}
	}
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       cmp.Or(o.IdleTimeout, IdleTimeout),
		MaxHeaderBytes:    maxHeader,
	}
	newCrowd(most).watch(s)
	(&faults{log: o.Log, observe: o.Observe, refusals: newRefusals()}).watch(s)
	return s
}
