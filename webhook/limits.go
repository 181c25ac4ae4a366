package webhook

import "time"

// The limits of the listener.
const (
	// MaxBody is the maximum length of a body in bytes. A room_close has 300; a callback
	// that lists the files of a long recording some 100,000.
	MaxBody = 1 << 20
	// smallBody is read of any body. The rest of a larger one, which no room_close is,
	// needs a part of bodyRoom, the memory for all of them until they are answered: sixteen of
	// the largest, or more than a hundred of those that ZEGO sends. What is made of a body
	// takes a few times its length.
	smallBody = 8 << 10
	bodyRoom  = 16 << 20
	// minRate in bytes a second is what a large body has to bring on average once paceAfter
	// has passed. A line on which 100 kB take three seconds is slow already.
	minRate   = 32 << 10
	paceAfter = time.Second
	// maxInflation bounds a decompressed body by its compressed length. A list of files, in
	// which all but a few digits repeats, has some thirty times the length.
	maxInflation = 64
	// drainBody is read and dropped of a body that is too large.
	drainBody = 16 << 20
	// maxStrangers bounds the connections that are idle or haven't brought a genuine
	// callback, and so does half of the files that the process may open: the rest is for
	// Temporal, the inbox and metrics. A stranger who dribbles costs 12 to 20 kB, and some
	// 40 kB with TLS.
	maxStrangers = 10_000
	// maxHeader bounds what a stranger can make us hold. ZEGO's headers have a few hundred
	// bytes.
	maxHeader = 16 << 10
	// readHeaderTimeout and readTimeout end a connection that dribbles.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout counts from the end of the header, so it includes readTimeout and
	// AnswerWithin.
	writeTimeout = 20 * time.Second
	// IdleTimeout is longer than load balancers keep idle connections, 60 s with most and 10
	// minutes with the slowest. The side that sends must be the one that closes: else a
	// request and the end of its connection cross, and the request is lost.
	IdleTimeout = 620 * time.Second
	// AnswerWithin is how long the receiver may take before ZEGO gets a 503. How long ZEGO
	// waits for an answer is undocumented; it should have one within 2 s.
	AnswerWithin = 1500 * time.Millisecond
	// retryAfter is the number of seconds before ZEGO's first retry.
	retryAfter = "2"
	// maxLogged bounds what a log line has of a stranger's header or path, in bytes.
	maxLogged = 200
	// rememberSignatures is the number of each app's signatures that are remembered at
	// least, while they are fresh: at 80 callbacks a second, for the 20 minutes of the
	// default window. They take up to 15 MB.
	rememberSignatures = 100_000
	// rememberAlways is how long they are remembered if a signature is always fresh.
	rememberAlways = time.Hour
	// maxSourceLines bounds the log lines a minute about refusals of one source. At least
	// rememberSources sources are remembered. maxLines bounds the lines about all sources
	// in a linesPeriod, as a flood may come from many.
	maxSourceLines  = 30
	rememberSources = 1000
	maxLines        = 300
	linesPeriod     = 30 * time.Second
	// maxFailures callbacks of a source in a failuresPeriod may fail to be verified, or be
	// refused with a large body, before it is answered after holdFailures, or up to twice
	// that: forgers who came at once must not come again at once. One who waits for answers
	// is slowed to less than one a second on each connection, and those are limited. ZEGO
	// with a wrong secret still has its 429 in time.
	maxFailures    = 100
	failuresPeriod = 10 * time.Second
	holdFailures   = time.Second
	// firstBytes of a connection tell protocols apart.
	firstBytes = 12
	// minAnswer in bytes is less than any answer has, and more than TLS needs to close.
	minAnswer = 64
)
