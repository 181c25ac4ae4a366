package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// socketFile is the socket on which the owner of the inbox answers other processes.
	socketFile = "inbox.sock"
	// elsewhereFile holds the path of the socket if the folder's path is too long for one.
	// macOS allows 104 bytes including the zero at the end.
	elsewhereFile = "inbox.socket-path"
	maxSocketPath = 103
	// requestTimeout bounds a request.
	requestTimeout = 10 * time.Second
)

// server answers other processes of the same user.
type server struct {
	http   http.Server
	remove []string
}

// serve starts a server on the folder's socket. The caller must hold the folder's lock,
// because serve removes the socket of a killed process.
func serve(dir string, store *Store) (*server, error) {
	path := filepath.Join(dir, socketFile)
	s := &server{remove: []string{path}, http: http.Server{Handler: handler(store), ReadHeaderTimeout: requestTimeout}}
	for _, name := range []string{path, filepath.Join(dir, elsewhereFile)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if len(path) > maxSocketPath {
		short, err := os.MkdirTemp("", "closeout-")
		if err != nil {
			return nil, err
		}
		path = filepath.Join(short, socketFile)
		s.remove = []string{short, filepath.Join(dir, elsewhereFile)}
		if err := os.WriteFile(s.remove[1], []byte(path), 0o600); err != nil {
			return nil, errors.Join(err, os.RemoveAll(short))
		}
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, err
	}
	go func() { _ = s.http.Serve(l) }()
	return s, nil
}

func (s *server) close() {
	if s == nil {
		return
	}
	_ = s.http.Close()
	for _, name := range s.remove {
		_ = os.RemoveAll(name)
	}
}

func handler(s *Store) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(ctx context.Context, q url.Values) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			value, err := answer(r.Context(), r.URL.Query())
			switch {
			case errors.Is(err, ErrNone):
				http.Error(w, err.Error(), http.StatusNotFound)
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			default:
				_ = json.NewEncoder(w).Encode(value)
			}
		})
	}
	handle("GET /stats", func(ctx context.Context, _ url.Values) (any, error) { return s.stats(ctx) })
	handle("GET /entries", func(ctx context.Context, q url.Values) (any, error) {
		after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
		n, _ := strconv.Atoi(q.Get("n"))
		maxBody, _ := strconv.Atoi(q.Get("max_body"))
		return s.list(ctx, q.Get("prefixes"), after, min(n, page), maxBody)
	})
	handle("GET /entry", func(ctx context.Context, q url.Values) (any, error) { return s.get(ctx, q.Get("key")) })
	handle("POST /retry", func(ctx context.Context, q url.Values) (any, error) { return nil, s.retry(ctx, q.Get("key")) })
	handle("POST /drop", func(ctx context.Context, q url.Values) (any, error) { return nil, s.drop(ctx, q.Get("key")) })
	return mux
}

// dial connects to the owner of the inbox.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	path := filepath.Join(dir, socketFile)
	if b, err := os.ReadFile(filepath.Join(dir, elsewhereFile)); err == nil {
		path = strings.TrimSpace(string(b))
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// isServed reports whether the owner of the inbox is listening.
func isServed(ctx context.Context, dir string) bool {
	conn, err := dial(ctx, dir)
	return err == nil && conn.Close() == nil
}

// Attach opens dir's inbox for inspection, whether or not another process owns it. The
// error wraps [os.ErrNotExist] if dir has no inbox yet.
func Attach(ctx context.Context, dir string) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, Folder)); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	c := &client{dir: dir}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) }}
	if _, err := c.stats(ctx); err != nil { // reports an inbox that cannot be read
		return nil, errors.Join(err, c.close())
	}
	return &Store{c}, nil
}

// client sends requests to the owner of the inbox. Without an owner, it opens the store for
// each request. It opens it read-only where possible, because the files that it creates may
// belong to another user than the owner.
type client struct {
	dir  string
	http http.Client
}

func (c *client) list(ctx context.Context, prefixes string, after int64, n, maxBody int) (all []Entry, err error) {
	q := url.Values{"prefixes": {prefixes}, "after": {strconv.FormatInt(after, 10)}, "n": {strconv.Itoa(n)}, "max_body": {strconv.Itoa(maxBody)}}
	err = c.ask(ctx, http.MethodGet, "/entries", q, &all, func(s *store) error {
		all, err = s.list(ctx, prefixes, after, n, maxBody)
		return err
	}, nil)
	return all, err
}

func (c *client) get(ctx context.Context, key string) (e Entry, err error) {
	err = c.ask(ctx, http.MethodGet, "/entry", url.Values{"key": {key}}, &e, func(s *store) error {
		e, err = s.get(ctx, key)
		return err
	}, nil)
	return e, err
}

func (c *client) stats(ctx context.Context) (stats Stats, err error) {
	err = c.ask(ctx, http.MethodGet, "/stats", nil, &stats, func(s *store) error {
		stats, err = s.stats(ctx)
		return err
	}, nil)
	return stats, err
}

func (c *client) retry(ctx context.Context, key string) error {
	return c.ask(ctx, http.MethodPost, "/retry", url.Values{"key": {key}}, new(any), nil, func(b *Inbox) error { return b.retry(ctx, key) })
}

func (c *client) drop(ctx context.Context, key string) error {
	return c.ask(ctx, http.MethodPost, "/drop", url.Values{"key": {key}}, new(any), nil, func(b *Inbox) error { return b.drop(ctx, key) })
}

func (c *client) close() error {
	c.http.CloseIdleConnections()
	return nil
}

// ask sends a request to the owner of the inbox. Without an owner, it opens the store and
// calls change, or read if change is nil.
func (c *client) ask(ctx context.Context, method, path string, q url.Values, answer any, read func(*store) error, change func(*Inbox) error) error {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := c.request(ctx, method, path, q, answer)
		if !errors.As(err, new(errUnavailable)) {
			return err
		}
		if change != nil {
			err = c.change(change)
		} else {
			err = c.read(read)
		}
		// The lock belongs to a process that is starting, or to another command.
		if !errors.Is(err, ErrLocked) {
			return err
		}
		if time.Since(began) > lockWait || ctx.Err() != nil {
			return fmt.Errorf("%w, which does not answer", err)
		}
	}
}

func (c *client) read(f func(*store) error) error {
	s := newStore(vfs.Default, c.dir, true, slog.New(slog.DiscardHandler))
	err := s.open()
	if err == nil {
		err = f(s)
	}
	return errors.Join(err, s.close())
}

func (c *client) change(f func(*Inbox) error) error {
	b := newInbox(vfs.Default, c.dir, slog.New(slog.DiscardHandler))
	b.run()
	err := <-b.opened
	if err == nil {
		err = f(b)
	}
	return errors.Join(err, b.Close())
}

// errUnavailable is the error of a request without an answer.
type errUnavailable struct{ error }

// request sends a request to the owner of the inbox.
func (c *client) request(ctx context.Context, method, path string, q url.Values, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://inbox"+path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if dialing := new(net.OpError); errors.As(err, &dialing) && dialing.Op == "dial" || errors.Is(err, os.ErrNotExist) {
			return errUnavailable{err}
		}
		if method == http.MethodGet && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)) {
			return errUnavailable{err} // the owner stopped meanwhile
		}
		return fmt.Errorf("ask the process with the inbox: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			return fmt.Errorf("ask the process with the inbox: %w", err)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, int64(maxListedBody)))
	if err != nil {
		return fmt.Errorf("ask the process with the inbox: %w", err)
	}
	message := strings.TrimSpace(string(text))
	if resp.StatusCode == http.StatusNotFound && strings.HasSuffix(message, ErrNone.Error()) {
		return fmt.Errorf("%s%w", strings.TrimSuffix(message, ErrNone.Error()), ErrNone)
	}
	return errors.New(message)
}
