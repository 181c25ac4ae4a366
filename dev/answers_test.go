package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// proxy forwards connections. While it is deaf, it forwards requests and drops answers.
type proxy struct {
	net.Listener
	deaf atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			all.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			all.Go(func() { _, _ = io.Copy(answers{p, in}, out); in.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		all.Wait()
	})
	return p
}

// answers copies answers to the client unless the proxy is deaf.
type answers struct {
	*proxy
	to net.Conn
}

func (a answers) Write(b []byte) (int, error) {
	if a.deaf.Load() {
		return len(b), nil
	}
	return a.to.Write(b)
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// A callback whose start is not answered is queued. The relay finds the run, so it is
// started once.
func TestUnansweredStartMakesOneRun(t *testing.T) {
	t.Parallel()
	c := settings(t, nil)
	setUp(t, c)
	direct := dial(t, c)
	worker := *c
	start(t, &worker, service.Parts{Worker: true})
	p := newProxy(t, c.Temporal.HostPort)
	c.Temporal.HostPort = p.Addr().String()
	address := start(t, c, service.Parts{Webhook: true})

	first := newClose() // over a working connection
	if a := post(t, address, first); a.code != 200 || a.Status != webhook.Started {
		t.Fatalf("answer %+v", a)
	}
	p.deaf.Store(true)
	all := []zego.RoomClose{first}
	for range 3 {
		closed := newClose()
		if a := post(t, address, closed); a.code != 200 || a.Status != webhook.Queued {
			t.Errorf("answer without Temporal's %+v", a)
		}
		all = append(all, closed)
	}
	wait(t, "Temporal has started one of them", func() bool { return started(t, direct, all[1]) })
	p.deaf.Store(false)
	p.cut()
	for _, closed := range all {
		if r := result(t, direct, closed); r.State != workflows.StateDone {
			t.Errorf("result %+v", r)
		}
		if a := post(t, address, closed); a.code != 200 || a.Status != webhook.Duplicate {
			t.Errorf("answer to a repeat %+v", a)
		}
		id := session.Of(&closed).WorkflowID()
		wait(t, id+" has one run", func() bool { return runs(t, direct, "WorkflowId = '"+id+"'") == 1 })
	}
}
