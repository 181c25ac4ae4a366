//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	storm "github.com/closeouthq/closeout/dev/internal/load"
)

// measureAttack compares how long good callbacks take beside 2,000 connections of
// slow clients and forgers, for a minute, with how long they take without.
func measureAttack(ctx context.Context, b *bench) error {
	const half, rate, minute = 1000, 30, 60
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	p, _, err := b.closeout(w.address, b.folder(), webhooks)
	if err != nil {
		return err
	}
	defer p.stop()
	b.table(fmt.Sprintf("good callbacks, %d a second\tp50 ms\tp99 ms\tfirst attempt\tlost\tresident MB", rate))
	tails := map[string]float64{}
	for _, name := range []string{"alone", "beside an attack", "alone again"} {
		var attackers *process
		if name == "beside an attack" {
			if attackers, err = b.start("attackers", "--address", p.address, "--slow", fmt.Sprint(half), "--forgers", fmt.Sprint(half)); err != nil {
				return err
			}
		}
		r, err := b.send(ctx, p.address, storm.Options{Count: rate * minute, Rate: rate})
		if attackers != nil {
			attackers.stop()
		}
		if err != nil {
			return err
		}
		tails[name] = r.Latency.Session.P99
		b.row("%s\t%.0f\t%.0f\t%d of %d\t%d\t%d", name, r.Latency.Session.P50, r.Latency.Session.P99, r.FirstAttempt, r.Sessions, r.Lost, p.memory("VmRSS")>>20)
	}
	b.row("beside an attack / alone\t\t%.2f (want at most 2)\t\t\t", 2*tails["beside an attack"]/(tails["alone"]+tails["alone again"]))
	return b.flush()
}

// attackCommand attacks an address until it is told to stop: slow clients dribble,
// and forgers send as fast as they are answered.
func attackCommand() *cli.Command {
	return &cli.Command{
		Name: "attackers", Hidden: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "address"}, &cli.IntFlag{Name: "slow"}, &cli.IntFlag{Name: "forgers"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			address := cmd.String("address")
			var there, all sync.WaitGroup // the connections, when they first are there and while they are
			again := func(attack func(net.Conn)) {
				there.Add(1)
				all.Go(func() {
					first := sync.OnceFunc(there.Done)
					defer first()
					for ctx.Err() == nil {
						conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
						if err != nil {
							time.Sleep(100 * time.Millisecond) // it is what is attacked that refuses
							continue
						}
						first()
						stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
						attack(conn)
						stop()
						_ = conn.Close()
					}
				})
			}
			for range cmd.Int("slow") {
				again(dribble)
			}
			for range cmd.Int("forgers") {
				again(forge)
			}
			there.Wait()
			fmt.Fprintln(cmd.Root().Writer, address)
			all.Wait()
			return nil
		},
	}
}

// dribble sends a callback, a byte a second, until the connection is closed.
func dribble(conn net.Conn) {
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for _, c := range appendRequest(nil, bytes.Repeat([]byte(" "), 300)) {
		if _, err := conn.Write([]byte{c}); err != nil {
			return
		}
		time.Sleep(time.Second) // slow clients are slow
	}
}

// forge sends badly signed callbacks, each when the last is answered.
func forge(conn net.Conn) {
	in := bufio.NewReader(conn)
	var out []byte
	for {
		body, err := callbackSignedWith("a guess")
		if err != nil {
			return
		}
		out = appendRequest(out[:0], body)
		if _, err := conn.Write(out); err != nil {
			return
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return
		}
	}
}
