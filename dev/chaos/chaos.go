//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/dev/internal/binary"
	"github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/archive"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
)

// Options configure a run.
type Options struct {
	// Sessions is the number of sessions, and Rate how many are offered a second.
	Sessions int
	Rate     float64
	// Outage is the duration of an outage of Temporal. Each is up to half as long again.
	Outage time.Duration
	// Pause is the pause between two faults. Each is up to twice as long.
	Pause time.Duration
	// Seed decides the faults and the callbacks, and their times. The outcome also
	// depends on the machine.
	Seed uint64
	// Dir is the folder of all files. If it is empty, Run makes a folder, and removes it
	// after success.
	Dir string
}

// restart bounds the time between the kill of a process and its restart.
const restart = 2 * time.Second

// diskFull bounds the time for which the disk is full. If Temporal is down at the same
// time, no callback can be accepted, and ZEGO retries for only 62 s.
const diskFull = 5 * time.Second

// patience is the time after which the audit gives up if no further session was closed
// out. The time for all sessions depends on the machine.
const patience = 5 * time.Minute

// Run runs the test, and returns an error if any guarantee was broken.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	fmt.Fprintf(out, "seed %d\n", o.Seed)
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "closeout-chaos-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(dir)
			} else {
				fmt.Fprintf(out, "logs, ledger and archive are in %s\n", dir)
			}
		}()
	}
	s, err := newStage(ctx, o, dir, out)
	if err != nil {
		return err
	}
	defer s.close()
	return s.play(ctx)
}

// stage holds everything that the test breaks.
type stage struct {
	Options
	out                       io.Writer
	config                    *config.Config
	journal                   string
	temporal, webhook, worker *process
	disk                      *disk // nil without privileges
	billing                   *billing
	broken                    map[string]int
}

func newStage(ctx context.Context, o Options, dir string, out io.Writer) (_ *stage, err error) {
	s := &stage{Options: o, out: out, journal: filepath.Join(dir, "journal.jsonl"), broken: map[string]int{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	closeout, err := binary.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	local := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	if s.billing, err = newBilling(local(4), o.Seed); err != nil {
		return nil, err
	}

	// The webhook and the worker have different disks.
	box := filepath.Join(dir, "webhook")
	if s.disk, err = mountDisk(box); errors.Is(err, errNoDisk) {
		fmt.Fprintf(out, "%v, so the disk is never full\n", err)
	} else if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	flags := map[string]string{
		"apps": "1=secret", "listen": local(1), "data": data, "billing-url": "http://" + local(4), "reconcile-interval": "5s",
	}
	if s.config, err = config.Load(func(name string) (string, bool) { v, ok := flags[name]; return v, ok }, true); err != nil {
		return nil, err
	}
	s.config.Temporal = client.Options{HostPort: local(0), Namespace: client.DefaultNamespace}
	for _, folder := range []string{s.config.RecordingsURL, s.config.ArchiveURL} {
		b, err := archive.OpenBucket(ctx, folder) // creates the folder
		if err != nil {
			return nil, err
		}
		_ = b.Close()
	}

	environment := []string{
		"CLOSEOUT_APPS=1=secret", "CLOSEOUT_SETTLING=1500ms", "CLOSEOUT_RECONCILE_INTERVAL=5s", "CLOSEOUT_DATABASE_URL=" + s.config.DatabaseURL, "CLOSEOUT_LISTEN=" + local(1), "CLOSEOUT_BILLING_URL=http://" + local(4),
		"TEMPORAL_ADDRESS=" + local(0), "TEMPORAL_NAMESPACE=" + client.DefaultNamespace,
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.temporal = &process{
		name: "temporal", argv: []string{self}, env: []string{fmt.Sprintf("%s=%d:%s", temporalVariable, ports[0], filepath.Join(dir, "temporal"))},
		log: filepath.Join(dir, "temporal.log"), ready: s.namespaceAnswers,
	}
	s.webhook = &process{
		name: "webhook", argv: []string{closeout, "webhook"}, env: append(environment, "CLOSEOUT_DATA="+box, "CLOSEOUT_ADMIN_LISTEN="+local(2)),
		log: filepath.Join(dir, "webhook.log"), ready: answers("http://" + local(2) + "/livez"),
	}
	s.worker = &process{
		name: "worker", argv: []string{closeout, "worker"}, env: append(environment, "CLOSEOUT_DATA="+data, "CLOSEOUT_ADMIN_LISTEN="+local(3)),
		log: filepath.Join(dir, "worker.log"), ready: answers("http://" + local(3) + "/readyz"),
	}
	for _, p := range []*process{s.temporal, s.webhook, s.worker} {
		if err := p.start(); err != nil {
			return nil, err
		}
	}
	if err := s.temporal.wait(ctx); err != nil {
		return nil, err
	}
	setup, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := service.Setup(setup, s.config, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	if err := s.webhook.wait(ctx); err != nil {
		return nil, err
	}
	return s, s.worker.wait(ctx)
}

// namespaceAnswers reports whether Temporal answers.
func (s *stage) namespaceAnswers(ctx context.Context) bool {
	c, err := client.DialContext(ctx, s.config.Temporal)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (s *stage) close() {
	for _, p := range []*process{s.worker, s.webhook, s.temporal} {
		if p != nil {
			p.end(syscall.SIGTERM)
		}
	}
	if s.billing != nil {
		s.billing.close()
	}
	if s.disk != nil {
		s.disk.unmount()
	}
}

// play sends callbacks and breaks things, then repairs everything and audits.
func (s *stage) play(ctx context.Context) error {
	breaking, enough := context.WithCancel(ctx)
	group, groupCtx := errgroup.WithContext(ctx)
	var report *load.Report
	group.Go(func() (err error) {
		defer enough()
		report, err = s.send(groupCtx)
		return err
	})
	group.Go(func() error { return s.breakThings(breaking) })
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintln(s.out, "broken:")
	for _, what := range slices.Sorted(maps.Keys(s.broken)) {
		fmt.Fprintf(s.out, "  %-16s %3d times\n", what, s.broken[what])
	}
	if err := report.WriteText(s.out); err != nil {
		return err
	}
	found, err := s.audit(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "\naudit:")
	if err := found.WriteText(s.out); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	return s.judge(report, found)
}

func (s *stage) send(ctx context.Context) (*load.Report, error) {
	f, err := os.Create(s.journal)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := json.NewEncoder(f)
	var fault error
	recordings := filepath.Join(s.config.Data, "recordings")
	report, err := load.Run(ctx, load.Options{
		URL: "http://" + s.config.Listen + webhook.Path, AppID: 1, Secret: "secret", RoomID: "room", Rooms: 500,
		RoomSessionID: 1 << 63, Count: s.Sessions, Rate: s.Rate, Spread: 2 * time.Second, Duplicates: .3, BadSignatures: .01, Resign: .5,
		Participants: 2, Missing: .02,
		Timeout: 5 * time.Second, Seed: s.Seed, Progress: s.out,
		Journal: func(e audit.Entry) { fault = errors.Join(fault, lines.Encode(e)) },
		// Each recording exists before its room is closed.
		Transport: &recorder{folder: recordings, next: &http.Transport{MaxIdleConnsPerHost: 512}},
	}, s.out)
	return report, errors.Join(err, fault)
}

// breakThings breaks one thing after another, and sometimes two at once, until ctx ends.
// Then it repairs everything.
func (s *stage) breakThings(ctx context.Context) error {
	// Repairs go on after ctx has ended.
	mend := context.WithoutCancel(ctx)
	r := rand.New(rand.NewPCG(s.Seed, 1))
	up := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most) + 1)) }
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	kill := func(p *process, away time.Duration) error {
		s.broken[p.name+" killed"]++
		p.end(syscall.SIGKILL)
		pause(away)
		if err := p.start(); err != nil {
			return err
		}
		if p == s.webhook {
			return p.wait(mend)
		}
		return nil
	}
	outage := func(d time.Duration, during func() error) error {
		s.broken["Temporal stopped"]++
		s.temporal.end(syscall.SIGTERM)
		began := time.Now()
		if err := during(); err != nil {
			return err
		}
		pause(d - time.Since(began))
		if err := s.temporal.start(); err != nil {
			return err
		}
		return s.temporal.wait(mend)
	}
	full := func(meanwhile func() error) error {
		if s.disk == nil {
			return nil
		}
		s.broken["disk full"]++
		if err := s.disk.fill(); err != nil {
			return err
		}
		return errors.Join(meanwhile(), s.disk.free())
	}
	// closed calls do, during which no callback can be accepted. If ZEGO could then drop
	// a callback without a fault of Closeout, it kills the worker instead.
	var spared ladder
	closed := func(atMost, away time.Duration, do func() error) error {
		began := time.Now()
		if !spared.bears(began, began.Add(atMost)) {
			return kill(s.worker, away)
		}
		err := do()
		spared.closed(began, time.Now())
		return err
	}
	killWebhook := func(away time.Duration) error {
		return closed(away+starting, away, func() error { return kill(s.webhook, away) })
	}
	still := func(d time.Duration) func() error { return func() error { pause(d); return nil } }
	for ctx.Err() == nil {
		pause(s.Pause/4 + up(s.Pause))
		if ctx.Err() != nil {
			break
		}
		// Draw all numbers in every round, so that further choices of the seed don't
		// depend on this one.
		what, long, away, filled := r.IntN(10), s.Outage+up(s.Outage/2), up(restart), up(diskFull)
		var err error
		switch what {
		case 0, 1, 2:
			err = killWebhook(away)
		case 3, 4:
			err = kill(s.worker, away)
		case 5:
			err = outage(long, func() error { return nil })
		case 6:
			err = outage(long, func() error { return killWebhook(away) })
		case 7:
			err = outage(long, func() error {
				return closed(filled, away, func() error { return full(still(filled)) })
			})
		case 8:
			err = closed(filled, away, func() error { return full(still(filled)) })
		case 9:
			// The webhook is killed and restarted while the disk is full.
			err = closed(away+starting+filled/3, away, func() error {
				return full(func() error {
					err := kill(s.webhook, away)
					pause(filled / 3)
					return err
				})
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) audit(ctx context.Context) (audit.Report, error) {
	temporal, err := service.Dial(s.config, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return audit.Report{}, err
	}
	defer temporal.Close()
	books, err := ledger.Open(s.config.DatabaseURL)
	if err != nil {
		return audit.Report{}, err
	}
	defer books.Close()
	kept, err := archive.OpenBucket(ctx, s.config.ArchiveURL)
	if err != nil {
		return audit.Report{}, err
	}
	defer kept.Close()
	webhook := config.Config{Data: filepath.Join(filepath.Dir(s.config.Data), "webhook")}
	inboxes, err := audit.OpenInboxes(ctx, []string{webhook.Inbox()})
	if err != nil {
		return audit.Report{}, err
	}
	defer inboxes.Close()
	events, err := audit.OpenInboxes(ctx, []string{webhook.EventInbox()})
	if err != nil {
		return audit.Report{}, err
	}
	defer events.Close()
	o := audit.Options{
		Temporal: temporal, Ledger: books, Archive: kept, Inbox: inboxes.All, Journal: audit.Journal(s.journal), Complete: true,
		EventInbox: events.All,
	}
	for pending := int64(math.MaxInt64); ; {
		found, err := audit.Wait(ctx, o, patience)
		if err != nil || found.Pending() == 0 || found.Pending() >= pending {
			return found, err
		}
		pending = found.Pending()
	}
}

// judge returns an error for each broken guarantee.
func (s *stage) judge(sent *load.Report, found audit.Report) error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(sent.Lost == 0, "%d callbacks were lost: ZEGO would have forgotten them", sent.Lost)
	check(sent.Acknowledged == int64(s.Sessions), "%d of %d sessions were acknowledged", sent.Acknowledged, s.Sessions)
	check(sent.BadlySigned.Accepted == 0, "%d badly signed callbacks were accepted", sent.BadlySigned.Accepted)
	check(found.OK(), "the audit found %d faults", found.Count())
	check(found.Pending() == 0, "%d sessions were still pending, as many as %v before", found.Pending(), patience)
	check(sent.Events.Lost == 0, "%d callbacks of participants were lost", sent.Events.Lost)
	check(found.SessionsCompared > int64(s.Sessions)*9/10, "%d bills were compared with what happened", found.SessionsCompared)
	check(found.Bills == sent.Acknowledged, "%d bills for %d acknowledged sessions", found.Bills, sent.Acknowledged)
	faults = append(faults, s.billing.check(int(sent.Acknowledged)))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("seed %d: %w", s.Seed, err)
	}
	fmt.Fprintf(s.out, "%d adjustments of bills\n", len(s.billing.adjustments))
	fmt.Fprintf(s.out, "%d sessions acknowledged: each has one run, one bill, which is true or says that it is an estimate, and one manifest\n", sent.Acknowledged)
	return nil
}

// recorder stores recordings for some sessions, as ZEGO does, before the session's
// callback is sent.
type recorder struct {
	folder string
	next   http.RoundTripper
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	var c struct {
		RoomSessionID uint64 `json:"room_session_id"`
	}
	if err := json.NewDecoder(body).Decode(&c); err != nil {
		return nil, err
	}
	if c.RoomSessionID>>63 == 1 && c.RoomSessionID%5 == 0 { // a badly signed one has the highest bit flipped
		dir := filepath.Join(r.folder, filepath.FromSlash(session.Session{ID: session.ID{AppID: 1, RoomSessionID: c.RoomSessionID}}.Folder()))
		path := filepath.Join(dir, "recording.mp4")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(dir, 0o750); err != nil {
				return nil, err
			}
			if err := os.WriteFile(path, []byte(strings.Repeat("sound and picture\n", 1000)), 0o600); err != nil {
				return nil, err
			}
		}
	}
	return r.next.RoundTrip(req)
}

// billing is the API to which bills are posted. Like real APIs it sometimes fails, before
// or after it has stored a bill.
type billing struct {
	server *http.Server
	mu     sync.Mutex
	random *rand.Rand
	// The values have the key and body of an entry, by session.
	bills, adjustments map[string]string
	faults             []error
}

func newBilling(address string, seed uint64) (*billing, error) {
	b := &billing{random: rand.New(rand.NewPCG(seed, 2)), bills: map[string]string{}, adjustments: map[string]string{}}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	go func() { _ = b.server.Serve(l) }()
	return b, nil
}

func (b *billing) close() { _ = b.server.Close() }

func (b *billing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Type string `json:"type"`
		Data struct {
			Number        int    `json:"number"`
			AppID         uint32 `json:"appid"`
			RoomSessionID string `json:"room_session_id"`
		} `json:"data"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &event)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil || event.Data.RoomSessionID == "" {
		b.faults = append(b.faults, fmt.Errorf("a bill that can't be read: %s: %w", body, err))
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	chance := b.random.IntN(100)
	if chance == 0 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	session := fmt.Sprintf("%d-%s", event.Data.AppID, event.Data.RoomSessionID)
	bill := r.Header.Get("Idempotency-Key") + " " + string(body)
	entries := b.bills
	if event.Type == "io.closeout.bill.adjusted.v1" {
		entries, session = b.adjustments, fmt.Sprintf("%s, adjustment %d", session, event.Data.Number)
	}
	if first, ok := entries[session]; ok && first != bill {
		b.faults = append(b.faults, fmt.Errorf("session %s was billed twice:\n%s\n%s", session, first, bill))
	}
	entries[session] = bill
	if chance == 1 {
		w.WriteHeader(http.StatusBadGateway)
	}
}

// check returns an error unless each session has exactly one bill.
func (b *billing) check(sessions int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	faults := b.faults
	if len(b.bills) != sessions {
		faults = append(faults, fmt.Errorf("the billing API has the bills of %d sessions, want %d", len(b.bills), sessions))
	}
	keys := map[string]bool{}
	for _, entries := range []map[string]string{b.bills, b.adjustments} {
		for _, entry := range entries {
			key, _, _ := strings.Cut(entry, " ")
			if key == "" || keys[key] {
				faults = append(faults, fmt.Errorf("idempotency key %q is missing or another entry's", key))
			}
			keys[key] = true
		}
	}
	return errors.Join(faults...)
}
