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
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// measureAttack compares the latency of genuine callbacks without an attack and during
// attacks, for a minute each. The webhook's peak memory includes the program's file.
func measureAttack(ctx context.Context, b *bench) error {
	const rate, minute = 30, 60
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
	b.table(fmt.Sprintf("good callbacks, %d a second\tp50 ms\tp99 ms\tfirst attempt\tlost\tpeak MB", rate))
	attacks := []struct {
		name      string
		attackers []string
	}{
		{"alone", nil},
		{"beside 1000 slow clients and 1000 forgers", []string{"--slow", "1000", "--forgers", "1000"}},
		{"beside 32 forgers of a megabyte", []string{"--large", "32"}},
		{"alone again", nil},
	}
	tails := make([]float64, len(attacks))
	for i, a := range attacks {
		var attackers *process
		if a.attackers != nil {
			if attackers, err = b.start("attackers", append([]string{"--address", p.address}, a.attackers...)...); err != nil {
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
		tails[i] = r.Latency.Session.P99
		b.row("%s\t%.0f\t%.0f\t%d of %d\t%d\t%d (want 256)", a.name, r.Latency.Session.P50, r.Latency.Session.P99, r.FirstAttempt, r.Sessions, r.Lost, p.memory("VmHWM")>>20)
	}
	alone := (tails[0] + tails[len(tails)-1]) / 2
	for i, a := range attacks[1 : len(attacks)-1] {
		b.row("%s / alone\t\t%.2f (want at most 2)\t\t\t", a.name, tails[i+1]/alone)
	}
	return b.flush()
}

// attackCommand attacks an address until it is interrupted: slow clients send a byte a
// second, and forgers send small or maximum-size bodies as fast as they are answered.
func attackCommand() *cli.Command {
	return &cli.Command{
		Name: "attackers", Hidden: true,
		Flags: []cli.Flag{&cli.StringFlag{Name: "address"}, &cli.IntFlag{Name: "slow"}, &cli.IntFlag{Name: "forgers"}, &cli.IntFlag{Name: "large"}},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			address := cmd.String("address")
			var there, all sync.WaitGroup // there: all are connected; all: all have ended
			again := func(attack func(net.Conn)) {
				there.Add(1)
				all.Go(func() {
					first := sync.OnceFunc(there.Done)
					defer first()
					for ctx.Err() == nil {
						conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
						if err != nil {
							time.Sleep(100 * time.Millisecond) // the attacked webhook refuses
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
				again(func(conn net.Conn) { forge(conn, func() ([]byte, error) { return callbackSignedWith("a guess") }) })
			}
			for range cmd.Int("large") {
				again(func(conn net.Conn) { forge(conn, largeCallback) })
			}
			there.Wait()
			fmt.Fprintln(cmd.Root().Writer, address)
			all.Wait()
			return nil
		},
	}
}

// dribble sends a callback at a byte a second until the connection is closed.
func dribble(conn net.Conn) {
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for _, c := range appendRequest(nil, bytes.Repeat([]byte(" "), 300)) {
		if _, err := conn.Write([]byte{c}); err != nil {
			return
		}
		time.Sleep(time.Second) // the client is slow
	}
}

// forge sends badly signed callbacks, one after the other.
func forge(conn net.Conn, callback func() ([]byte, error)) {
	in := bufio.NewReader(conn)
	var out []byte
	for {
		body, err := callback()
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

// largeCallback returns the most expensive body to read: a badly signed recording
// callback with as many files as fit.
func largeCallback() ([]byte, error) {
	head := fmt.Sprintf(`{"app_id":1,"task_id":"YZ4joOE4IwmFAAAT","room_id":"r","event_type":1,"nonce":"1","timestamp":"%d","signature":"%s","detail":{"file_info":[`,
		time.Now().Unix(), zego.Sign("a guess", time.Now().Unix(), "1"))
	const tail = `{}]}}`
	return append(append([]byte(head), bytes.Repeat([]byte("{},"), (webhook.MaxBody-len(head)-len(tail))/3)...), tail...), nil
}
