// Command pictures makes the pictures in docs/images. It runs the rooms of docs/start.md
// and takes screenshots of Temporal's Web UI. It needs chromium and pngquant. Look at
// each picture before you commit it:
//
//	go run -C dev ./pictures
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

const (
	ui       = "http://127.0.0.1:28233"
	lobby    = "858012925204410417"
	paid     = "858012925204410418"
	patience = 30 * time.Second
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "pictures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	s := stack{work: work}
	defer s.stop()
	if _, err := output(exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(work, "dev"), ".")); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	b, err := startBrowser(ctx, work)
	if err != nil {
		return err
	}
	defer b.stop()

	if err := s.play(ctx, "lobby", lobby, "Completed, done"); err != nil {
		return err
	}
	page, err := s.page(ctx, lobby)
	if err != nil {
		return err
	}
	if err := b.picture(ctx, "run", 960, page+"/timeline", "FinalizeBill"); err != nil {
		return err
	}

	// A billing API that refuses every bill.
	s.stop()
	if err := s.start(ctx, "CLOSEOUT_BILLING_URL="+ui+"/bills"); err != nil {
		return err
	}
	if err := s.play(ctx, "paid", paid, "Running, blocked"); err != nil {
		return err
	}
	if page, err = s.page(ctx, paid); err != nil {
		return err
	}
	return errors.Join(
		b.picture(ctx, "blocked", 760, page+"/user-metadata", "Current Details"),
		b.picture(ctx, "list", 480, ui+"/namespaces/default/workflows", "room-close-1-"+paid))
}

// output runs a command and returns its output. On failure, the error contains the
// output.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), err
}

// await calls done until it returns true, or until nothing changes any more.
func await(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not seen in time: %s", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// stack is a dev stack on its own ports, in its own folder.
type stack struct {
	work string
	cmd  *exec.Cmd
}

func (s *stack) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.work, "dev"), args...)
	cmd.Env = append(os.Environ(), "CLOSEOUT_DATA="+filepath.Join(s.work, "data"), "CLOSEOUT_LISTEN=127.0.0.1:28080",
		"CLOSEOUT_ADMIN_LISTEN=127.0.0.1:29090", "CLOSEOUT_DEV_TEMPORAL_PORT=27233", "CLOSEOUT_DEV_UI_PORT=28233")
	return cmd
}

func (s *stack) start(ctx context.Context, env ...string) error {
	log, err := os.Create(filepath.Join(s.work, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command(ctx)
	s.cmd.Env = append(s.cmd.Env, env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	return await(ctx, "Closeout is running; see its log", func() bool {
		text, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(text), "Closeout is running")
	})
}

func (s *stack) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// play sends a room, and waits until its run has the given state.
func (s *stack) play(ctx context.Context, room, session, state string) error {
	if _, err := output(s.command(ctx, "send", "--room", room, "--session", session)); err != nil {
		return err
	}
	return await(ctx, session+" is "+state, func() bool {
		status, _ := output(s.command(ctx, "status", session))
		return strings.Contains(status, state)
	})
}

// page returns the address of a session's run.
func (s *stack) page(ctx context.Context, session string) (string, error) {
	status, err := output(s.command(ctx, "status", session))
	found := regexp.MustCompile(`(/namespaces/\S+)/history`).FindStringSubmatch(status)
	if err != nil || found == nil {
		return "", errors.Join(err, fmt.Errorf("found no address in %s", status))
	}
	return ui + found[1], nil
}

// browser is a page of Chromium, controlled by the DevTools protocol.
type browser struct {
	cmd  *exec.Cmd
	conn *websocket.Conn
	work string
	id   int
}

func startBrowser(ctx context.Context, work string) (*browser, error) {
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en-US",
		"--remote-debugging-port=0", "--remote-allow-origins=*", "--user-data-dir="+filepath.Join(work, "chromium"), "about:blank")
	cmd.Env = append(os.Environ(), "TZ=UTC")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &browser{cmd: cmd, work: work}
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if _, address, found := strings.Cut(lines.Text(), "DevTools listening on "); found {
			if b.conn, err = websocket.Dial(address, "", "http://localhost"); err != nil {
				return nil, err
			}
			go func() { // otherwise it would block
				for lines.Scan() {
				}
			}()
			return b, nil
		}
	}
	return nil, errors.New("chromium gave no address")
}

func (b *browser) stop() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// call calls a method of the protocol, on a page if it is not empty.
func (b *browser) call(page, method string, params, result any) error {
	b.id++
	request := map[string]any{"id": b.id, "method": method, "params": params}
	if page != "" {
		request["sessionId"] = page
	}
	if err := websocket.JSON.Send(b.conn, request); err != nil {
		return err
	}
	for {
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		switch err := websocket.JSON.Receive(b.conn, &answer); {
		case err != nil:
			return err
		case answer.ID != b.id: // an event
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", method, answer.Error.Message)
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

// calm is how long a page must stay unchanged before a screenshot. The animations of a
// running Workflow never end, so maxCalm bounds the wait.
const calm, maxCalm = 2 * time.Second, 8 * time.Second

// still takes a screenshot of a page after it has stayed unchanged.
func (b *browser) still(ctx context.Context, page string) (shot []byte, err error) {
	began := time.Now()
	since := began
	waitErr := await(ctx, "the page is still", func() bool {
		var now struct{ Data []byte }
		if err = b.call(page, "Page.captureScreenshot", map[string]any{"format": "png"}, &now); err != nil {
			return true
		}
		if !bytes.Equal(now.Data, shot) {
			shot, since = now.Data, time.Now()
		}
		return time.Since(since) > calm || time.Since(began) > maxCalm
	})
	return shot, errors.Join(err, waitErr)
}

// picture takes a screenshot of a page that shows a text, as docs/images/NAME.png.
func (b *browser) picture(ctx context.Context, name string, height int, address, text string) error {
	var target struct{ TargetID string }
	var page struct{ SessionID string }
	var none struct{}
	if err := b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	if err := b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &page); err != nil {
		return err
	}
	size := map[string]any{"width": 1280, "height": height, "deviceScaleFactor": 1, "mobile": false}
	if err := b.call(page.SessionID, "Emulation.setDeviceMetricsOverride", size, &none); err != nil {
		return err
	}
	if err := b.call(page.SessionID, "Page.navigate", map[string]any{"url": address}, &none); err != nil {
		return err
	}
	shown := map[string]any{"expression": fmt.Sprintf("document.body.textContent.includes(%q)", text)}
	err := await(ctx, name+" shows "+text, func() bool {
		var answer struct{ Result struct{ Value bool } }
		return b.call(page.SessionID, "Runtime.evaluate", shown, &answer) == nil && answer.Result.Value
	})
	if err != nil {
		var answer struct{ Result struct{ Value string } }
		_ = b.call(page.SessionID, "Runtime.evaluate", map[string]any{"expression": "document.body.innerText"}, &answer)
		return fmt.Errorf("%w; it shows\n%s", err, answer.Result.Value)
	}
	shot, err := b.still(ctx, page.SessionID)
	if err != nil {
		return err
	}
	file := filepath.Join(b.work, name+".png")
	if err := os.WriteFile(file, shot, 0o600); err != nil {
		return err
	}
	_, err = output(exec.CommandContext(ctx, "pngquant", "--force", "--output", filepath.Join("..", "docs", "images", name+".png"), file))
	return err
}
