package service

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/config"
)

// RunCodec serves Temporal's codec protocol until ctx ends. It decrypts payloads for the Web UI
// and the command line, and encrypts those that they send.
func RunCodec(ctx context.Context, c *config.Config, log *slog.Logger) error {
	if len(c.PayloadKeys) == 0 {
		return errors.New("CLOSEOUT_PAYLOAD_KEYS: missing, want the keys that webhook and worker have")
	}
	ui, err := url.Parse(c.UIURL)
	if err != nil {
		return fmt.Errorf("CLOSEOUT_UI_URL: %w", err)
	}
	listener, err := ListenCodec(ctx, c, log)
	if err != nil {
		return err
	}
	defer listener.Close()
	origin := ui.Scheme + "://" + ui.Host
	group, ctx := errgroup.WithContext(ctx)
	serve(ctx, group, listener, CodecServer(c, log, origin), c.StopTimeout)
	log.Info("codec listener ready", "address", listener.Addr().String(), "keys", c.PayloadKeys.Names(), "origin", origin, "token", c.CodecToken != "", "tls", c.TLSCert != "")
	return group.Wait()
}

// ListenCodec listens on the address of the codec server. Without a token it must be a
// loopback address.
func ListenCodec(ctx context.Context, c *config.Config, log *slog.Logger) (net.Listener, error) {
	listener, err := listen(ctx, "CLOSEOUT_CODEC_LISTEN", c.CodecListen)
	if err != nil {
		return nil, err
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() && c.CodecToken == "" {
		listener.Close()
		return nil, fmt.Errorf("CLOSEOUT_CODEC_LISTEN: whoever reaches %s could read everything, want CLOSEOUT_CODEC_TOKEN set, or an address of the loopback such as 127.0.0.1:8081", c.CodecListen)
	}
	secured, err := secure(listener, c, log)
	if err != nil {
		listener.Close()
	}
	return secured, err
}

// maxCodecBody has room for several payloads of Temporal's maximum size in base64.
const maxCodecBody = 32 << 20

// CodecServer returns a server of Temporal's codec protocol for pages of the origins and for
// programs.
func CodecServer(c *config.Config, log *slog.Logger, origins ...string) *http.Server {
	return &http.Server{
		Handler:           codecHandler(c.PayloadKeys, c.CodecToken, origins, log),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func codecHandler(keys codec.Keys, token string, origins []string, log *slog.Logger) http.Handler {
	payloads := converter.NewPayloadCodecHTTPHandler(keys.Codec())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(status int, why string) {
			log.Warn("codec request refused", "why", why, "remote", r.RemoteAddr, "origin", r.Header.Get("Origin"))
			http.Error(w, why, status)
		}
		w.Header().Add("Vary", "Origin")
		w.Header().Set("Cache-Control", "no-store")
		// Browsers send Origin with every POST, even to a foreign name that resolves to this machine.
		if origin := r.Header.Get("Origin"); origin != "" {
			if !slices.Contains(origins, origin) {
				refuse(http.StatusForbidden, "pages of this origin may not decrypt; CLOSEOUT_UI_URL says which may")
				return
			}
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Set("Access-Control-Allow-Credentials", "true") // a proxy's cookies
			if r.Method == http.MethodOptions {
				// As Temporal's documentation requires.
				w.Header().Set("Access-Control-Allow-Methods", "POST")
				w.Header().Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace, Authorization, Caller-Type")
				w.Header().Set("Access-Control-Max-Age", "600")
				// Chrome sends this before a public page calls a private address.
				if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
					w.Header().Set("Access-Control-Allow-Private-Network", "true")
				}
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		shown, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if token != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(token)) == 0 {
			refuse(http.StatusUnauthorized, "the Authorization header lacks the token that CLOSEOUT_CODEC_TOKEN wants")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxCodecBody)
		log.Debug("codec request", "path", r.URL.Path, "namespace", r.Header.Get("X-Namespace"), "remote", r.RemoteAddr)
		payloads.ServeHTTP(w, r)
	})
}
