// Package codec encrypts the payloads that Temporal stores: inputs, results and failures of
// runs and steps.
//
// The format is that of Temporal's samples, so that programs in other languages can read it.
// The metadata has "encoding" binary/encrypted, and the key's name in "encryption-key-id".
// The data are a nonce of 12 bytes and the payload encrypted with AES-256-GCM.
package codec

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/failure/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"
)

const (
	encoding = "binary/encrypted"
	keyName  = "encryption-key-id" // in a payload's metadata
)

// Key is a named encryption key.
type Key struct {
	// Name identifies the key in payloads.
	Name string

	aead cipher.AEAD
}

// Keys are keys for payloads. The first key encrypts, and all keys decrypt. Without keys,
// nothing is encrypted.
type Keys []Key

// Names returns the names of the keys.
func (k Keys) Names() []string {
	names := make([]string, len(k))
	for i, key := range k {
		names[i] = key.Name
	}
	return names
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ParseKeys parses entries of the form name=key, separated by semicolons or newlines. A key
// is 32 bytes in base64. Lines that begin with # are skipped. The errors contain no key.
func ParseKeys(s string) (Keys, error) {
	const want = "want name=key, the key as `openssl rand -base64 32` makes it"
	var keys Keys
	var faults []error
	n := 0
	for entry := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ';' || r == '\n' }) {
		if entry = strings.TrimSpace(entry); entry == "" || entry[0] == '#' {
			continue
		}
		n++
		name, text, _ := strings.Cut(entry, "=")
		name = strings.TrimSpace(name)
		secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		switch {
		// The entry may be a key without a name, so don't show it.
		case err != nil || len(secret) == 0:
			faults = append(faults, fmt.Errorf("entry %d: isn't a name and a key in base64, %s", n, want))
		case !nameForm.MatchString(name):
			faults = append(faults, fmt.Errorf("entry %d: the name isn't 1 to 64 letters, digits, '.', '_' and '-', %s", n, want))
		case len(secret) != 32:
			faults = append(faults, fmt.Errorf("entry %d: the key has %d bytes, want 32, as `openssl rand -base64 32` makes them", n, len(secret)))
		case slices.Contains(keys.Names(), name):
			faults = append(faults, fmt.Errorf("entry %d: there is a key %s already, want another name", n, name))
		default:
			key, err := newKey(name, secret)
			if err != nil {
				faults = append(faults, fmt.Errorf("entry %d: %w", n, err))
				continue
			}
			keys = append(keys, key)
		}
	}
	if n == 0 {
		faults = append(faults, errors.New("no key in it, "+want))
	}
	return keys, errors.Join(faults...)
}

func newKey(name string, secret []byte) (Key, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return Key{}, fmt.Errorf("make a cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return Key{name, aead}, err
}

// Codec returns a codec with these keys, for a codec server.
func (k Keys) Codec() converter.PayloadCodec { return codec{keys: k} }

// ForClient returns the converters for a client. A payload that can't be decrypted is an
// error.
func (k Keys) ForClient() (converter.DataConverter, converter.FailureConverter) {
	return k.converters(codec{keys: k})
}

// ForWorker returns the converters for a client with a worker. In Workflow code, a payload
// that can't be decrypted is a panic: the worker then fails the Workflow Task, which
// Temporal retries, while an error could end the run or change its course. In Activities,
// and in client calls with a context, it is an error.
func (k Keys) ForWorker() (converter.DataConverter, converter.FailureConverter) {
	return k.converters(codec{keys: k, panics: true})
}

func (k Keys) converters(c codec) (converter.DataConverter, converter.FailureConverter) {
	data := dataConverter{converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), c), k}
	return data, failureConverter{
		codec:   c,
		plain:   temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: data}),
		encoded: temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: data, EncodeCommonAttributes: len(k) > 0}),
	}
}

// DecryptHistory decrypts a history in place.
func (k Keys) DecryptHistory(ctx context.Context, h *history.History) error {
	c := codec{keys: k}
	err := proxy.VisitPayloads(ctx, h, proxy.VisitPayloadsOptions{
		SkipSearchAttributes: true,
		Visitor: func(_ *proxy.VisitPayloadsContext, payloads []*common.Payload) ([]*common.Payload, error) {
			return c.Decode(payloads)
		},
	})
	if err != nil {
		return err
	}
	return proxy.VisitFailures(ctx, h, proxy.VisitFailuresOptions{
		Visitor: func(_ *proxy.VisitFailuresContext, f *failure.Failure) error {
			converter.DecodeCommonFailureAttributes(converter.GetDefaultDataConverter(), f)
			f.EncodedAttributes = nil
			return nil
		},
	})
}

// KeysIn returns the names of the keys with which payloads are encrypted, each once.
func KeysIn(payloads map[string]*common.Payload) (names []string) {
	for _, p := range payloads {
		if name := string(p.GetMetadata()[keyName]); encrypted(p) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func encrypted(p *common.Payload) bool {
	return string(p.GetMetadata()[converter.MetadataEncoding]) == encoding
}

// codec implements [converter.PayloadCodec].
type codec struct {
	keys   Keys
	panics bool
}

// Encode implements [converter.PayloadCodec].
func (c codec) Encode(payloads []*common.Payload) ([]*common.Payload, error) {
	if len(c.keys) == 0 {
		return payloads, nil
	}
	key := c.keys[0]
	all := make([]*common.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode a payload: %w", err)
		}
		all[i] = &common.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding), keyName: []byte(key.Name)},
			Data:     key.aead.Seal(nil, nil, plain, nil),
		}
	}
	return all, nil
}

// Decode implements [converter.PayloadCodec]. It returns unencrypted payloads as they are.
func (c codec) Decode(payloads []*common.Payload) ([]*common.Payload, error) {
	all := make([]*common.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := c.decode(p)
		if err != nil && c.panics {
			panic(err)
		}
		if err != nil {
			return nil, err
		}
		all[i] = plain
	}
	return all, nil
}

// unreadable is a part of every error about a payload that can't be decrypted.
const unreadable = "payload is encrypted with key "

func (c codec) decode(p *common.Payload) (*common.Payload, error) {
	if !encrypted(p) {
		return p, nil
	}
	name := string(p.GetMetadata()[keyName])
	which := slices.IndexFunc(c.keys, func(k Key) bool { return k.Name == name })
	switch {
	case which < 0 && len(c.keys) == 0:
		return nil, fmt.Errorf(unreadable+"%.64q, and CLOSEOUT_PAYLOAD_KEYS isn't set", name)
	case which < 0:
		return nil, fmt.Errorf(unreadable+"%.64q, and CLOSEOUT_PAYLOAD_KEYS has only %s", name, strings.Join(c.keys.Names(), ", "))
	}
	b, err := c.keys[which].aead.Open(nil, nil, p.GetData(), nil)
	if err != nil {
		return nil, fmt.Errorf(unreadable+"%s, but the key of that name in CLOSEOUT_PAYLOAD_KEYS can't decrypt it: another key, or a changed payload", name)
	}
	plain := &common.Payload{}
	if err := proto.Unmarshal(b, plain); err != nil {
		return nil, fmt.Errorf(unreadable+"%s, and its content is not a payload: %w", name, err)
	}
	return plain, nil
}

// dataConverter implements [converter.ContextAware].
type dataConverter struct {
	converter.DataConverter
	keys Keys
}

// The SDK checks for the interface only at run time. If a method no longer matched, steps
// would silently get encrypted payloads.
var _ workflow.ContextAware = dataConverter{}

// WithContext implements [converter.ContextAware]. Activities and client calls have a Go
// context, Workflow code has not.
func (d dataConverter) WithContext(context.Context) converter.DataConverter {
	data, _ := d.keys.ForClient()
	return data
}

// WithWorkflowContext implements [converter.ContextAware].
func (d dataConverter) WithWorkflowContext(workflow.Context) converter.DataConverter {
	return d
}

// failureConverter encrypts the messages of failures too, except messages about payloads
// that can't be decrypted, because their readers lack a key.
type failureConverter struct {
	codec          codec
	plain, encoded converter.FailureConverter
}

// ErrorToFailure implements [converter.FailureConverter].
func (f failureConverter) ErrorToFailure(err error) *failure.Failure {
	if err != nil && strings.Contains(err.Error(), unreadable) {
		return f.plain.ErrorToFailure(err)
	}
	return f.encoded.ErrorToFailure(err)
}

// FailureToError implements [converter.FailureConverter]. For a failure that it can't
// decrypt, Temporal's own converter would say only "Encoded failure".
func (f failureConverter) FailureToError(failed *failure.Failure) error {
	failed = proto.CloneOf(failed)
	for cause := failed; cause != nil; cause = cause.GetCause() {
		if p := cause.GetEncodedAttributes(); p != nil {
			if _, err := f.codec.Decode([]*common.Payload{p}); err != nil {
				cause.Message, cause.EncodedAttributes = err.Error(), nil
			}
		}
	}
	return f.encoded.FailureToError(failed)
}
