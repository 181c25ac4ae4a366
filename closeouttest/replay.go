package closeouttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/workflows"
)

// Replay replays every recorded history in the folder, the files "*.json", on the
// workflows as they are now. It fails for a history that its workflow doesn't
// take any more: runs that are under way would be stuck after the next
// deployment. It also fails for a workflow without a history, and for a history
// without its workflow.
//
// `closeout history save <room_session_id>` records a history.
func Replay(t *testing.T, folder string, all ...workflows.Workflow) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var recorded []string
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			name, err := replay(file, all)
			if err != nil {
				t.Error(err)
			}
			recorded = append(recorded, name)
		})
	}
	for _, name := range unrecorded(all, recorded) {
		t.Errorf("there is no history of %s in %s: run it and record one with `closeout history save <room_session_id>`", name, folder)
	}
}

// replay replays a history on the one of the workflows that it is of, and gives
// its name.
func replay(file string, all []workflows.Workflow) (name string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read a history: %w", err)
	}
	defer f.Close()
	history, err := client.HistoryFromJSON(f, client.HistoryJSONOptions{})
	if err != nil {
		return "", fmt.Errorf("no history: %w", err)
	}
	if len(history.GetEvents()) == 0 {
		return "", errors.New("no history: it has no events")
	}
	name = history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()
	of := slices.IndexFunc(all, func(w workflows.Workflow) bool { return workflows.Name(w) == name })
	if of < 0 {
		return name, fmt.Errorf("it is of a workflow %q, and there is none. If no run of it is under way, remove the file", name)
	}
	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(all[of], workflow.RegisterOptions{Name: name})
	if err := replayer.ReplayWorkflowHistory(nil, history); err != nil {
		return name, fmt.Errorf("runs of %s that are under way could not go on. Put the change behind Step.Added or workflow.GetVersion: %w", name, err)
	}
	return name, nil
}

// unrecorded names the workflows that no history is of.
func unrecorded(all []workflows.Workflow, recorded []string) (names []string) {
	for _, w := range all {
		if name := workflows.Name(w); !slices.Contains(recorded, name) {
			names = append(names, name)
		}
	}
	return names
}
