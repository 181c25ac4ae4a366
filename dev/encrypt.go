package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/service"
)

// decryption is a codec server for the Web UI, or none.
type decryption struct {
	listener net.Listener
	server   *http.Server
	config   *config.Config
	log      *slog.Logger
	done     chan error
}

// encrypt does the work of --encrypt. It returns the codec endpoint for the Web UI.
func encrypt(ctx context.Context, cmd *cli.Command, c *config.Config, log *slog.Logger) (endpoint string, d *decryption, err error) {
	d = &decryption{config: c, log: log}
	if !cmd.Bool("encrypt") {
		return "", d, nil
	}
	if len(c.PayloadKeys) == 0 {
		if c.PayloadKeys, err = ownKey(keyFile(c)); err != nil {
			return "", d, fmt.Errorf("--encrypt: %w", err)
		}
	}
	if d.listener, err = service.ListenCodec(ctx, c, log); err != nil {
		return "", d, err
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	c.CodecListen = d.listener.Addr().String()
	return scheme + "://" + c.CodecListen, d, nil
}

// serve serves the codec under all names at which the Web UI can be opened.
func (d *decryption) serve(uiURL string) {
	if d.listener == nil {
		return
	}
	d.server = service.CodecServer(d.config, d.log, uiURL, strings.Replace(uiURL, "127.0.0.1", "localhost", 1))
	d.done = make(chan error, 1)
	go func() { d.done <- d.server.Serve(d.listener) }()
}

func (d *decryption) Close() error {
	switch {
	case d.listener == nil:
		return nil
	case d.server == nil:
		return d.listener.Close()
	}
	err := d.server.Close()
	if served := <-d.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("decrypt for the Web UI: %w", served))
	}
	return err
}

// ownName is the name of a key that dev makes.
const ownName = "dev"

func keyFile(c *config.Config) string { return filepath.Join(c.Data, "payload-keys") }

// ownKey returns the key in the file. If there is no file, it makes a key.
func ownKey(file string) (codec.Keys, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		b = []byte(ownName + "=" + base64.StdEncoding.EncodeToString(secret) + "\n")
		err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, b, 0o600))
	}
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	return codec.ParseKeys(string(b))
}

// aboutKeys describes the encryption, and where else a new key must be set.
func aboutKeys(cmd *cli.Command, c *config.Config) string {
	if !cmd.Bool("encrypt") {
		return ""
	}
	text := fmt.Sprintf("Temporal's payloads are encrypted. %s decrypts them for the Web UI.\n\n", c.CodecListen)
	if c.PayloadKeys[0].Name == ownName {
		text += fmt.Sprintf("Other commands and programs need the key:\n\n  export CLOSEOUT_PAYLOAD_KEYS_FILE='%s'\n\n", keyFile(c))
	}
	return text
}
