package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/mail"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/zego"
)

// inWords returns the subject and body of a digest, with the rooms in the order in which
// they closed.
func inWords(closed []Closed) (subject, body string) {
	slices.SortStableFunc(closed, func(a, b Closed) int { return a.Session.RoomCloseTime.Compare(b.Session.RoomCloseTime) })
	rooms, open := closed[0].Rooms, missing(closed)
	show, _, _ := strings.Cut(rooms[0], "/")
	var b strings.Builder
	for _, c := range closed {
		fmt.Fprintf(&b, "%s closed at %s: %v\n", c.Session.RoomID, c.Session.RoomCloseTime.UTC().Format(time.DateTime), zego.CloseReasonText(c.Session.CloseReason))
		for _, line := range c.Happened {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	for _, room := range open {
		fmt.Fprintf(&b, "%s: not closed out within %v of the first room\n", room, maxWait)
	}
	return fmt.Sprintf("%s: %d of %d rooms closed out", show, len(rooms)-len(open), len(rooms)), b.String()
}

// message is an e-mail.
type message struct {
	id            string
	from, to      *mail.Address
	date          time.Time
	subject, body string
}

// bytes returns the message as it is sent.
func (m message) bytes() []byte {
	header := fmt.Sprintf("From: %s\nTo: %s\nDate: %s\nMessage-ID: <%s>\nSubject: %s\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n",
		m.from, m.to, m.date.Format(time.RFC1123Z), m.id, mime.QEncoding.Encode("utf-8", m.subject))
	return []byte(strings.ReplaceAll(header+m.body, "\n", "\r\n"))
}

// server is the host:port of a mail server.
type server string

// deliver sends a message by SMTP, encrypted if the server supports STARTTLS.
func (s server) deliver(ctx context.Context, m message) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(s))
	if err != nil {
		return fmt.Errorf("SMTP_ADDRESS: connect to the mail server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // net/smtp takes no context
	err = s.talk(conn, m)
	if refusal := new(textproto.Error); errors.As(err, &refusal) && refusal.Code/100 == 5 {
		return activities.Blockedf("the mail server refused the digest: %w", refusal)
	}
	if err != nil {
		return fmt.Errorf("send the digest to the mail server: %w", err)
	}
	return nil
}

func (s server) talk(conn net.Conn, m message) error {
	host, _, _ := net.SplitHostPort(string(s))
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if encrypted, _ := c.Extension("STARTTLS"); encrypted {
		if err := c.StartTLS(&tls.Config{ServerName: host}); err != nil {
			return err
		}
	}
	if err := c.Mail(m.from.Address); err != nil {
		return err
	}
	if err := c.Rcpt(m.to.Address); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(m.bytes()); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the server has the message, whatever it answers
	return nil
}

// printer takes the place of a mail server. It prints each message once.
type printer struct {
	out  io.Writer
	seen sync.Map
}

func (p *printer) deliver(_ context.Context, m message) error {
	if _, again := p.seen.LoadOrStore(m.id, true); !again {
		fmt.Fprintf(p.out, "\n%s\n", strings.ReplaceAll(string(m.bytes()), "\r", ""))
	}
	return nil
}
