package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	tlog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"gocloud.dev/blob/memblob"

	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/audit"
	"github.com/closeouthq/closeout/internal/steps"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// peopled adds sessions of every kind without a fault.
func peopled(w *world) {
	w.closedOut()
	w.closedOut()
	w.run(w.offered(true), running)
	w.run(w.offered(true), running).state = workflows.StateBlocked
	w.inbox.add(w.offered(true), false)
	w.offered(false) // refused, and without a trace
	skipped := w.offered(true)
	w.manifest(skipped)
	w.run(skipped, completed).result = result(workflows.StateSkipped, workflows.StateDone)
	w.offered(true) // refused at first, so that the journal has two lines of it
	w.journal.lines[len(w.journal.lines)-1].Acknowledged = false
	again := w.journal.lines[len(w.journal.lines)-1]
	s := session.Session{ID: again.ID, RoomID: "é'\"\n", RoomCloseTime: time.UnixMilli(1)}
	w.journal.add(s, true)
	w.bill(s)
	w.manifest(s)
	w.run(s, completed)
}

func TestNothingWrong(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		peopled(w)
		r := w.expect()
		r.Began, r.Ended = time.Time{}, time.Time{}
		want := audit.Report{
			Journal: true, Inbox: true, Offered: 8, Acknowledged: 7, Waiting: 1, Runs: audit.Runs{Running: 1, Blocked: 1, Completed: 4},
			Bills: 3, Manifests: 4, Skipped: 1, Kinds: map[audit.Kind]int64{}, Faults: []audit.Fault{},
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("got  %+v\nwant %+v", r, want)
		}
		if r.Pending() != 2 {
			t.Errorf("%d pending, want the waiting one and the running one", r.Pending())
		}
	})
}

// Each fault is planted alone, among sessions without a fault. The audit finds it and no other, and
// its problem says what it is.
func TestEachFaultIsFound(t *testing.T) {
	ends := func(status enums.WorkflowExecutionStatus) func(w *world) session.Session {
		return func(w *world) session.Session {
			s := w.offered(true)
			w.bill(s)
			w.run(s, status)
			return s
		}
	}
	// without returns a completed run that lacks a bill or a manifest.
	without := func(bill, manifest bool, result any) func(w *world) session.Session {
		return func(w *world) session.Session {
			s := w.offered(true)
			if bill {
				w.bill(s)
			}
			if manifest {
				w.manifest(s)
			}
			w.run(s, completed).result = result
			return s
		}
	}
	other := func(plant func(w *world) session.Session) func(w *world) session.Session {
		return func(w *world) session.Session {
			s := plant(w)
			w.temporal.find(s.WorkflowID(), "").workflow = "CloseShow"
			return s
		}
	}
	tests := []struct {
		name  string
		plant func(w *world) session.Session
		kinds []audit.Kind
		says  string
	}{
		{"acknowledged and nowhere", func(w *world) session.Session { return w.offered(true) },
			[]audit.Kind{audit.Lost}, "no run"},
		{"refused, then acknowledged, and nowhere", func(w *world) session.Session {
			s := w.offered(false)
			w.journal.add(s, true)
			return s
		}, []audit.Kind{audit.Lost}, "no run"},
		{"dead letter", func(w *world) session.Session { s := w.offered(true); w.inbox.add(s, true); return s },
			[]audit.Kind{audit.DeadLetter}, `"too\nbig"`},
		{"dead letter that the journal lacks", func(w *world) session.Session { s := w.session(); w.inbox.add(s, true); return s },
			[]audit.Kind{audit.DeadLetter}, "dead letter"},
		{"dead letter, and then removed from the inbox", func(w *world) session.Session {
			s := w.session()
			w.inbox.add(s, true)
			w.inbox.reading = func(before int) {
				if before == 1 {
					w.inbox.remove(s)
				}
			}
			return s
		}, []audit.Kind{audit.Lost}, "no run"},
		{"started twice", func(w *world) session.Session {
			s, _ := w.closedOut()
			w.run(s, completed)
			return s
		}, []audit.Kind{audit.SeveralRuns}, "started 2 times"},
		{"started twice, one of them long ago and with a bad end", func(w *world) session.Session {
			s := w.offered(true)
			w.run(s, terminated).start = time.Now().Add(-time.Hour)
			w.bill(s)
			w.manifest(s)
			w.run(s, completed)
			return s
		}, []audit.Kind{audit.SeveralRuns}, "started 2 times"},
		{"stuck", func(w *world) session.Session {
			s := w.offered(true)
			w.run(s, enums.WORKFLOW_EXECUTION_STATUS_RUNNING).problems = []string{"category=WorkflowTaskFailed", "cause=WorkflowTaskFailedCauseNonDeterministicError"}
			return s
		}, []audit.Kind{audit.Stuck}, "cause=WorkflowTaskFailedCauseNonDeterministicError"},
		{"open, without Search Attributes", func(w *world) session.Session {
			s := w.offered(true)
			w.run(s, running).bare = true
			return s
		}, []audit.Kind{audit.Unindexed}, "unknown whether it waits for a person"},
		{"failed", ends(enums.WORKFLOW_EXECUTION_STATUS_FAILED), []audit.Kind{audit.RunFailed}, "failed. It has a bill and no manifest"},
		{"terminated", ends(terminated), []audit.Kind{audit.RunTerminated}, "was terminated"},
		{"timed out", ends(enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT), []audit.Kind{audit.RunTimedOut}, "timed out"},
		{"canceled", ends(enums.WORKFLOW_EXECUTION_STATUS_CANCELED), []audit.Kind{audit.RunCanceled}, "was canceled"},
		{"terminated, not in visibility yet", func(w *world) session.Session {
			s := w.offered(true)
			w.run(s, terminated).listed = false
			return s
		}, []audit.Kind{audit.RunTerminated}, "no bill and no manifest"},
		{"no bill", without(false, true, result("done", "done")), []audit.Kind{audit.NoBill}, `"billing" is done, but the ledger has no bill`},
		{"no manifest", without(true, false, result("done", "done")), []audit.Kind{audit.NoManifest}, `"recordings" is done, but the archive has no manifest`},
		{"neither", without(false, false, result("done", "done")), []audit.Kind{audit.NoBill, audit.NoManifest}, "no "},
		{"no bill, and another step was skipped", without(false, false, result("done", "skipped")), []audit.Kind{audit.NoBill}, "no bill"},
		{"no manifest, and another step was skipped", without(false, false, result("skipped", "done")), []audit.Kind{audit.NoManifest}, "no manifest"},
		{"no bill, and no step that makes one", without(false, true, workflows.Result{}), []audit.Kind{audit.NoBill}, `no step "billing"`},
		{"no bill, and no result", without(false, true, nil), []audit.Kind{audit.NoBill}, `no step "billing"`},
		{"no bill, and another result", without(false, true, "all is well"), []audit.Kind{audit.NoBill}, "can't be read"},
		{"no bill, and a result that isn't JSON", without(false, true, []byte{1}), []audit.Kind{audit.NoBill}, "can't be read"},
		{"no bill of another workflow", other(without(false, true, result("done", "done"))), []audit.Kind{audit.NoBill}, `"billing" is done, but the ledger has no bill`},
		{"no manifest of another workflow", other(without(true, false, result("done", "done"))), []audit.Kind{audit.NoManifest}, `"recordings" is done, but the archive has no manifest`},
		{"no bill of another workflow, which has no recordings", other(without(false, false, only("billing", "done"))), []audit.Kind{audit.NoBill}, "no bill"},
		{"no manifest of another workflow, which has no bill", other(without(false, false, only("recordings", "done"))), []audit.Kind{audit.NoManifest}, "no manifest"},
		{"no bill, and another step was given up", without(false, false, result("done", "given_up")), []audit.Kind{audit.NoBill}, "no bill"},
		{"another workflow failed", other(ends(enums.WORKFLOW_EXECUTION_STATUS_FAILED)), []audit.Kind{audit.RunFailed}, "failed. It has a bill and no manifest"},
		{"a bill that the ledger has lost", func(w *world) session.Session {
			s := w.offered(true)
			w.manifest(s)
			w.run(s, completed).returned = map[string]any{"FinalizeBill": activities.Bill{Bill: pricing.Bill{Session: session.Session{ID: s.ID}}}}
			return s
		}, []audit.Kind{audit.NoBill}, "has made a bill, which Temporal still knows"},
		{"a bill that the ledger has lost, of a blocked run", func(w *world) session.Session {
			s := w.offered(true)
			e := w.run(s, running)
			e.state, e.returned = workflows.StateBlocked, map[string]any{"FinalizeBill": activities.Bill{Bill: pricing.Bill{Session: session.Session{ID: s.ID}}}}
			return s
		}, []audit.Kind{audit.NoBill}, "has made a bill, which Temporal still knows"},
		{"closed by the ledger's word, and nowhere", func(w *world) session.Session {
			s := w.session()
			w.closed(s)
			return s
		}, []audit.Kind{audit.NotClosedOut}, "has no bill of it, and Temporal has no run"},
		{"closed by the ledger's word, and its run was terminated", func(w *world) session.Session {
			s := w.session()
			w.closed(s)
			w.run(s, terminated).listed = false
			return s
		}, []audit.Kind{audit.RunTerminated}, "no bill and no manifest"},
		{"a bill without a run", func(w *world) session.Session { s := w.offered(true); w.bill(s); return s },
			[]audit.Kind{audit.NoRun}, "a bill of 2"},
		{"a manifest without a run", func(w *world) session.Session { s := w.offered(true); w.manifest(s); return s },
			[]audit.Kind{audit.NoRun}, "a manifest of 2"},
		{"billed and never acknowledged", func(w *world) session.Session { s := w.offered(false); w.bill(s); return s },
			[]audit.Kind{audit.Phantom}, "has no run, although it was never acknowledged"},
		{"closed out and never acknowledged", func(w *world) session.Session {
			s, _ := w.closedOut()
			w.journal.lines[len(w.journal.lines)-1].Acknowledged = false
			return s
		}, []audit.Kind{audit.Phantom}, "has a run, although it was never acknowledged"},
		{"billed and never offered", func(w *world) session.Session { s := w.session(); w.bill(s); return s },
			[]audit.Kind{audit.Phantom}, "has no run, although it was never offered"},
		{"billed under way and never offered", func(w *world) session.Session {
			s := w.session()
			w.bill(s)
			w.run(s, running)
			return s
		}, []audit.Kind{audit.Phantom}, "has a run, although it was never offered"},
		{"terminated and never offered", func(w *world) session.Session {
			s := w.session()
			w.bill(s)
			w.run(s, terminated)
			return s
		}, []audit.Kind{audit.RunTerminated, audit.Phantom}, ""},
		{"billed of another room", func(w *world) session.Session {
			s, e := w.closedOut()
			e.session.RoomID = "lobby2"
			return s
		}, []audit.Kind{audit.BillDiffers}, `The bill is of room "lobby" closed at 2017-07-10T08:56:29.909Z: kicked, and the run of room "lobby2"`},
		{"billed of another time", func(w *world) session.Session {
			s, e := w.closedOut()
			e.session.RoomCloseTime = e.session.RoomCloseTime.Add(time.Millisecond)
			return s
		}, []audit.Kind{audit.BillDiffers}, "08:56:29.91Z"},
		{"billed for another reason, with the run under way", func(w *world) session.Session {
			s := w.offered(true)
			w.bill(s)
			w.run(s, running).session.CloseReason = "9"
			return s
		}, []audit.Kind{audit.BillDiffers}, "unknown reason 9"},
		{"billed of another room, not in visibility yet", func(w *world) session.Session {
			s, e := w.closedOut()
			e.session.RoomID, e.listed = "lobby2", false
			return s
		}, []audit.Kind{audit.BillDiffers}, "lobby2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			worlds(t, func(t *testing.T, w *world) {
				peopled(w)
				s := tt.plant(w)
				peopled(w)
				var want []string
				for _, kind := range tt.kinds {
					want = append(want, fmt.Sprintf("%s %s", kind, s.WorkflowID()))
				}
				for _, f := range w.expect(want...).Faults {
					if !strings.Contains(f.Problem, tt.says) {
						t.Errorf("%s: %q, which lacks %q", f.Kind, f.Problem, tt.says)
					}
				}
			})
		})
	}
}

// A step that is skipped or given up needs no bill or manifest. RoomClose always has both steps,
// and another Workflow may lack them.
func TestSkippedStepsNeedNoBillOrManifest(t *testing.T) {
	tests := []struct {
		name           string
		workflow       string
		result         any
		bill, manifest bool
		skipped        int64
	}{
		{"both given up", "RoomClose", result("given_up", "given_up"), false, false, 1},
		{"billing given up", "RoomClose", result("given_up", "done"), false, true, 1},
		{"recordings given up", "RoomClose", result("done", "given_up"), true, false, 1},
		{"one skipped, one given up", "RoomClose", result("skipped", "given_up"), false, false, 1},
		{"given up after it had done its work", "RoomClose", result("given_up", "done"), true, true, 0},
		{"another workflow, without a step", "CloseShow", workflows.Result{}, false, false, 0},
		{"another workflow, with another step", "CloseShow", only("wallet", "done"), false, false, 0},
		{"another workflow, with billing", "CloseShow", only("billing", "done"), true, false, 0},
		{"another workflow, with recordings", "CloseShow", only("recordings", "done"), false, true, 0},
		{"another workflow, with billing given up", "CloseShow", only("billing", "given_up"), false, false, 1},
		{"another workflow, with recordings skipped", "CloseShow", only("recordings", "skipped"), false, false, 1},
		{"another workflow, without a result", "CloseShow", nil, false, false, 0},
		{"another workflow, with a result of its own", "CloseShow", "all is well", false, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			worlds(t, func(t *testing.T, w *world) {
				s := w.offered(true)
				if tt.bill {
					w.bill(s)
				}
				if tt.manifest {
					w.manifest(s)
				}
				e := w.run(s, completed)
				e.workflow, e.result = tt.workflow, tt.result
				r := w.expect()
				if r.Skipped != tt.skipped || r.Runs.Completed != 1 {
					t.Errorf("report %+v, want %d skipped", r, tt.skipped)
				}
				var text strings.Builder
				if err := r.WriteText(&text); err != nil || strings.Contains(text.String(), "1 without a bill or manifest, as its step was skipped or given up\n") != (tt.skipped > 0) {
					t.Errorf("%v\n%s", err, text.String())
				}
			})
		})
	}
}

// only returns the result of a run with a single step.
func only(step string, state workflows.State) workflows.Result {
	return workflows.Result{Steps: []workflows.StepResult{{Step: step, State: state}}}
}

// The audit reads its stores one after another. What looks like a fault only because a session
// moves meanwhile isn't one.
func TestMovingSessionIsNoFault(t *testing.T) {
	tests := []struct {
		name string
		move func(w *world)
	}{
		{"visibility has no run yet", func(w *world) {
			w.run(w.offered(true), running).listed = false
		}},
		{"visibility has no run yet, which is closed by now", func(w *world) {
			_, e := w.closedOut()
			e.listed = false
		}},
		{"visibility takes a closed run for a running one", func(w *world) {
			_, e := w.closedOut()
			e.visible = running
		}},
		{"visibility lists a run twice, which closes between two pages", func(w *world) {
			_, e := w.closedOut()
			before := *e
			before.visible = running
			w.temporal.runs = append([]*execution{&before}, w.temporal.runs...)
		}},
		{"it is acknowledged just before the journal is read", func(w *world) {
			s := w.session()
			w.journal.reading = func(before int) {
				if before == 0 {
					w.inbox.add(s, false)
					w.journal.add(s, true)
				}
			}
		}},
		{"it leaves the inbox just before that is read", func(w *world) {
			s := w.offered(true)
			w.inbox.add(s, false)
			w.inbox.reading = func(before int) {
				if before == 0 {
					w.run(s, running).listed = false
					w.inbox.remove(s)
				}
			}
		}},
		{"it is closed out between two questions about it", func(w *world) {
			s := w.offered(true)
			e := w.run(s, running)
			e.listed = false
			w.temporal.describing = func(id string) {
				if id == e.id && e.status == running {
					w.bill(s)
					w.manifest(s)
					w.temporal.mu.Lock()
					e.status = completed
					w.temporal.mu.Unlock()
				}
			}
		}},
		{"it is started and billed after the runs were listed", func(w *world) {
			// The run started after the runs were listed, so only the bill shows the session. The
			// journal gets its line after the audit's first read.
			s := w.session()
			w.journal.reading = func(before int) {
				if before == 1 {
					w.journal.add(s, true)
				}
			}
			w.bill(s)
			w.run(s, running).listed = false
		}},
		{"the journal gets its line after the bill is made", func(w *world) {
			s := w.session()
			w.bill(s)
			w.manifest(s)
			w.run(s, completed)
			w.journal.reading = func(before int) {
				if before == 1 {
					w.journal.add(s, true)
				}
			}
		}},
		{"it is acknowledged when it is offered again", func(w *world) {
			s, _ := w.closedOut()
			w.journal.lines[len(w.journal.lines)-1].Acknowledged = false
			w.journal.reading = func(before int) {
				if before == 1 {
					w.journal.add(s, true)
				}
			}
		}},
		{"what is a dead letter is put back", func(w *world) {
			s := w.offered(true)
			w.inbox.add(s, true)
			w.inbox.reading = func(before int) {
				if before == 1 {
					w.inbox.remove(s)
					w.inbox.add(s, false)
				}
			}
		}},
		{"what is a dead letter is put back, and started", func(w *world) {
			s := w.offered(true)
			w.inbox.add(s, true)
			w.inbox.reading = func(before int) {
				if before == 1 {
					w.inbox.remove(s)
					w.run(s, running).listed = false
				}
			}
		}},
		{"what is a dead letter has a run all the same", func(w *world) {
			s, _ := w.closedOut()
			w.inbox.add(s, true)
		}},
		{"a terminated run was reset", func(w *world) {
			s := w.offered(true)
			w.bill(s)
			w.manifest(s)
			first := w.run(s, terminated)
			w.run(s, completed).first = first.runID
		}},
		{"a terminated run was reset, not in visibility yet", func(w *world) {
			s := w.offered(true)
			first := w.run(s, terminated)
			again := w.run(s, running)
			again.first, again.listed = first.runID, false
		}},
		{"a run went on as another", func(w *world) {
			s := w.offered(true)
			first := w.run(s, enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW)
			w.run(s, running).first = first.runID
		}},
		{"a run is paused", func(w *world) {
			w.run(w.offered(true), enums.WORKFLOW_EXECUTION_STATUS_PAUSED)
		}},
		{"visibility lists a run that was deleted with its session", func(w *world) {
			w.run(w.session(), terminated)
			w.temporal.describing = func(string) {
				w.temporal.mu.Lock()
				defer w.temporal.mu.Unlock()
				for _, e := range w.temporal.runs {
					if e.status == terminated {
						e.id = "deleted"
					}
				}
			}
		}},
		{"a run was started by hand, without anything to compare", func(w *world) {
			_, e := w.closedOut()
			e.bare, e.session.RoomID = true, "hand"
		}},
		{"both steps were skipped", func(w *world) {
			w.run(w.offered(true), completed).result = result(workflows.StateSkipped, workflows.StateSkipped)
		}},
		{"a step was skipped that had done its work", func(w *world) {
			_, e := w.closedOut()
			e.result = result(workflows.StateSkipped, workflows.StateDone)
		}},
		{"what is a dead letter has a run all the same, and the journal doesn't know", func(w *world) {
			s := w.session()
			w.inbox.add(s, true)
			w.bill(s)
			w.run(s, running)
		}},
		{"it is closed out, still in the inbox, and the journal doesn't know", func(w *world) {
			s := w.session()
			w.inbox.add(s, false)
			w.bill(s)
			w.manifest(s)
			w.run(s, completed)
		}},
		{"Temporal deletes the run while it is looked at", func(w *world) {
			s := w.offered(true)
			w.manifest(s)
			w.run(s, completed).result = deleted
		}},
		{"it waits in the inbox, and was never acknowledged", func(w *world) {
			s := w.offered(false)
			w.inbox.add(s, false)
			w.bill(s)
		}},
		{"nobody knows whether it was acknowledged", func(w *world) {
			w.closedOut()
			last := &w.journal.lines[len(w.journal.lines)-1]
			last.Acknowledged, last.Undecided = false, true
			w.offered(false)
			w.journal.lines[len(w.journal.lines)-1].Undecided = true
		}},
		{"it is under way, and was never acknowledged", func(w *world) {
			w.run(w.offered(false), running)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			worlds(t, func(t *testing.T, w *world) {
				peopled(w)
				tt.move(w)
				peopled(w)
				w.expect()
			})
		})
	}
}

// Without a journal, the audit finds neither lost sessions nor phantoms, but all other faults.
func TestWithoutJournal(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.options.Journal, w.options.Complete = nil, false
		w.offered(true)
		s, _ := w.closedOut()
		phantom := w.session()
		w.bill(phantom)
		unfinished := w.session()
		w.bill(unfinished)
		w.run(unfinished, completed)
		w.run(s, completed)
		r := w.expect("no_run "+phantom.WorkflowID(), "no_manifest "+unfinished.WorkflowID(), "several_runs "+s.WorkflowID())
		if r.Journal || r.Offered != 0 || r.Acknowledged != 0 {
			t.Errorf("the journal was read: %+v", r)
		}
	})
}

// If the journal is incomplete, a session it lacks isn't a fault.
func TestIncompleteJournal(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.options.Complete = false
		s := w.session()
		w.bill(s)
		w.manifest(s)
		w.run(s, completed)
		refused := w.offered(false)
		w.bill(refused)
		w.run(refused, running)
		w.expect("phantom " + refused.WorkflowID())
	})
}

func TestWithoutInbox(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.options.Inbox = nil
		w.closedOut()
		waits := w.offered(true)
		w.inbox.add(waits, false)
		if r := w.expect("lost " + waits.WorkflowID()); r.Inbox || r.Waiting != 0 {
			t.Errorf("the inbox was read: %+v", r)
		}
	})
}

// A run is deleted after the Namespace's retention, and its bill remains.
func TestDeletedRuns(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		var kept []session.Session
		for range 3 {
			kept = append(kept, w.offered(true))
		}
		w.bill(kept[0])
		w.manifest(kept[0])
		w.manifest(kept[1]) // an operator skipped the bill
		w.bill(kept[2])
		w.journal.lines = w.journal.lines[:2] // the journal starts after this session
		w.options.Complete = false

		later := func(d time.Duration) { w.options.Now = func() time.Time { return time.Now().Add(d) } }
		later(719*time.Hour + 30*time.Minute) // within the tolerance for clocks that differ
		w.expect()
		later(721 * time.Hour)
		if r := w.expect(); r.Expired != 3 || r.Bills != 2 {
			t.Errorf("report %+v", r)
		}
		later(718 * time.Hour)
		var all []string
		for _, s := range kept {
			all = append(all, "no_run "+s.WorkflowID())
		}
		w.expect(all...)
		later(10000 * time.Hour)
		w.options.Retention = 0 // forever
		w.expect(all...)
		w.options.Since = time.Now().Add(time.Hour)
		if r := w.expect(); r.Expired != 2 {
			t.Errorf("report %+v", r)
		}
		// Without a journal, the audit doesn't ask Temporal about each old bill.
		w.options.Retention, w.options.Since, w.options.Journal, w.temporal.described = 720*time.Hour, time.Time{}, nil, 0
		if r := w.expect(); r.Expired != 2 || w.temporal.described != 0 {
			t.Errorf("asked for %d runs, report %+v", w.temporal.described, r)
		}
		// A session that was never offered is still a phantom.
		w.options.Journal = w.journal.all
		w.options.Complete = true
		w.expect("phantom " + kept[2].WorkflowID())
	})
}

// Runs outside the window are no faults, and neither are their bills.
func TestWindow(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		now := time.Now()
		w.options.Since, w.options.Until = now.Add(-time.Hour), now.Add(time.Hour)
		// Each run has a fault.
		at := func(start time.Time) string {
			s := w.offered(true)
			w.bill(s)
			w.run(s, terminated).start = start
			return "run_terminated " + s.WorkflowID()
		}
		at(w.options.Since.Add(-time.Nanosecond))
		at(w.options.Until)
		first, last := at(w.options.Since), at(w.options.Until.Add(-time.Nanosecond))
		unoffered, _ := w.closedOut()
		w.journal.lines = w.journal.lines[:len(w.journal.lines)-1]
		w.temporal.find(unoffered.WorkflowID(), "").start = w.options.Until
		_, late := w.closedOut()
		late.start = w.options.Until
		at(w.options.Until)
		w.temporal.runs[len(w.temporal.runs)-1].listed = false
		w.closedOut()
		if r := w.expect(first, last); r.Outside != 5 || r.Runs.Terminated != 2 || r.Runs.Completed != 1 || r.Bills != 3 {
			t.Errorf("report %+v", r)
		}
		w.options.Since, w.options.Until = w.options.Until, time.Time{}
		r := w.audit()
		if r.Runs.Terminated != 2 || r.Runs.Completed != 2 || r.Outside+r.Expired != 4 {
			t.Errorf("report %+v", r)
		}
	})
}

// Within the grace period, a bill without a line in the journal is unsettled, and no phantom.
func TestGrace(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		s := w.session()
		w.bill(s)
		w.manifest(s)
		w.run(s, completed)
		refused := w.offered(false) // has a line, so the grace period doesn't apply
		w.bill(refused)
		w.run(refused, running)
		w.options.Grace = time.Minute
		if r := w.expect("phantom " + refused.WorkflowID()); r.Unsettled != 1 || r.Pending() != 2 {
			t.Errorf("report %+v", r)
		}
		w.options.Now = func() time.Time { return time.Now().Add(2 * time.Minute) }
		w.expect("phantom "+s.WorkflowID(), "phantom "+refused.WorkflowID())
	})
}

// Workflows of other programs, with IDs that resemble a session's, are left out.
func TestForeignWorkflows(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		s, _ := w.closedOut()
		for _, id := range []string{"room-close-", "room-close-1-x", strings.Replace(s.WorkflowID(), "-close-", "-close-0", 1), "other-1-2"} {
			w.run(w.session(), terminated).id = id
		}
		if r := w.expect(); r.Foreign != 3 || r.Runs.Completed != 1 {
			t.Errorf("report %+v", r)
		}
	})
}

// The report counts all faults. It details a limited number of each kind, so that no kind
// hides another.
func TestManyFaults(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
	for range audit.MaxFaults + 5 {
		w.offered(true)
	}
	s := w.session()
	w.bill(s)
	r := w.audit()
	if r.Kinds[audit.Lost] != audit.MaxFaults+5 || r.Kinds[audit.Phantom] != 1 || r.Count() != audit.MaxFaults+6 || len(r.Faults) != audit.MaxFaults+1 {
		t.Errorf("%v, %d in detail", r.Kinds, len(r.Faults))
	}
	for i := 1; i < len(r.Faults); i++ {
		if a, b := r.Faults[i-1], r.Faults[i]; a.AppID > b.AppID || a.AppID == b.AppID && a.RoomSessionID >= b.RoomSessionID {
			t.Fatalf("%+v comes before %+v", a, b)
		}
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "lost: 1005 in all, of which 1000 are shown\n") {
		t.Errorf("%v\n%.500s", err, text.String())
	}
}

// A store that can't be read is an error, and is never taken for an empty one.
func TestErrors(t *testing.T) {
	away := errors.New("away")
	closed := memblob.OpenBucket(nil)
	_ = closed.Close()
	for name, tt := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"journal": {func(w *world) { w.journal.fail = away }, "read the journal: away"},
		"journal, the second time": {func(w *world) {
			w.bill(w.session())
			w.journal.reading = func(before int) {
				if before == 1 {
					w.journal.fail = away
				}
			}
		}, "read the journal again: away"},
		"inbox": {func(w *world) { w.inbox.fail = away }, "read the inbox: away"},
		"inbox, the second time": {func(w *world) {
			w.inbox.add(w.session(), true)
			w.inbox.reading = func(before int) {
				if before == 1 {
					w.inbox.fail = away
				}
			}
		}, "read the inbox again: away"},
		"list":                   {func(w *world) { w.temporal.fail = away }, "list runs: away"},
		"ledger":                 {func(w *world) { _ = w.ledger.Close() }, "read the ledger: "},
		"archive":                {func(w *world) { w.closedOut(); w.options.Archive = closed }, "look for 2/9223372036854775809/manifest.json in the archive: "},
		"archive, of a lost one": {func(w *world) { w.offered(true); w.options.Archive = closed }, "look for 2/9223372036854775809/manifest.json in the archive: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
			tt.change(w)
			if _, err := audit.Run(t.Context(), w.options); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("describe", func(t *testing.T) {
		w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
		w.offered(true)
		w.options.Temporal = awayTemporal{w.temporal, away}
		if _, err := audit.Run(t.Context(), w.options); !errors.Is(err, away) || !strings.Contains(err.Error(), "room-close-2-9223372036854775809") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
		for range 100 {
			w.offered(true)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.temporal.describing = func(string) { cancel() }
		w.options.Parallel = 1
		if _, err := audit.Run(ctx, w.options); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if w.temporal.described > 10 {
			t.Errorf("%d runs were described after the end", w.temporal.described)
		}
	})
}

// Wait repeats the audit until no session is pending.
func TestWait(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
	s := w.offered(true)
	w.inbox.add(s, false)
	var e *execution
	w.inbox.reading = func(before int) {
		switch before {
		case 1:
			e = w.run(s, running)
			w.inbox.remove(s)
		case 2:
			w.bill(s)
			w.manifest(s)
			e.status, e.visible = completed, completed
			w.run(w.offered(true), running).state = workflows.StateBlocked // not pending
		}
	}
	r, err := audit.Wait(t.Context(), w.options, time.Minute)
	if err != nil || !r.OK() || r.Pending() != 0 || r.Runs.Completed != 1 || w.inbox.reads != 3 {
		t.Errorf("after %d audits: %+v, %v", w.inbox.reads, r, err)
	}

	w.inbox.add(w.offered(true), false)
	// Wait audits once at the beginning, and once at the end if there is time.
	before := w.inbox.reads
	r, err = audit.Wait(t.Context(), w.options, 10*time.Millisecond)
	if err != nil || r.Pending() != 1 || w.inbox.reads == before || w.inbox.reads > before+2 {
		t.Errorf("after %d audits: %+v, %v", w.inbox.reads, r, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	w.inbox.reading = func(int) { cancel() }
	if _, err = audit.Wait(ctx, w.options, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// awayTemporal lists runs, but fails to describe one.
type awayTemporal struct {
	client.Client
	err error
}

func (a awayTemporal) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, a.err
}

// The Workflow and its Activities leave the bills and manifests that the audit expects, and their
// steps have the names that the audit knows.
func TestRunsLeaveBillsAndManifests(t *testing.T) {
	testenv.Databases(t, func(t *testing.T, databaseURL string) {
		w := newWorld(t, databaseURL)
		recordings := memblob.OpenBucket(nil)
		defer recordings.Close()
		standard := &steps.Standard{
			Billing:    &steps.Billing{Ledger: w.ledger},
			Recordings: &steps.Recordings{Source: recordings, Archive: w.archive},
		}
		var suite testsuite.WorkflowTestSuite
		suite.SetLogger(tlog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
		runs := map[session.Session]*execution{}
		for _, skip := range []bool{false, true} {
			env := suite.NewTestWorkflowEnvironment()
			env.RegisterActivity(standard)
			s := w.offered(true)
			if skip {
				var do activities.Steps
				env.OnActivity(do.FinalizeBill, mock.Anything, mock.Anything).Return(activities.Bill{}, activities.Blockedf("no price"))
				env.OnActivity(do.ArchiveRecordings, mock.Anything, mock.Anything).Return(activities.Archived{}, activities.Blockedf("no bucket"))
				for i, step := range []string{"billing", "recordings"} {
					env.RegisterDelayedCallback(func() {
						env.UpdateWorkflowNoRejection(workflows.UpdateSkip, uuid.NewString(), t, workflows.Decision{Step: step, Reason: "test"})
					}, time.Duration(i+1)*time.Minute)
				}
			}
			env.ExecuteWorkflow(workflows.RoomClose, s)
			var result workflows.Result
			if err := env.GetWorkflowResult(&result); err != nil {
				t.Fatal(err)
			}
			runs[s] = w.run(s, completed)
			runs[s].result = result
		}
		if r := w.expect(); r.Bills != 1 || r.Manifests != 1 || r.Skipped != 1 {
			t.Errorf("report %+v", r)
		}
		for s, e := range runs {
			if e.result.(workflows.Result).State == workflows.StateDone {
				if err := w.archive.Delete(t.Context(), s.Folder()+"manifest.json"); err != nil {
					t.Fatal(err)
				}
				w.expect("no_manifest " + s.WorkflowID())
			}
		}
	})
}

func TestReportForPeopleAndPrograms(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir()+"/l.db")
	w.closedOut()
	var text strings.Builder
	if err := w.audit().WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := `1 offered
1 acknowledged
0 waiting in the inbox
0 with a run under way
0 with a run that waits for a person
1 with a completed run
1 with a bill
1 closed out with a manifest

No faults.
`
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}

	s := w.offered(true)
	r := w.audit()
	text.Reset()
	_ = r.WriteText(&text)
	if want := "\n" + s.WorkflowID() + ": lost\n    It was acknowledged, but Temporal has no run of it, and it isn't in the inbox.\n    Send it again, "; !strings.Contains(text.String(), want) {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Runs struct {
			Completed int `json:"completed"`
		} `json:"runs"`
		FaultsByKind map[string]int `json:"faults_by_kind"`
		Faults       []map[string]any
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Runs.Completed != 1 || back.FaultsByKind["lost"] != 1 || back.Faults[0]["room_session_id"] != fmt.Sprint(s.RoomSessionID) || back.Faults[0]["workflow_id"] != s.WorkflowID() {
		t.Errorf("%s", b)
	}
	if err := r.WriteText(broken{}); err == nil {
		t.Error("a writer's error got lost")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
