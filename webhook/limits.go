package webhook

import "time"

// The limits of the listener.
const (
	// MaxBody is the maximum length of a body in bytes. A room_close has 300 bytes. A
	// callback that lists the files of a long recording has about 100,000.
	MaxBody = 1 << 20
	// smallBody is the number of bytes read of a body without a reservation. A larger body,
	// which is never a room_close, reserves a part of bodyMemory until it is answered:
	// bodyMemory holds sixteen of the largest bodies, or more than a hundred of ZEGO's.
	// Parsing a body takes a few times its length in addition.
	smallBody  = 8 << 10
	bodyMemory = 16 << 20
	// minRate, in bytes a second, is the minimum average rate of a large body after
	// paceAfter. At that rate 100 kB take three seconds, which is already a slow line.
	minRate   = 32 << 10
	paceAfter = time.Second
	// maxInflation bounds the ratio of decompressed to compressed length. A list of files,
	// in which all but a few digits repeats, is compressed to about a thirtieth.
	maxInflation = 64
	// drainBody is the number of bytes of a too large body that are read and dropped.
	drainBody = 16 << 20
	// maxUnverified bounds the connections that are idle or haven't brought a genuine
	// callback. Half of the files that the process may open is another bound: the rest is
	// for Temporal, the inbox and metrics. A slow client costs 12 to 20 kB, and about 40 kB
	// with TLS.
	maxUnverified = 10_000
	// maxHeader bounds the memory that a header takes. ZEGO's headers have a few hundred
	// bytes.
	maxHeader = 16 << 10
	// readHeaderTimeout and readTimeout end a connection that sends too slowly.
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout counts from the end of the header, so it includes readTimeout and
	// AnswerWithin.
	writeTimeout = 20 * time.Second
	// IdleTimeout is longer than load balancers keep idle connections: most keep them for
	// 60 s, the slowest for 10 minutes. The sender must be the side that closes. Otherwise
	// a request may cross with the close of its connection and be lost.
	IdleTimeout = 620 * time.Second
	// AnswerWithin bounds the receiver before ZEGO gets a 503. ZEGO doesn't document how
	// long it waits for an answer. It should get one within 2 s.
	AnswerWithin = 1500 * time.Millisecond
	// retryAfter is the number of seconds before ZEGO's first retry.
	retryAfter = "2"
	// maxLogged bounds, in bytes, the part of a foreign header or path in a log line.
	maxLogged = 200
	// rememberSignatures is the minimum number of fresh signatures remembered for each app:
	// at 80 callbacks a second they span the 20 minutes of the default window. They take up
	// to 15 MB.
	rememberSignatures = 100_000
	// rememberAlways is how long signatures are remembered if they never expire.
	rememberAlways = time.Hour
	// sourceLines bounds the log lines about refusals of one source: at once, and then per
	// minute. At least rememberSources sources are remembered. linesAtOnce and linesPerSecond
	// bound the lines about all sources, because a flood may come from many sources.
	sourceLines     = 30
	rememberSources = 1000
	linesAtOnce     = 300
	linesPerSecond  = 10
	// failuresAtOnce and then failuresPerSecond callbacks from one source may fail
	// verification, or be refused with a large body. Further ones are answered after one to
	// two times holdFailures, which differs so that forgers don't come back all at once. A
	// forger that waits for answers gets less than one a second on each connection, and
	// connections are limited. ZEGO with a wrong secret still gets its 429 in time.
	failuresAtOnce    = 100
	failuresPerSecond = 10
	holdFailures      = time.Second
	// firstBytes is the number of a connection's first bytes that identify its protocol.
	firstBytes = 12
	// minAnswer, in bytes, is less than any answer, and more than TLS sends to close.
	minAnswer = 64
)
