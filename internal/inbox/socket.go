package inbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The process that has an inbox answers others on a socket in the folder, which
// only its own user may use.
const (
	socketFile = "inbox.sock"
	// elsewhereFile holds the path of the socket where that of the folder is too long
	// for one.
	elsewhereFile = "inbox.socket-path"
	// mostPath is what every system takes for a path of a socket: macOS has 104, with
	// the zero at the end.
	mostPath = 103
	// askWithin bounds a question that can be asked again.
	askWithin = 10 * time.Second
)

// question is what is asked on the socket, and answer what is answered.
type question struct {
	Ask      string // one of the following
	Key      string
	Prefixes string
	After    int64
	Limit    limit
}

const (
	askList  = "list"
	askGet   = "get"
	askRetry = "retry"
	askDrop  = "drop"
	askStats = "stats"
)

type answer struct {
	Entries []Entry
	Stats   Stats
	Fault   string
	None    bool // the fault is that there is no such entry
}

// socket is the end of the process that has the inbox.
type socket struct {
	server *http.Server
	remove []string
}

// listen answers until the socket is closed. The folder has to be locked: what a
// process that was killed left there is in the way.
func listen(dir string, store *Store) (*socket, error) {
	path := filepath.Join(dir, socketFile)
	s := &socket{remove: []string{path}}
	for _, name := range []string{path, filepath.Join(dir, elsewhereFile)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	if len(path) > mostPath {
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
	s.server = &http.Server{ReadHeaderTimeout: askWithin, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		a := answer{}
		err := json.NewDecoder(r.Body).Decode(&q)
		if err == nil {
			a, err = q.put(r.Context(), store)
		}
		if err != nil {
			a.Fault, a.None = err.Error(), errors.Is(err, ErrNone)
		}
		_ = json.NewEncoder(w).Encode(a)
	})}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *socket) close() {
	if s == nil {
		return
	}
	_ = s.server.Close()
	for _, name := range s.remove {
		_ = os.RemoveAll(name)
	}
}

// put asks the store.
func (q question) put(ctx context.Context, store *Store) (a answer, err error) {
	switch q.Ask {
	case askList:
		q.Limit.N = min(q.Limit.N, page)
		a.Entries, err = store.list(ctx, q.Prefixes, q.After, q.Limit)
	case askGet:
		a.Entries = make([]Entry, 1)
		a.Entries[0], err = store.get(ctx, q.Key)
	case askRetry:
		err = store.retry(ctx, q.Key)
	case askDrop:
		err = store.drop(ctx, q.Key)
	case askStats:
		a.Stats, err = store.stats(ctx)
	default:
		err = fmt.Errorf("found the question %q, want one of this version: the running process has another", q.Ask)
	}
	return a, err
}

// dial connects to the process that has the inbox.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	path := filepath.Join(dir, socketFile)
	if b, err := os.ReadFile(filepath.Join(dir, elsewhereFile)); err == nil {
		path = strings.TrimSpace(string(b))
	}
	if len(path) > mostPath {
		return nil, fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// answers says whether there is such a process.
func answers(dir string) bool {
	conn, err := dial(context.Background(), dir)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// away is an error of asking where nobody answers.
type away struct{ error }

// ask asks the process that has the inbox.
func ask(ctx context.Context, client *http.Client, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://inbox/", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := client.Do(r)
	if err != nil {
		if dialing := new(net.OpError); errors.As(err, &dialing) && dialing.Op == "dial" || errors.Is(err, os.ErrNotExist) {
			return answer{}, away{err}
		}
		changes := q.Ask == askRetry || q.Ask == askDrop
		if !changes && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)) {
			return answer{}, away{err} // it stopped at this very moment
		}
		return answer{}, fmt.Errorf("ask the process that has the inbox: %w", err)
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("ask the process that has the inbox: %w", err)
	}
	switch {
	case a.None:
		return answer{}, noneFault(a.Fault)
	case a.Fault != "":
		return answer{}, errors.New(a.Fault)
	}
	return a, nil
}

// noneFault is an ErrNone in the words of another process.
type noneFault string

func (f noneFault) Error() string        { return string(f) }
func (f noneFault) Is(target error) bool { return target == ErrNone }
