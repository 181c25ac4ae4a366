//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	storm "github.com/closeouthq/closeout/dev/internal/load"
	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
	"github.com/closeouthq/closeout/zego"
)

// rounds is the number of rounds of each benchmark. Results are medians over the rounds,
// of figures and of ratios within a round.
const rounds = 3

func median(figures []float64) float64 {
	figures = slices.Sorted(slices.Values(figures))
	if len(figures) == 0 {
		return 0
	}
	return figures[len(figures)/2]
}

// series collects figures by name, round by round.
type series map[string][]float64

func (s series) add(name string, figure float64) { s[name] = append(s[name], figure) }

// ratio returns the median of the per-round ratios of two figures.
func (s series) ratio(over, under string) float64 {
	var ratios []float64
	for i := range min(len(s[over]), len(s[under])) {
		ratios = append(ratios, s[over][i]/s[under][i])
	}
	return median(ratios)
}

// world is a Temporal server with a client.
type world struct {
	*process
	dir    string
	client client.Client
}

func (b *bench) newWorld(ctx context.Context) (*world, error) {
	dir := b.folder()
	p, err := b.start("temporal", "--dir", dir)
	if err != nil {
		return nil, err
	}
	if err := setUp(ctx, p.address, b.folder()); err != nil {
		p.stop()
		return nil, err
	}
	c, err := client.Dial(client.Options{HostPort: p.address, Logger: silent})
	if err != nil {
		p.stop()
		return nil, err
	}
	return &world{p, dir, c}, nil
}

func (w *world) stop() {
	w.client.Close()
	w.process.stop()
}

// count counts the runs that match a query.
func (w *world) count(ctx context.Context, query string) (int64, error) {
	answer, err := w.client.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", query, err)
	}
	return answer.GetCount(), nil
}

// bare starts workflows with the SDK alone, with a number of starts in flight.
func (w *world) bare(ctx context.Context, inFlight int, d time.Duration) (*load, error) {
	var (
		mu    sync.Mutex
		all   load
		fault error
		wg    sync.WaitGroup
	)
	began := time.Now()
	for range inFlight {
		wg.Go(func() {
			for time.Since(began) < d {
				s := session.Session{ID: session.ID{AppID: 1, RoomSessionID: rand.Uint64()}, RoomID: "rid_1242649", RoomCloseTime: time.Now()}
				at := time.Now()
				_, err := w.client.ExecuteWorkflow(ctx, workflows.StartOptions(s, taskQueue), workflows.RoomClose, s)
				mu.Lock()
				all.latencies = append(all.latencies, time.Since(at))
				fault = err
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	all.took = time.Since(began)
	slices.Sort(all.latencies)
	return &all, fault
}

// alone measures how many starts a second the SDK alone makes, by the number in flight.
func (w *world) alone(ctx context.Context) (map[int]float64, error) {
	rates := map[int]float64{}
	for _, n := range bestInFlight {
		l, err := w.bare(ctx, n, 4*time.Second)
		if err != nil {
			return nil, err
		}
		rates[n] = l.rate()
	}
	return rates, nil
}

// best returns the figures of the number in flight with the highest median.
func (s series) best(name string) string {
	return inFlight(name, slices.MaxFunc(bestInFlight, func(a, b int) int {
		return cmp.Compare(median(s[inFlight(name, a)]), median(s[inFlight(name, b)]))
	}))
}

func inFlight(name string, n int) string { return fmt.Sprintf("%s, %d in flight", name, n) }

// waiting returns the number of callbacks in a Closeout's inbox.
func waiting(admin string) (int, error) { return depth(admin, "closeout_inbox_depth") }

// depth returns the value of an inbox metric.
func depth(admin, metric string) (int, error) {
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	scanner := bufio.NewScanner(resp.Body)
	for scanner.Scan() {
		var n float64 // a million is written as 1e+06
		if _, err := fmt.Sscanf(scanner.Text(), metric+`{state="waiting"} %g`, &n); err == nil {
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("no depth in the metrics: %w", scanner.Err())
}

// drained waits until the inbox is empty.
func drained(ctx context.Context, admin string) error {
	return emptied(ctx, admin, "closeout_inbox_depth")
}

func emptied(ctx context.Context, admin, metric string) error {
	for ctx.Err() == nil {
		n, err := depth(admin, metric)
		if err != nil || n == 0 {
			return err
		}
		time.Sleep(200 * time.Millisecond) // polling costs CPU too
	}
	return ctx.Err()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// role is the command that a Closeout runs.
type role string

const (
	webhooks role = "webhook" // the deployed binary
	serves   role = "serve"   // the deployed binary
	noops    role = "noops"   // serve inside the benchmark's program, with steps that do nothing
)

// closeout starts a Closeout and returns its addresses for callbacks and operators.
func (b *bench) closeout(temporal, dir string, what role, environment ...string) (*process, string, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	if what == noops {
		p, err := b.start("closeout", "--temporal", temporal, "--dir", dir, "--admin", admin)
		return p, admin, err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	// If a name has two values, the later one counts.
	p, err := b.startCloseout(what, append([]string{
		"CLOSEOUT_APPS=1=" + secret, "CLOSEOUT_LISTEN=" + listen, "CLOSEOUT_ADMIN_LISTEN=" + admin, "CLOSEOUT_DATA=" + dir, "CLOSEOUT_SETTLING=0s", "CLOSEOUT_TASK_QUEUE=" + taskQueue,
		"TEMPORAL_ADDRESS=" + temporal, "TEMPORAL_NAMESPACE=" + client.DefaultNamespace,
	}, environment...)...)
	if err != nil {
		return nil, "", err
	}
	p.address = listen
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://" + admin + "/livez")
		if err == nil {
			return p, admin, resp.Body.Close()
		}
		if time.Since(began) > time.Minute {
			p.stop()
			return nil, "", fmt.Errorf("closeout %s doesn't start: %w", what, err)
		}
	}
}

// measureKnee measures how many starts a second the server makes, by the number in
// flight.
func measureKnee(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	b.table("in flight\tstarts/s\tp50\tp99")
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		l, err := w.bare(ctx, n, 4*time.Second)
		if err != nil {
			return err
		}
		b.row("%d\t%.0f\t%v\t%v", n, l.rate(), ms(l.quantile(.5)), ms(l.quantile(.99)))
	}
	return b.flush()
}

func ms(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// bestInFlight are the numbers of callers in flight to choose the best median from.
var bestInFlight = []int{4, 8, 16}

// measureHealthy compares the callbacks acknowledged through to Temporal with the starts
// of the SDK alone, and with the naive handler, with its own and with Closeout's start
// options, which the SDK alone has here too. No worker runs the workflows.
func measureHealthy(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	naive, err := b.start("naive", "--temporal", w.address)
	if err != nil {
		return err
	}
	defer naive.stop()
	findable, err := b.start("naive", "--temporal", w.address, "--findable")
	if err != nil {
		return err
	}
	defer findable.stop()
	ours, admin, err := b.closeout(w.address, b.folder(), webhooks)
	if err != nil {
		return err
	}
	defer ours.stop()

	const (
		d             = 3 * time.Second
		naiveFindable = "naive, with Closeout's start options"
	)
	contenders := []struct {
		name string
		rate func(connections int) (float64, error)
	}{
		{"SDK", func(n int) (float64, error) {
			l, err := w.bare(ctx, n, d)
			return l.rate(), err
		}},
		{"naive", func(n int) (float64, error) {
			l, err := closedLoop(ctx, naive.address, n, d)
			return l.rate(), err
		}},
		{naiveFindable, func(n int) (float64, error) {
			l, err := closedLoop(ctx, findable.address, n, d)
			return l.rate(), err
		}},
		{"Closeout", func(n int) (float64, error) {
			l, err := closedLoop(ctx, ours.address, n, d)
			if err != nil {
				return 0, err
			}
			// Count only runs that Temporal has now.
			left, err := waiting(admin)
			if err != nil {
				return 0, err
			}
			return float64(l.n()-left) / l.took.Seconds(), drained(ctx, admin)
		}},
	}
	s := series{}
	for round := range 2 * len(contenders) {
		for _, n := range bestInFlight {
			for k := range contenders {
				// Rotate the order, because the server gets slower as it fills, and
				// pauses at times.
				c := contenders[(k+round)%len(contenders)]
				rate, err := c.rate(n)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				s.add(inFlight(c.name, n), rate)
			}
		}
	}
	b.table("healthy\tstarts/s")
	for _, name := range []string{"SDK", "naive", naiveFindable, "Closeout"} {
		b.row("%s\t%.0f", name, median(s[s.best(name)]))
	}
	b.row("Closeout / SDK\t%.2f (want 0.97)", s.ratio(s.best("Closeout"), s.best("SDK")))
	b.row("Closeout / naive\t%.2f (want 1)", s.ratio(s.best("Closeout"), s.best("naive")))
	b.row("Closeout / naive, with Closeout's start options\t%.2f", s.ratio(s.best("Closeout"), s.best(naiveFindable)))
	return b.flush()
}

// measureBurst compares how many callbacks are durably acknowledged while Temporal is
// down with handlers that only verify and store.
func measureBurst(ctx context.Context, b *bench) error {
	// A burst doesn't include the work of a process at its start.
	const warm, d = time.Second, 4 * time.Second
	nowhere, err := freeAddress()
	if err != nil {
		return err
	}
	names := []string{"none", "pebble", "sqlite", "bbolt", "Closeout"}
	for _, connections := range []int{64, 512} {
		rates, tails := series{}, series{}
		for round := range 2*rounds - 1 {
			for k := range names {
				// Rotate the order, because the machine's speed varies.
				name := names[(k+round)%len(names)]
				var p *process
				if name == "Closeout" {
					p, _, err = b.closeout(nowhere, b.folder(), webhooks)
				} else {
					p, err = b.start("bare", "--store", name, "--dir", b.folder())
				}
				if err != nil {
					return err
				}
				var l *load
				if _, err = closedLoop(ctx, p.address, connections, warm); err == nil {
					l, err = closedLoop(ctx, p.address, connections, d)
				}
				p.stop()
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				rates.add(name, l.rate())
				tails.add(name, l.quantile(.99).Seconds()*1000)
			}
		}
		// Don't take each round's fastest: the highest of scattered figures means little.
		fastest := slices.MaxFunc([]string{"pebble", "sqlite", "bbolt"}, func(a, b string) int { return cmp.Compare(median(rates[a]), median(rates[b])) })
		b.table(fmt.Sprintf("burst, %d connections\tacknowledged/s\tp99 ms", connections))
		for _, name := range names {
			b.row("%s\t%.0f\t%.0f", name, median(rates[name]), median(tails[name]))
		}
		b.row("Closeout / %s, the fastest\t%.2f (want 0.8)\t", fastest, rates.ratio("Closeout", fastest))
		if err := b.flush(); err != nil {
			return err
		}
	}
	return measureOpenBurst(ctx, b)
}

// measureOpenBurst sends 20,000 callbacks at 5,000 a second, with Temporal down and with
// Temporal up, and measures the memory.
func measureOpenBurst(ctx context.Context, b *bench) error {
	// The bare handler runs in the benchmark's program, which maps many files. Count only
	// its anonymous memory.
	b.table("20,000 callbacks at 5,000/s\tlost\tp50 ms\tp99 ms\tresident MB, at most\tof no file, in the end")
	for _, c := range []struct {
		name string
		what role
		away bool
	}{{"Closeout webhook, Temporal there", webhooks, false}, {"Closeout serve, Temporal there", serves, false}, {"Closeout webhook, Temporal away", webhooks, true}, {"pebble", "", true}} {
		// Each has its own Temporal, because it would run the leftovers of another.
		report, most, own, err := func() (*storm.Report, int64, int64, error) {
			address, err := freeAddress()
			if err == nil && !c.away {
				var w *world
				if w, err = b.newWorld(ctx); err == nil {
					defer w.stop()
					address = w.address
				}
			}
			if err != nil {
				return nil, 0, 0, err
			}
			var p *process
			if c.name == "pebble" {
				p, err = b.start("bare", "--store", "pebble", "--dir", b.folder())
			} else {
				p, _, err = b.closeout(address, b.folder(), c.what)
			}
			if err != nil {
				return nil, 0, 0, err
			}
			defer p.stop()
			if _, err := closedLoop(ctx, p.address, 8, time.Second); err != nil {
				return nil, 0, 0, err
			}
			report, err := b.send(ctx, p.address, storm.Options{Count: 20_000, Rate: 5000})
			return report, p.memory("VmHWM"), p.memory("RssAnon"), err
		}()
		if err != nil {
			return err
		}
		b.row("%s\t%d\t%.0f\t%.0f\t%d\t%d", c.name, report.Lost, report.Latency.Session.P50, report.Latency.Session.P99, most>>20, own>>20)
	}
	return b.flush()
}

// measureFinishing compares how many runs complete while callbacks keep coming, with two
// steps that do nothing.
func measureFinishing(ctx context.Context, b *bench) error {
	const d, connections = 10 * time.Second, 8
	s := series{}
	for range rounds {
		for _, name := range []string{"naive", "Closeout"} {
			w, err := b.newWorld(ctx)
			if err != nil {
				return err
			}
			var p *process
			if name == "Closeout" {
				p, _, err = b.closeout(w.address, b.folder(), noops)
			} else {
				p, err = b.start("naive", "--temporal", w.address, "--worker")
			}
			if err != nil {
				w.stop()
				return err
			}
			l, err := closedLoop(ctx, p.address, connections, d)
			var done, started int64
			if err == nil {
				done, err = w.count(ctx, "ExecutionStatus = 'Completed'")
			}
			if err == nil {
				started, err = w.count(ctx, "")
			}
			p.stop()
			w.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			s.add(name, float64(done)/d.Seconds())
			s.add(name+" acknowledged", l.rate())
			s.add(name+" started", float64(started)/d.Seconds())
		}
	}
	b.table("finishing\tcompleted/s\tstarted/s\tacknowledged/s")
	for _, name := range []string{"naive", "Closeout"} {
		b.row("%s\t%.0f\t%.0f\t%.0f", name, median(s[name]), median(s[name+" started"]), median(s[name+" acknowledged"]))
	}
	b.row("Closeout / naive\t%.2f (want 1.4)\t\t", s.ratio("Closeout", "naive"))
	if err := b.flush(); err != nil {
		return err
	}
	return measureStarving(ctx, b)
}

// measureStarving measures whether the runs started in the minute of a burst complete in
// that minute.
func measureStarving(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	p, _, err := b.closeout(w.address, b.folder(), noops)
	if err != nil {
		return err
	}
	defer p.stop()
	began := time.Now()
	if _, err := closedLoop(ctx, p.address, 64, 10*time.Second); err != nil {
		return err
	}
	time.Sleep(time.Minute - time.Since(began)) // the measured minute
	done, err := w.count(ctx, "ExecutionStatus = 'Completed'")
	if err != nil {
		return err
	}
	started, err := w.count(ctx, "")
	if err != nil {
		return err
	}
	b.table("the minute of a burst\tstarted\tcompleted\tratio")
	b.row("Closeout\t%d\t%d\t%.2f (want 0.8)", started, done, float64(done)/float64(started))
	return b.flush()
}

// measureDrain compares how fast a backlog is started with the starts of the SDK alone,
// and the latency of new callbacks during that with their latency without a backlog.
func measureDrain(ctx context.Context, b *bench) error {
	const backlog = 4000
	s := series{}
	for range rounds {
		w, err := b.newWorld(ctx)
		if err != nil {
			return err
		}
		err = func() error {
			defer w.stop()
			// Measure before and after, because a server gets slower as it fills.
			before, err := w.alone(ctx)
			if err != nil {
				return err
			}

			dir := b.folder()
			if err := fill(ctx, b, dir, backlog); err != nil {
				return err
			}
			began := time.Now()
			p, admin, err := b.closeout(w.address, dir, webhooks)
			if err != nil {
				return err
			}
			if err := drained(ctx, admin); err != nil {
				return err
			}
			s.add("drain", backlog/time.Since(began).Seconds())
			after, err := w.alone(ctx)
			if err != nil {
				return err
			}
			for _, n := range bestInFlight {
				s.add(inFlight("SDK", n), (before[n]+after[n])/2)
			}
			without, err := trickle(ctx, b, p.address)
			p.stop()
			if err != nil {
				return err
			}

			dir = b.folder()
			if err := fill(ctx, b, dir, 5*backlog); err != nil { // more than the trickle lasts
				return err
			}
			if p, _, err = b.closeout(w.address, dir, webhooks); err != nil {
				return err
			}
			defer p.stop()
			with, err := trickle(ctx, b, p.address)
			if err != nil {
				return err
			}
			s.add("without", without.Latency.Session.P99)
			s.add("with", with.Latency.Session.P99)
			s.add("straight", float64(with.Answers["started"])/float64(with.Sessions))
			return nil
		}()
		if err != nil {
			return err
		}
	}
	b.table("drain\t")
	b.row("SDK alone\t%.0f starts/s", median(s[s.best("SDK")]))
	b.row("backlog of %d\t%.0f starts/s", backlog, median(s["drain"]))
	b.row("backlog / SDK\t%.2f (want 0.9)", s.ratio("drain", s.best("SDK")))
	b.row("new callbacks, no backlog\tp99 %.0f ms", median(s["without"]))
	b.row("new callbacks, backlog\tp99 %.0f ms, %.0f %% straight to Temporal", median(s["with"]), 100*median(s["straight"]))
	b.row("with / without\t%.2f (want at most 2)", s.ratio("with", "without"))
	return b.flush()
}

// send sends callbacks of new sessions as ZEGO does.
func (b *bench) send(ctx context.Context, address string, o storm.Options) (*storm.Report, error) {
	o.URL, o.Timeout = "http://"+address+webhook.Path, 5*time.Second
	o.AppID, o.Secret, o.RoomID, o.RoomSessionID, o.Seed = 1, secret, "lobby", rand.Uint64(), rand.Uint64()
	return storm.Run(ctx, o, b.log)
}

// trickle sends the callbacks of a quiet day.
func trickle(ctx context.Context, b *bench, address string) (*storm.Report, error) {
	return b.send(ctx, address, storm.Options{Count: 300, Rate: 20})
}

// fill puts callbacks into an inbox, with a Closeout without Temporal.
func fill(ctx context.Context, b *bench, dir string, n int) error {
	nowhere, err := freeAddress()
	if err != nil {
		return err
	}
	p, _, err := b.closeout(nowhere, dir, webhooks)
	if err != nil {
		return err
	}
	defer p.stop()
	report, err := b.send(ctx, p.address, storm.Options{Count: n, Parallel: 64})
	if err == nil && report.Acknowledged != int64(n) {
		err = fmt.Errorf("%d of %d were acknowledged", report.Acknowledged, n)
	}
	return err
}

// measureOutage stops Temporal for 90 s while 20 callbacks a second arrive, with ZEGO's
// retries, and counts lost callbacks.
func measureOutage(ctx context.Context, b *bench) error {
	const sessions, rate, before, outage = 2600, 20, 10 * time.Second, 90 * time.Second
	free, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(free)
	if err != nil {
		return err
	}
	dir := b.folder()
	temporal := func() (*process, error) { return b.start("temporal", "--dir", dir, "--port", port) }
	server, err := temporal()
	if err != nil {
		return err
	}
	defer func() { server.stop() }()
	if err := setUp(ctx, server.address, b.folder()); err != nil {
		return err
	}
	naive, err := b.start("naive", "--temporal", server.address)
	if err != nil {
		return err
	}
	defer naive.stop()
	ours, admin, err := b.closeout(server.address, b.folder(), webhooks)
	if err != nil {
		return err
	}
	defer ours.stop()

	group, groupCtx := errgroup.WithContext(ctx)
	reports := make([]*storm.Report, 2)
	for n, address := range []string{naive.address, ours.address} {
		group.Go(func() (err error) {
			reports[n], err = b.send(groupCtx, address, storm.Options{Count: sessions, Rate: rate})
			return err
		})
	}
	group.Go(func() error {
		for _, step := range []struct {
			after time.Duration
			do    func() error
		}{
			{before, func() error { server.stop(); return nil }},
			{outage, func() error {
				again, err := temporal()
				if err == nil {
					server = again
				}
				return err
			}},
		} {
			select {
			case <-time.After(step.after):
			case <-groupCtx.Done():
				return groupCtx.Err()
			}
			if err := step.do(); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := drained(ctx, admin); err != nil {
		return err
	}
	c, err := client.Dial(client.Options{HostPort: server.address, Logger: silent})
	if err != nil {
		return err
	}
	defer c.Close()
	w := &world{server, dir, c}
	b.table(fmt.Sprintf("Temporal away for %v, %d callbacks at %d/s\tlost for good\truns\tp99 ms", outage, sessions, rate))
	for n, name := range []string{"naive", "Closeout"} {
		query := "WorkflowType = 'naiveWorkflow'"
		if name == "Closeout" {
			query = "WorkflowType = 'RoomClose'"
		}
		runs, err := w.count(ctx, query)
		if err != nil {
			return err
		}
		b.row("%s\t%d\t%d\t%.0f", name, reports[n].Lost, runs, reports[n].Latency.Session.P99)
	}
	return b.flush()
}

// measureBacklog measures the cost of a million callbacks in the inbox: disk space, start
// time and memory.
func measureBacklog(ctx context.Context, b *bench) error {
	const entries = 1_000_000
	dir := b.folder()
	box, err := inbox.Open(ctx, filepath.Join(dir, "inbox"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for w := range 256 {
		group.Go(func() error {
			for n := w; n < entries; n += 256 {
				s := session.Session{ID: session.ID{AppID: 1, RoomSessionID: rand.Uint64()}, RoomID: "rid_1242649", RoomCloseTime: time.Now().UTC()}
				body, err := json.Marshal(s)
				if err == nil {
					_, err = box.Put(groupCtx, inbox.Entry{Key: s.WorkflowID(), Body: body})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := errors.Join(group.Wait(), box.Close()); err != nil {
		return err
	}
	size, err := sizeOf(filepath.Join(dir, "inbox"))
	if err != nil {
		return err
	}

	nowhere, err := freeAddress()
	if err != nil {
		return err
	}
	began := time.Now()
	p, admin, err := b.closeout(nowhere, dir, webhooks) // returns when it accepts callbacks
	if err != nil {
		return err
	}
	defer p.stop()
	took := time.Since(began)
	if n, err := waiting(admin); err != nil || n != entries {
		return fmt.Errorf("%d wait, want %d: %w", n, entries, err)
	}
	report, err := b.send(ctx, p.address, storm.Options{Count: 20_000, Rate: 2000})
	if err != nil {
		return err
	}
	b.table("a million callbacks in the inbox\t")
	b.row("its files\t%d MB", size>>20)
	b.row("starting with it\t%.2f s (want 2)", took.Seconds())
	b.row("resident, after 20,000 more at 2,000/s\t%d MB (want 150), p99 %.0f ms", p.memory("VmRSS")>>20, report.Latency.Session.P99)
	return b.flush()
}

// sizeOf returns the disk space of the files in a folder, in bytes.
func sizeOf(dir string) (n int64, err error) {
	return n, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
}

// measureParse measures the cost of parsing and verifying one callback.
func measureParse(_ context.Context, b *bench) error {
	body, err := newCallback()
	if err != nil {
		return err
	}
	keyring, err := newKeyring()
	if err != nil {
		return err
	}
	var times, allocs, bytes []float64
	for range rounds {
		r := testing.Benchmark(func(t *testing.B) {
			t.ReportAllocs()
			for t.Loop() {
				event, err := zego.Parse("application/json", body)
				if err == nil {
					err = keyring.Verify(event.Head())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		})
		times = append(times, float64(r.NsPerOp()))
		allocs = append(allocs, float64(r.AllocsPerOp()))
		bytes = append(bytes, float64(r.AllocedBytesPerOp()))
	}
	b.table("parse and verify one callback\t")
	b.row("%s\t%.1f µs, %.0f allocations, %.0f bytes", strings.ToLower(zego.EventRoomClose), median(times)/1000, median(allocs), median(bytes))
	return b.flush()
}
