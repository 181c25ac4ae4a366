package main

import (
	"context"
	"errors"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/closeouttest"
	"github.com/closeouthq/closeout/workflows"
)

// listen returns a listener on a free address.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// receive runs a mail server that gives this answer to each message, and keeps the
// messages it accepts.
func receive(l net.Listener, answer string) <-chan string {
	messages := make(chan string, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			c := textproto.NewConn(conn)
			_ = c.PrintfLine("220 mail.test")
			for line, err := c.ReadLine(); err == nil; line, err = c.ReadLine() {
				if line != "DATA" {
					_ = c.PrintfLine("250 fine")
					continue
				}
				_ = c.PrintfLine("354 go on")
				message, _ := c.ReadDotBytes()
				messages <- string(message)
				_ = c.PrintfLine("%s", answer)
			}
			_ = c.Close()
		}
	}()
	return messages
}

// stepsOf returns the steps with these settings.
func stepsOf(t *testing.T, settings map[string]string) *Steps {
	t.Helper()
	s := &Steps{}
	if err := s.load(func(name string) string { return settings[name] }); err != nil {
		t.Fatal(err)
	}
	return s
}

// runDigest runs a digest with a single room, and calls then after the e-mail has been
// tried for long.
func runDigest(t *testing.T, address string, first Closed, then func(*closeouttest.Env)) workflows.Result {
	t.Helper()
	env := closeouttest.NewEnv(t, stepsOf(t, map[string]string{"SMTP_ADDRESS": address, "MAIL_FROM": "closeout@test", "MAIL_TO": "team@test"}))
	report(env, 0, first)
	env.After(maxWait+2*time.Hour, func() { then(env) })
	return env.Run(Digest, first.Session)
}

func TestMailServerThatIsAwayIsTriedAgain(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	_ = l.Close()
	first := room("launch/main")
	var received <-chan string
	result := runDigest(t, address, first, func(env *closeouttest.Env) {
		if details := env.Details(); !strings.Contains(details, "**mail** is **blocked**: `SMTP_ADDRESS: connect to the mail server: ") {
			t.Errorf("people see %s", details)
		}
		received = receive(listen(t, address), "250 taken")
		env.Retry("mail", "the mail server is back")
	})
	if result.State != workflows.StateDone || len(received) != 1 {
		t.Fatalf("result %+v, %d messages", result, len(received))
	}
	message := <-received
	for _, want := range []string{
		"To: <team@test>\n",
		"Message-ID: <" + first.Session.IdempotencyKey("mail").String() + "@closeout>\n",
		"Subject: launch: 1 of 2 rooms closed out\n",
		"launch/main closed at " + first.Session.RoomCloseTime.Format(time.DateTime) + ": normal\n  bill 1\n",
		"launch/backstage: not closed out within 6h0m0s of the first room\n",
	} {
		if !strings.Contains(message, want) {
			t.Errorf("the message lacks %q:\n%s", want, message)
		}
	}
}

func TestMailServerThatRefusesBlocks(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	received := receive(l, "554 looks like spam")
	result := runDigest(t, l.Addr().String(), room("launch/main"), func(env *closeouttest.Env) { env.Skip("mail", "told by telephone") })
	want := "the mail server refused the digest: 554 \"looks like spam\""
	if result.State != workflows.StateSkipped || result.Steps[0].Failure != want || len(received) != 1 {
		t.Errorf("result %+v after %d attempts", result, len(received))
	}
}

// If the answer of a mail server is lost, the server gets the message again with the same
// Message-ID.
func TestMessageIsTheSameWhenRepeated(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	received := receive(l, "451 try again")
	result := runDigest(t, l.Addr().String(), room("launch/main"), func(env *closeouttest.Env) { env.Skip("mail", "enough") })
	id := func(message string) string {
		_, after, _ := strings.Cut(message, "Message-ID: ")
		return strings.Split(after, "\n")[0]
	}
	if len(received) < 2 {
		t.Fatalf("%d messages, result %+v", len(received), result)
	}
	if first, second := id(<-received), id(<-received); first != second {
		t.Errorf("sent as %s and again as %s", first, second)
	}
}

func TestMailServerThatIsSilentIsLeftInTime(t *testing.T) {
	l := listen(t, "127.0.0.1:0") // accepts connections and sends nothing
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	m := message{from: &mail.Address{}, to: &mail.Address{}}
	if err := server(l.Addr().String()).deliver(ctx, m); err == nil {
		t.Error("no error")
	}
}

func TestStandInPrintsAMessageOnce(t *testing.T) {
	out := &strings.Builder{}
	p := &printer{out: out}
	m := message{id: "1", from: &mail.Address{}, to: &mail.Address{}}
	if err := errors.Join(p.deliver(t.Context(), m), p.deliver(t.Context(), m)); err != nil || strings.Count(out.String(), "Message-ID: <1>") != 1 {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
}
