package service

import (
	"context"
	"errors"
	"fmt"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"

	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/reconcile"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/workflows"
)

// Extension is what a program adds to Closeout; see closeout.Service.
type Extension struct {
	Name       string
	Workflows  []workflows.Workflow
	Immediate  []workflows.Workflow
	Route      func(session.Session) workflows.Workflow
	Events     map[string]workflows.CallbackFunc
	Exclude    func(session.Session, session.Participant) string
	Price      pricing.Func
	Activities []any
	Register   func(worker.Registry)
	Worker     func(*worker.Options)
	Init       func(context.Context) (io.Closer, error)
	Hooks      func(client.Client) http.Handler
}

// CheckPrices returns an error if both the program and the settings price sessions.
func (e Extension) CheckPrices(c *config.Config) error {
	if e.Price != nil && (len(c.Prices.Apps) > 0 || c.Prices.Default.Currency != "") {
		return errors.New("CLOSEOUT_PRICES: found prices, and the program has a price function: remove the setting, or closeout.Service.Price")
	}
	return nil
}

// WorkflowOf returns the Workflow that closes out a session.
func (e Extension) WorkflowOf(s session.Session) workflows.Workflow {
	if e.Route != nil {
		if w := e.Route(s); w != nil {
			return w
		}
	}
	return workflows.RoomClose
}

// StartsAtOnce reports whether a Workflow starts as soon as its room closes.
func (e Extension) StartsAtOnce(w workflows.Workflow) bool {
	return slices.ContainsFunc(e.Immediate, func(other workflows.Workflow) bool { return workflows.Name(other) == workflows.Name(w) })
}

// workflows returns the post-close Workflows that a worker runs.
func (e Extension) workflows() []workflows.Workflow {
	return append(workflows.All(), e.Workflows...)
}

// validName matches names that are valid for Task Queues and folders on all systems.
var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)

// Check returns an error if no worker could run the extension. Every process checks, so that a
// webhook does not start Workflows that no worker can run.
func (e Extension) Check() error {
	seen := map[string]bool{}
	var faults []error
	for i, w := range e.Workflows {
		if w == nil {
			faults = append(faults, fmt.Errorf("workflow %d of %d is nil", i+1, len(e.Workflows)))
		}
	}
	for _, event := range slices.Sorted(maps.Keys(e.Events)) {
		switch {
		case e.Events[event] == nil:
			faults = append(faults, fmt.Errorf("events: the function for %q is nil", event))
		case event == "":
			faults = append(faults, fmt.Errorf("events: want the name of an event, or %q for all others, not an empty one", workflows.OtherEvents))
		case webhook.Outcomes()[event] != nil:
			faults = append(faults, fmt.Errorf("events: Closeout handles %q itself, want another event; Route chooses the Workflow of a session", event))
		}
	}
	if e.Name != "" && !validName.MatchString(e.Name) {
		faults = append(faults, fmt.Errorf("name: found %q, want letters, digits, - and _, at most 63", e.Name))
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	for _, w := range e.workflows() {
		name := workflows.Name(w)
		if !token.IsExported(name) || !token.IsIdentifier(name) {
			faults = append(faults, fmt.Errorf("workflow %q: want an exported function, not a literal, as Temporal knows a workflow by its name", name))
		}
		if seen[name] {
			faults = append(faults, fmt.Errorf("workflow %s: there are two of this name, want another", name))
		}
		seen[name] = true
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	offline, err := client.NewLazyClient(client.Options{Logger: tlog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer offline.Close()
	return e.register(worker.New(offline, "check", worker.Options{}), activities.Standard, &reconcile.Reconciler{})
}

// register registers the extension, the standard steps and Workflows, and the reconciler unless it
// is nil. It returns an error where the SDK panics.
func (e Extension) register(w worker.Registry, standard any, reconciler *reconcile.Reconciler) (err error) {
	what := "the standard steps"
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%s: %v", what, fault)
		}
	}()
	w.RegisterActivity(standard)
	if reconciler != nil {
		reconcile.Register(w, reconciler)
	}
	for _, s := range e.Activities {
		what = fmt.Sprintf("activities of %T", s)
		w.RegisterActivity(s)
	}
	for _, f := range e.workflows() {
		what = "workflow " + workflows.Name(f)
		w.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: workflows.Name(f)})
	}
	what = "workflow AdjustBill or LateRecordings"
	w.RegisterWorkflowWithOptions(workflows.AdjustBill(e.WorkflowOf), workflow.RegisterOptions{Name: workflows.AdjustBillName})
	w.RegisterWorkflow(workflows.LateRecordings)
	if e.Register != nil {
		what = "Register"
		e.Register(w)
	}
	return nil
}

// unmade returns the names of embedded structs that are nil. Their methods are registered as
// Activities and would panic.
func unmade(steps any) (names []string) {
	v := reflect.Indirect(reflect.ValueOf(steps))
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Anonymous && f.Type.Kind() == reflect.Pointer && v.Field(i).IsNil() {
			names = append(names, f.Name)
		}
	}
	return names
}
