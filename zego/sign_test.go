package zego_test

import (
	"crypto/sha1" // #nosec G505
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// The first vector is ZEGO's. The others are computed, with secrets that sort before and
// after the other two strings.
var vectors = []struct {
	secret    string
	timestamp int64
	nonce     string
	signature string
}{
	{"secret", 1470820198, "123412", "5bd59fd62953a8059fb7eaba95720f66d19e4517"},
	{"secret", 1499676989, "350176", "0a36e8e590a2298fb9d9b3ab0c94e82775b8cde2"},
	{"secret", 1666786067, "7266888922840654370", "7093e9b91b553cd6f23ef5633711fab2a71bba03"},
	{"0123456789abcdef0123456789abcdef", 1499676989, "350176", "fa347406dee09157f87a3d084c03b8e5b1cbcf8b"},
	{"fedcba9876543210fedcba9876543210", 1637753949, "100480", "2b0c95aae1f40587f4ec6625d230a81e0a867b6b"},
}

func TestSignVectors(t *testing.T) {
	for _, v := range vectors {
		if got := zego.Sign(v.secret, v.timestamp, v.nonce); got != v.signature {
			t.Errorf("Sign(%q, %d, %q) = %s, want %s", v.secret, v.timestamp, v.nonce, got, v.signature)
		}
	}
}

// Strings of every length, below and above the size of the buffer.
func TestSignLengths(t *testing.T) {
	for n := range 300 {
		for _, timestamp := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
			secret, nonce := strings.Repeat("s", n), strings.Repeat("0", 2*n)
			parts := []string{secret, fmt.Sprint(timestamp), nonce}
			slices.Sort(parts)
			want := fmt.Sprintf("%x", sha1.Sum([]byte(strings.Join(parts, "")))) // #nosec G401
			if got := zego.Sign(secret, timestamp, nonce); got != want {
				t.Fatalf("a secret of %d bytes at %d: %s, want %s", n, timestamp, got, want)
			}
		}
	}
}

func TestVerify(t *testing.T) {
	const sent = 1499676989
	const window = 10 * time.Minute
	signed := func(secret string) zego.Common {
		return zego.Common{Event: "room_close", AppID: 1, Timestamp: sent, Nonce: "350176", Signature: zego.Sign(secret, sent, "350176")}
	}
	in := func(timestamp int64) zego.Common {
		return zego.Common{AppID: 1, Timestamp: timestamp, Nonce: "350176", Signature: zego.Sign("secret", timestamp, "350176")}
	}
	tests := []struct {
		name   string
		change func(*zego.Common)
		now    int64
		window time.Duration
		want   error
	}{
		{"genuine", func(*zego.Common) {}, sent, window, nil},
		{"older secret", func(c *zego.Common) { *c = signed("old") }, sent, window, nil},
		{"secret of another app", func(c *zego.Common) { *c = signed("other") }, sent, window, zego.ErrSignature},
		{"unknown app", func(c *zego.Common) { c.AppID = 3 }, sent, window, zego.ErrUnknownApp},
		{"unknown app signed with the stand-in secret", func(c *zego.Common) { *c = signed("unknown"); c.AppID = 3 }, sent, window, zego.ErrUnknownApp},
		{"other nonce", func(c *zego.Common) { c.Nonce = "350177" }, sent, window, zego.ErrSignature},
		{"other timestamp", func(c *zego.Common) { c.Timestamp++ }, sent, window, zego.ErrSignature},
		{"no signature", func(c *zego.Common) { c.Signature = "" }, sent, window, zego.ErrSignature},
		{"upper case", func(c *zego.Common) { c.Signature = strings.ToUpper(c.Signature) }, sent, window, zego.ErrSignature},
		{"cut off", func(c *zego.Common) { c.Signature = c.Signature[:39] }, sent, window, zego.ErrSignature},
		{"oldest allowed", func(*zego.Common) {}, sent + 600, window, nil},
		{"too old", func(*zego.Common) {}, sent + 601, window, zego.ErrTooOld},
		{"newest allowed", func(*zego.Common) {}, sent - 600, window, nil},
		{"too new", func(*zego.Common) {}, sent - 601, window, zego.ErrTooNew},
		{"window off", func(*zego.Common) {}, sent + 1e9, 0, nil},
		{"in milliseconds", func(c *zego.Common) { *c = in(sent*1000 + 250) }, sent + 600, window, nil},
		{"too old in milliseconds", func(c *zego.Common) { *c = in(sent*1000 + 250) }, sent + 601, window, zego.ErrTooOld},
		{"too new in milliseconds", func(c *zego.Common) { *c = in(sent*1000 + 250) }, sent - 601, window, zego.ErrTooNew},
		{"before 1970", func(c *zego.Common) { *c = in(-1) }, 0, 0, zego.ErrSignature},
		{"forged and stale", func(c *zego.Common) { c.Signature = "" }, sent + 601, window, zego.ErrSignature},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret", "old"}, 2: {"other"}}, tt.window,
				func() time.Time { return time.Unix(tt.now, 0) })
			if err != nil {
				t.Fatal(err)
			}
			c := signed("secret")
			tt.change(&c)
			if err := ring.Verify(&c); !errors.Is(err, tt.want) {
				t.Errorf("Verify = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNewKeyringRefuses(t *testing.T) {
	tests := []struct {
		name    string
		secrets map[uint32][]string
		window  time.Duration
	}{
		{"no app", nil, 0},
		{"no secret", map[uint32][]string{1: {}}, 0},
		{"empty secret", map[uint32][]string{1: {"secret", ""}}, 0},
		{"negative window", map[uint32][]string{1: {"secret"}}, -time.Minute},
		{"window below the resolution", map[uint32][]string{1: {"secret"}}, time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := zego.NewKeyring(tt.secrets, tt.window, time.Now); err == nil {
				t.Error("NewKeyring took it")
			}
		})
	}
}

// Verify refuses a nonce with characters that a length extension needs.
func TestVerifyRefusesNonces(t *testing.T) {
	const sent = 1499676989
	ring, err := zego.NewKeyring(map[uint32][]string{1: {"secret"}}, 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for nonce, want := range map[string]error{
		"7266888922840654370":   nil,
		"0aZ-_":                 nil,
		strings.Repeat("9", 64): nil,
		strings.Repeat("9", 65): zego.ErrSignature,
		"":                      zego.ErrSignature,
		"1 2":                   zego.ErrSignature,
		"1.2":                   zego.ErrSignature,
		"1\x80":                 zego.ErrSignature,
		"1\u0080":               zego.ErrSignature,
		"1\x00":                 zego.ErrSignature,
		"1\n":                   zego.ErrSignature,
		"é":                     zego.ErrSignature,
	} {
		c := zego.Common{AppID: 1, Timestamp: sent, Nonce: nonce, Signature: zego.Sign("secret", sent, nonce)}
		if err := ring.Verify(&c); !errors.Is(err, want) {
			t.Errorf("nonce %q: %v, want %v", nonce, err, want)
		}
	}
}

// If the secret sorts first, anybody who has seen a signature can extend it without the
// secret, with SHA-1's padding and further bytes in the nonce.
func TestVerifyRefusesLengthExtensions(t *testing.T) {
	const secret, sent, nonce = "0123456789abcdef", 1499676989, "350176"
	ring, err := zego.NewKeyring(map[uint32][]string{1: {secret}}, 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := hex.DecodeString(zego.Sign(secret, sent, nonce))
	if err != nil {
		t.Fatal(err)
	}
	// The attacker knows the hash and the length of the message.
	length := len(secret) + len("1499676989") + len(nonce)
	padding := append([]byte{0x80}, make([]byte, 64-length-1-8)...)
	padding = binary.BigEndian.AppendUint64(padding, uint64(length)*8)
	h := sha1.New() // #nosec G401
	state := append([]byte("sha\x01"), seen...)
	state = append(state, make([]byte, 64)...)
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(binary.BigEndian.AppendUint64(state, 64)); err != nil {
		t.Fatal(err)
	}
	h.Write([]byte("999"))
	forged := zego.Common{AppID: 1, Timestamp: sent, Nonce: nonce + string(padding) + "999", Signature: hex.EncodeToString(h.Sum(nil))}
	if forged.Signature != zego.Sign(secret, sent, forged.Nonce) {
		t.Fatal("the extension isn't one")
	}
	if err := ring.Verify(&forged); !errors.Is(err, zego.ErrSignature) {
		t.Errorf("Verify = %v", err)
	}
}
