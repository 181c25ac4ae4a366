package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Attach gives the inbox in the folder beside whatever process it belongs to, or
// where there is none. The error wraps [os.ErrNotExist] if no inbox was made yet.
func Attach(ctx context.Context, dir string) (*Store, error) {
	if _, err := os.Stat(filepath.Join(dir, Folder)); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	g := &guest{dir: dir}
	g.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) }}
	// That it can be asked at all is found out now.
	if _, err := g.stats(ctx); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return &Store{g}, nil
}

// letGo is after how long without a question a guest gives free what it holds, so
// that the process whose inbox it is can begin.
const letGo = 500 * time.Millisecond

// guest asks the process that has the inbox, or looks into the store itself while
// there is none: for moments, and without writing to it unless it has to, as the
// files have to belong to the user of that process.
type guest struct {
	dir    string
	client http.Client

	mu    sync.Mutex
	lock  *flock.Flock // held while one of the following is open
	disk  *disk        // to read
	queue *queue       // to write
	idle  *time.Timer
}

func (g *guest) list(ctx context.Context, prefixes string, after int64, limit limit) ([]Entry, error) {
	a, err := g.put(ctx, question{Ask: askList, Prefixes: prefixes, After: after, Limit: limit})
	return a.Entries, err
}

func (g *guest) get(ctx context.Context, key string) (Entry, error) {
	a, err := g.put(ctx, question{Ask: askGet, Key: key})
	if err != nil {
		return Entry{}, err
	}
	return a.Entries[0], nil
}

func (g *guest) retry(ctx context.Context, key string) error {
	_, err := g.put(ctx, question{Ask: askRetry, Key: key})
	return err
}

func (g *guest) drop(ctx context.Context, key string) error {
	_, err := g.put(ctx, question{Ask: askDrop, Key: key})
	return err
}

func (g *guest) stats(ctx context.Context) (Stats, error) {
	a, err := g.put(ctx, question{Ask: askStats})
	return a.Stats, err
}

func (g *guest) close() error {
	g.client.CloseIdleConnections()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.giveFree()
}

// put has the question answered by whom it can be.
func (g *guest) put(ctx context.Context, q question) (answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if g.lock == nil {
			a, err := ask(ctx, &g.client, q)
			if !errors.As(err, new(away)) {
				return a, err
			}
			lock := flock.New(filepath.Join(g.dir, "inbox.lock"), flock.SetPermissions(0o600))
			got, err := lock.TryLock()
			if err != nil {
				return answer{}, fmt.Errorf("open inbox: lock %s: %w", lock.Path(), err)
			}
			if !got { // a process that starts, or another guest
				if time.Since(began) > patience || ctx.Err() != nil {
					return answer{}, fmt.Errorf("open inbox %s: %w, and that one doesn't answer", g.dir, ErrLocked)
				}
				continue
			}
			g.lock = lock
		}
		return g.look(ctx, q)
	}
}

// look answers the question itself. Then it holds the inbox for some moments more.
func (g *guest) look(ctx context.Context, q question) (answer, error) {
	if g.idle != nil {
		g.idle.Stop()
	}
	defer func() {
		g.idle = time.AfterFunc(letGo, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			_ = g.giveFree()
		})
	}()
	writes := q.Ask == askRetry || q.Ask == askDrop
	quiet := slog.New(slog.DiscardHandler)
	if writes && g.queue == nil {
		if err := g.shut(); err != nil {
			return answer{}, err
		}
		queue := newQueue(g.dir, quiet)
		if err := queue.open(ctx); err != nil {
			return answer{}, err
		}
		queue.run()
		g.queue = queue
	}
	if g.queue != nil {
		return q.put(ctx, &Store{g.queue})
	}
	if g.disk == nil {
		disk := &disk{dir: g.dir, readOnly: true, log: quiet, space: newSpace(g.dir)}
		if err := disk.open(ctx); err != nil {
			return answer{}, err
		}
		g.disk = disk
	}
	return q.put(ctx, &Store{reader{g.disk}})
}

// shut closes the store.
func (g *guest) shut() (err error) {
	if g.disk != nil {
		err, g.disk = g.disk.end(), nil
	}
	if g.queue != nil {
		err, g.queue = errors.Join(err, g.queue.close()), nil
	}
	return err
}

func (g *guest) giveFree() error {
	if g.lock == nil {
		return nil
	}
	err := errors.Join(g.shut(), g.lock.Close())
	g.lock = nil
	return err
}

// reader is a store that is only read.
type reader struct{ *disk }

var errReadOnly = errors.New("change the inbox: it is only read")

func (reader) retry(context.Context, string) error { return errReadOnly }
func (reader) drop(context.Context, string) error  { return errReadOnly }
func (r reader) close() error                      { return r.end() }
