//go:build linux

package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/urfave/cli/v3"
	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// The bare handlers only verify a callback and store it: no limits, no logs, no metrics,
// no Temporal. Callers share a commit.

// stores are the stores of the bare handlers, by name. "none" stores nothing.
var stores = map[string]func(dir string) (put func(key, value []byte) error, err error){
	"none": func(string) (func(key, value []byte) error, error) {
		return func(_, _ []byte) error { return nil }, nil
	},
	"pebble": openPebble,
	"sqlite": openSQLite,
	"bbolt":  openBolt,
}

func openPebble(dir string) (func(key, value []byte) error, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quietPebble{}})
	if err != nil {
		return nil, err
	}
	// Pebble groups the commits of its callers itself.
	return func(key, value []byte) error { return db.Set(key, value, pebble.Sync) }, nil
}

type quietPebble struct{}

func (quietPebble) Infof(string, ...any)      {}
func (quietPebble) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (quietPebble) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func openSQLite(dir string) (func(key, value []byte) error, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "queue.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE queue (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"); err != nil {
		return nil, err
	}
	insert, err := db.Prepare("INSERT OR IGNORE INTO queue (key, value) VALUES (?, ?)")
	if err != nil {
		return nil, err
	}
	return grouped(func(items []item) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		s := tx.Stmt(insert)
		for _, i := range items {
			if _, err := s.Exec(i.key, i.value); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		return tx.Commit()
	}), nil
}

func openBolt(dir string) (func(key, value []byte) error, error) {
	db, err := bolt.Open(filepath.Join(dir, "queue.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	name := []byte("queue")
	if err := db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(name); return err }); err != nil {
		return nil, err
	}
	return grouped(func(items []item) error {
		return db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(name)
			for _, i := range items {
				if err := b.Put(i.key, i.value); err != nil {
					return err
				}
			}
			return nil
		})
	}), nil
}

type item struct {
	key, value []byte
	done       chan error
}

// grouped makes all writes that arrive during a commit share the next commit.
func grouped(commit func([]item) error) func(key, value []byte) error {
	items := make(chan item, 1024)
	go func() {
		for first := range items {
			batch := []item{first}
		collect:
			for len(batch) < cap(items) {
				select {
				case i := <-items:
					batch = append(batch, i)
				default:
					break collect
				}
			}
			err := commit(batch)
			for _, i := range batch {
				i.done <- err
			}
		}
	}()
	return func(key, value []byte) error {
		done := make(chan error, 1)
		items <- item{key, value, done}
		return <-done
	}
}

// bareHandler verifies and stores callbacks.
func bareHandler(keyring *zego.Keyring, put func(key, value []byte) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+webhook.Path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		event, err := zego.Parse(r.Header.Get("Content-Type"), body)
		c, ok := event.(*zego.RoomClose)
		if err != nil || !ok {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := keyring.Verify(&c.Common); err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		key := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, c.AppID), c.RoomSessionID)
		if err := put(key, body); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"status":"queued"}`)
	})
	return mux
}

func bareCommand() *cli.Command {
	return &cli.Command{
		Name: "bare", Hidden: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "store"}, &cli.StringFlag{Name: "dir"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			open, ok := stores[cmd.String("store")]
			if !ok {
				return fmt.Errorf("--store: found %q", cmd.String("store"))
			}
			if err := os.MkdirAll(cmd.String("dir"), 0o700); err != nil {
				return err
			}
			put, err := open(cmd.String("dir"))
			if err != nil {
				return err
			}
			keyring, err := newKeyring()
			if err != nil {
				return err
			}
			return serve(ctx, cmd, bareHandler(keyring, put))
		},
	}
}

// secret is the callback secret of app 1 in all handlers.
const secret = "secret"

func newKeyring() (*zego.Keyring, error) {
	return zego.NewKeyring(map[uint32][]string{1: {secret}}, 10*time.Minute, time.Now)
}

// serve serves on a free port until ctx ends, and prints the address.
func serve(ctx context.Context, cmd *cli.Command, h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.Root().Writer, l.Addr())
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
