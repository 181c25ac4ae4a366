package zego

import (
	"crypto/sha1" // #nosec G505 -- ZEGO's scheme, not our choice.
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The errors of [Keyring.Verify]. Send the same answer for all of them.
var (
	// ErrUnknownApp means that the keyring has no secret for the appid.
	ErrUnknownApp = errors.New("zego: unknown appid")
	// ErrSignature means that none of the app's secrets made the signature.
	ErrSignature = errors.New("zego: wrong signature")
	// ErrTooOld means that the timestamp is too far in the past.
	ErrTooOld = errors.New("zego: timestamp too old")
	// ErrTooNew means that the timestamp is too far in the future.
	ErrTooNew = errors.New("zego: timestamp too new")
)

// Sign returns the signature of a callback: the three strings sorted bytewise, joined,
// and hashed with SHA-1, in lower-case hex (ZEGO's "Verification Description"). The
// secret is the project's CallbackSecret, not its ServerSecret. The signature covers
// nothing else.
func Sign(secret string, timestamp int64, nonce string) string {
	s := signature(secret, timestamp, nonce)
	return string(s[:])
}

// signature is [Sign] without allocations, unless the strings are long.
func signature(secret string, timestamp int64, nonce string) [2 * sha1.Size]byte {
	var digits [20]byte // the length of the longest int64, with its sign
	parts := [...]string{secret, string(strconv.AppendInt(digits[:0], timestamp, 10)), nonce}
	slices.Sort(parts[:])
	joined := make([]byte, 0, 256)
	for _, p := range parts {
		joined = append(joined, p...)
	}
	sum := sha1.Sum(joined) // #nosec G401
	var s [2 * sha1.Size]byte
	hex.Encode(s[:], sum[:])
	return s
}

// Keyring holds the secrets that verify each app's callbacks. The zero Keyring accepts
// no callback. It is safe for concurrent use.
type Keyring struct {
	secrets map[uint32][]string
	window  int64 // seconds; 0 accepts any timestamp
	now     func() time.Time
}

// NewKeyring returns a keyring of each app's secrets. An app may have several secrets, so
// that you can replace one while ZEGO still signs with the other.
//
// A callback's timestamp may be up to window before or after now. A window of 0 accepts
// any timestamp. Use [time.Now] outside tests.
func NewKeyring(secrets map[uint32][]string, window time.Duration, now func() time.Time) (*Keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("zego: a keyring needs at least one app")
	}
	if window != 0 && window < time.Second {
		return nil, fmt.Errorf("zego: a window of %v is too short: want 0 or at least 1s, the unit of ZEGO's timestamps", window)
	}
	k := &Keyring{secrets: make(map[uint32][]string, len(secrets)), window: int64(window / time.Second), now: now}
	for app, list := range secrets {
		// An empty secret would let anyone sign.
		if len(list) == 0 || slices.Contains(list, "") {
			return nil, fmt.Errorf("zego: app %d: no secret, or an empty one", app)
		}
		k.secrets[app] = slices.Clone(list)
	}
	return k, nil
}

// Window returns the maximum distance of a callback's timestamp from now. 0 means any
// distance.
func (k *Keyring) Window() time.Duration { return time.Duration(k.window) * time.Second }

// Verify returns nil if ZEGO made the callback's signature within the window. Otherwise
// its error wraps [ErrUnknownApp], [ErrSignature], [ErrTooOld] or [ErrTooNew]. Its
// duration doesn't depend on how many digits of the signature are right.
func (k *Keyring) Verify(c *Common) error {
	secrets, known := k.secrets[c.AppID]
	if !known {
		secrets = []string{"unknown"} // take as long as for an app with one secret
	}
	match := 0
	for _, s := range secrets {
		want := signature(s, c.Timestamp, c.Nonce)
		match |= subtle.ConstantTimeCompare(want[:], []byte(c.Signature))
	}
	clock := k.now
	if clock == nil {
		clock = time.Now
	}
	switch now, sent := clock().Unix(), c.SentAt().Unix(); {
	case !known:
		return ErrUnknownApp
	case match == 0:
		return ErrSignature
	case c.Timestamp < 0 || !plain(c.Nonce):
		return errExtended
	case k.window != 0 && sent < now-k.window:
		return ErrTooOld
	case k.window != 0 && sent > now+k.window:
		return ErrTooNew
	}
	return nil
}

// maxNonce is the maximum length of a nonce. ZEGO's nonces have 19 digits.
const maxNonce = 64

// errExtended reports a signature that can be made without the secret, by extending SHA-1.
// If the secret sorts first, anybody who has one signature can compute the signature of
// the same string followed by padding and any bytes. Padding begins with 0x80, which is not
// a digit, letter, "-" or "_".
var errExtended = fmt.Errorf("%w: nonce or timestamp: want digits as the timestamp, and 1 to %d letters, digits, - or _ as the nonce", ErrSignature, maxNonce)

// plain reports whether a nonce consists of 1 to maxNonce letters, digits, "-" and "_".
func plain(nonce string) bool {
	return nonce != "" && len(nonce) <= maxNonce && strings.IndexFunc(nonce, func(c rune) bool { return !isIDRune(c) }) < 0
}
