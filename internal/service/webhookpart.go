package service

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/closeouthq/closeout/internal/inbox"
	"github.com/closeouthq/closeout/internal/probe"
	"github.com/closeouthq/closeout/internal/repair"
	"github.com/closeouthq/closeout/internal/starter"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// lookEvery is how often a webhook checks whether the ledger was restored.
const lookEvery = 20 * time.Second

// webhookPart takes callbacks and delivers them to Temporal and the ledger.
type webhookPart struct {
	*process
	listener net.Listener
	drained  chan struct{} // closed after the last answer

	server   *http.Server
	backlogs []backlog
	notify   func(ctx context.Context)
	witness  *repair.Witness
	opened   closers
}

// open opens the inboxes and creates the server.
func (w *webhookPart) open(ctx context.Context) error {
	c, metrics := w.config, w.metrics
	box, err := patiently(ctx, w.log, "open the inbox", func() (*inbox.Inbox, error) { return inbox.Open(ctx, c.Inbox(), w.log) })
	if err != nil {
		return fmt.Errorf("CLOSEOUT_DATA: %w", err)
	}
	w.opened.add("the inbox", func() { _ = box.Close() })

	metrics.webhookStarts()
	w.starts.Observe = func(outcome string) { metrics.starts.WithLabelValues(outcome, "false").Inc() }
	// An eager run begins in this process, even if another build of a deployment is current.
	w.starts.Eager = w.parts.Worker && c.BuildID == ""
	closes := starter.New(w.starts)
	received := &receiver{closes: starter.NewReceiver(closes, box, relays(metrics.starts))}
	w.opened.add("starts that are under way", received.closes.Wait)
	w.asked.refused = received.refusals
	starts := received.closes.Delivery
	w.asked.inbox, w.asked.starts = askQueue(answerWithin, box), starts.Fault
	w.backlogs = append(w.backlogs, backlog{"room_close", starts.Relay, w.asked.inbox.waiting, starts.Fault})
	metrics.inbox(startMetrics, w.asked.inbox, starts.Fault)
	metrics.load(starts.Load)
	metrics.disk(probe.New(answerWithin, func(context.Context) (s [2]uint64, err error) {
		s[0], s[1], err = inbox.DiskUsage(c.Data)
		return s, err
	}).Get)

	if c.Participants {
		if received.events, err = w.openEvents(ctx); err != nil {
			return err
		}
		closes.Contradicted = received.events.Contradicted
	}

	keyring, err := zego.NewKeyring(c.Apps, c.CallbackWindow, time.Now)
	if err != nil {
		return err
	}
	options := webhook.Options{
		Keyring: keyring, Receiver: observed{received, metrics.skew}, Token: c.CallbackToken, Log: w.log,
		Observe: metrics.callback, ObserveField: metrics.field,
	}
	if hooks := w.parts.Extension.Hooks; hooks != nil {
		temporal := w.temporal
		if w.parts.Worker { // its client panics at undecryptable payloads
			own := *w.dialed
			own.Temporal.DataConverter, own.Temporal.FailureConverter = c.PayloadKeys.ForClient()
			if temporal, err = Dial(&own, w.log, metrics.Temporal()); err != nil {
				return err
			}
			w.opened.add("the hooks' client for Temporal", temporal.Close)
		}
		options.Hooks = hooks(temporal)
	}
	router := webhook.Router(options)
	if w.tracing != nil {
		router = traceCallbacks(w.tracing.Tracer, router)
	}
	w.server = webhook.NewServer(router, webhook.ServerOptions{Log: w.log, IdleTimeout: c.IdleTimeout, Observe: func(fault webhook.ConnectionFault) { metrics.faults.WithLabelValues(string(fault)).Inc() }})
	return nil
}

// Run serves callbacks and relays the inboxes until ctx ends. Then it answers the open
// callbacks and drains the inboxes.
func (w *webhookPart) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	drained := serve(ctx, group, w.listener, w.server, w.config.StopTimeout)
	group.Go(func() error { <-drained; close(w.drained); return nil })
	for _, b := range w.backlogs {
		group.Go(func() error { b.empty(ctx, drained, w.config.DrainTimeout, w.log.With("inbox", b.name)); return nil })
	}
	if w.notify != nil {
		group.Go(func() error { w.notify(ctx); return nil })
	}
	if w.witness != nil {
		group.Go(func() error { w.witness.Watch(ctx, lookEvery); return nil })
	}
	w.log.Info("callback listener ready", "address", w.listener.Addr().String(), "path", webhook.Path, "tls", w.config.TLSCert != "")
	return group.Wait()
}

// Close closes the inboxes and the ledger, once the last deliveries have ended.
func (w *webhookPart) Close() { w.opened.close() }
