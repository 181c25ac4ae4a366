package webhook

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// crowd bounds the connections of those who haven't proved that they are ZEGO.
// To stop accepting, as most bounds do, would be to let slow clients keep good
// callbacks out. Here the newcomer comes in, and the connection that has been
// idle or unproved for longest gives way: a good callback needs milliseconds.
type crowd struct {
	most int

	mu     sync.Mutex
	queue  list.List // of net.Conn, in the order in which they have to go
	places map[net.Conn]*list.Element
}

func newCrowd(most int) *crowd {
	return &crowd{most: most, places: map[net.Conn]*list.Element{}}
}

// watch makes a server tell of its connections, and their requests whose they
// are.
func (c *crowd) watch(s *http.Server) {
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew, http.StateIdle:
			c.enter(conn)
		case http.StateHijacked, http.StateClosed:
			c.leave(conn)
		}
	}
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, leaveKey{}, func() { c.leave(conn) })
	}
}

type leaveKey struct{}

// proved takes the connection of a genuine callback out of the crowd, until it
// is idle again.
func proved(ctx context.Context) {
	if leave, ok := ctx.Value(leaveKey{}).(func()); ok {
		leave()
	}
}

// enter puts a connection that isn't there at the end, and ends the first if
// there are too many.
func (c *crowd) enter(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places[conn] != nil {
		return
	}
	c.places[conn] = c.queue.PushBack(conn)
	if c.queue.Len() <= c.most {
		return
	}
	first := c.queue.Remove(c.queue.Front()).(net.Conn)
	delete(c.places, first)
	if t, ok := first.(*tls.Conn); ok {
		first = t.NetConn() // TLS would wait to say goodbye
	}
	_ = first.Close()
}

func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if place := c.places[conn]; place != nil {
		c.queue.Remove(place)
		delete(c.places, conn)
	}
}
