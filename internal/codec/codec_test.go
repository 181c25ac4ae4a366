package codec_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

	"github.com/closeouthq/closeout/internal/codec"
)

// secret returns a key in base64.
func secret(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }

func keys(t *testing.T, text string) codec.Keys {
	t.Helper()
	k, err := codec.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func payload(t *testing.T, v any) *common.Payload {
	t.Helper()
	p, err := converter.GetDefaultDataConverter().ToPayload(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func encode(t *testing.T, k codec.Keys, p *common.Payload) *common.Payload {
	t.Helper()
	all, err := k.Codec().Encode([]*common.Payload{p})
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestFirstKeyEncryptsAndAllKeysDecrypt(t *testing.T) {
	older, newer := keys(t, "old="+secret(1)), keys(t, "new="+secret(2)+"\n# a comment\nold="+secret(1))
	plain := payload(t, "Anna's room")
	for name, by := range map[string]codec.Keys{"old": older, "new": newer} {
		encrypted := encode(t, by, plain)
		if encrypted == plain || bytes.Contains(encrypted.Data, []byte("Anna")) {
			t.Errorf("it isn't encrypted: %s", encrypted)
		}
		if got := codec.KeysIn(map[string]*common.Payload{"a": encrypted, "b": encrypted, "c": plain}); len(got) != 1 || got[0] != name {
			t.Errorf("encrypted with %v, want %s", got, name)
		}
		if again := encode(t, by, plain); bytes.Equal(again.Data, encrypted.Data) {
			t.Error("the same payload twice looks the same")
		}
		decrypted, err := newer.Codec().Decode([]*common.Payload{encrypted, plain})
		if err != nil || !proto.Equal(decrypted[0], plain) || decrypted[1] != plain {
			t.Errorf("%v, %v", decrypted, err)
		}
	}
}

func TestWithoutKeysNothingIsEncrypted(t *testing.T) {
	plain := payload(t, "Anna's room")
	if got := encode(t, nil, plain); got != plain {
		t.Errorf("got %v", got)
	}
}

func TestDecryptionErrorNamesTheKey(t *testing.T) {
	theirs := keys(t, "2026-11="+secret(1))
	encrypted := encode(t, theirs, payload(t, "Anna's room"))
	changed := proto.CloneOf(encrypted)
	changed.Data[20]++
	short := proto.CloneOf(encrypted)
	short.Data = short.Data[:5]
	for _, tt := range []struct {
		what string
		ours codec.Keys
		p    *common.Payload
		want string
	}{
		{"no keys", nil, encrypted, `key "2026-11", and CLOSEOUT_PAYLOAD_KEYS isn't set`},
		{"other keys", keys(t, "a="+secret(1)+";b="+secret(2)), encrypted, `key "2026-11", and CLOSEOUT_PAYLOAD_KEYS has only a, b`},
		{"another key of that name", keys(t, "2026-11="+secret(2)), encrypted, "key 2026-11, but the key of that name in CLOSEOUT_PAYLOAD_KEYS can't decrypt it"},
		{"it was changed", theirs, changed, "or a changed payload"},
		{"its end is missing", theirs, short, "or a changed payload"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if _, err := tt.ours.Codec().Decode([]*common.Payload{tt.p}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			data, _ := tt.ours.ForClient()
			var s string
			if err := data.FromPayload(tt.p, &s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a client gets %v", err)
			}
			// A Workflow needs a panic, because an error would end it.
			data, _ = tt.ours.ForWorker()
			func() {
				defer func() {
					if err, _ := recover().(error); err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("a workflow gets %v", err)
					}
				}()
				_ = data.FromPayload(tt.p, &s)
			}()
			// A step needs an error, because a panic would hide the text.
			step := data.(converter.ContextAware).WithContext(t.Context())
			if err := step.FromPayload(tt.p, &s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a step gets %v", err)
			}
		})
	}
}

func TestFailuresOfStepsAreEncrypted(t *testing.T) {
	ours := keys(t, "k="+secret(1))
	_, failures := ours.ForClient()
	cause := temporal.NewApplicationError("Anna has no wallet", "Blocked", "and her number is 5")
	f := failures.ErrorToFailure(temporal.NewApplicationErrorWithCause("charge Anna", "", cause))
	if text := f.String(); strings.Contains(text, "Anna") || strings.Contains(text, "number") {
		t.Errorf("it reports: %s", text)
	}
	var application *temporal.ApplicationError
	if err := failures.FailureToError(f); !errors.As(err, &application) || !strings.Contains(err.Error(), "Anna has no wallet") {
		t.Errorf("got %v", err)
	}
	_, others := keys(t, "other="+secret(1)).ForClient()
	if err := others.FailureToError(f); err == nil || !strings.Contains(err.Error(), `key "k", and CLOSEOUT_PAYLOAD_KEYS has only other`) {
		t.Errorf("without the key: %v", err)
	}
	_, plain := codec.Keys(nil).ForClient()
	if f := plain.ErrorToFailure(cause); f.GetMessage() != "Anna has no wallet" {
		t.Errorf("without keys: %s", f)
	}
}

// A reader without the key must be able to read which key is missing.
func TestMissingKeyErrorIsNotEncrypted(t *testing.T) {
	encrypted := encode(t, keys(t, "old="+secret(1)), payload(t, "x"))
	_, missing := keys(t, "new="+secret(2)).Codec().Decode([]*common.Payload{encrypted})
	_, failures := keys(t, "new="+secret(2)).ForWorker()
	if f := failures.ErrorToFailure(missing); !strings.Contains(f.GetMessage(), `key "old"`) {
		t.Errorf("got %s", f)
	}
}

func TestParseKeysErrorsShowNoKey(t *testing.T) {
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(random)
	for text, want := range map[string]string{
		"":                                  "no key in it",
		"# only a comment":                  "no key in it",
		key:                                 "entry 1: isn't a name and a key in base64",
		"a=" + secret(1) + ";" + key:        "entry 2: isn't a name and a key",
		"a=" + key[:20]:                     "entry 1: the key has 15 bytes, want 32",
		"a=" + key[:21]:                     "entry 1: isn't a name and a key in base64",
		"a b=" + key:                        "entry 1: the name isn't 1 to 64 letters",
		"=" + key:                           "entry 1: the name isn't",
		strings.Repeat("n", 65) + "=" + key: "entry 1: the name isn't",
		"a=" + key + ";a=" + secret(1):      "entry 2: there is a key a already",
	} {
		_, err := codec.ParseKeys(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.4q...: %v, want %q", text, err, want)
			continue
		}
		if strings.Contains(err.Error(), key[:20]) {
			t.Errorf("it shows the key: %v", err)
		}
	}
}
