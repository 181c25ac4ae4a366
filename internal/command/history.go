package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/closeouthq/closeout/internal/codec"
	"github.com/closeouthq/closeout/internal/service"
	"github.com/closeouthq/closeout/workflows"
)

// History is the command that records histories, to be replayed in tests.
func History() *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "record the histories of runs, for tests that replay them",
		Description: "A test that replays a recorded history fails when a changed workflow would leave runs stuck that\n" +
			"are under way: see closeouttest.Replay.\n\n" +
			"    closeout history save --output workflows/testdata 858012925204410417",
		Commands: []*cli.Command{{
			Name: "save", Usage: "save the history of a run", ArgsUsage: "ROOM-SESSION-ID|WORKFLOW-ID...",
			Description: "The file is <workflow>_<workflow ID>_<number of events>.json. It holds all that the run knows, the room's name and the\n" +
				"results of the steps included, but neither host names nor who decided. What is encrypted is saved as\n" +
				"plain text. A run that is under way is saved as far as it has come.",
			Flags: append(Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"),
				&cli.StringFlag{Name: "output", Value: "testdata", Usage: "folder for the files"}),
			Action: saveHistories,
		}},
	}
}

func saveHistories(ctx context.Context, cmd *cli.Command) error {
	if cmd.NArg() == 0 {
		return errors.New("no session, want a room_session_id or a workflow ID as in: closeout history save 858012925204410417")
	}
	c, log, err := Load(cmd, false)
	if err != nil {
		return err
	}
	temporal, err := service.Dial(c, log, nil)
	if err != nil {
		return err
	}
	defer temporal.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var faults []error
	for _, arg := range cmd.Args().Slice() {
		file, events, err := saveHistory(ctx, temporal, c.PayloadKeys, arg, cmd.String("output"))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", arg, err))
			continue
		}
		fmt.Fprintf(cmd.Root().Writer, "%s: %d events in %s\n", arg, events, file)
	}
	return errors.Join(faults...)
}

func saveHistory(ctx context.Context, temporal client.Client, keys codec.Keys, arg, folder string) (file string, events int, err error) {
	id := arg
	if _, notANumber := strconv.ParseUint(arg, 10, 64); notANumber == nil {
		if id, err = workflowOf(ctx, temporal, arg); err != nil {
			return "", 0, err
		}
	}
	h := &history.History{}
	for pages := temporal.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); pages.HasNext(); {
		event, err := pages.Next()
		if err != nil {
			return "", 0, fmt.Errorf("get the history of %s: %w", id, err)
		}
		h.Events = append(h.Events, event)
	}
	if len(h.Events) == 0 {
		return "", 0, fmt.Errorf("the history of %s has no events", id)
	}
	if err := keys.DecryptHistory(ctx, h); err != nil {
		return "", 0, fmt.Errorf("decrypt the history of %s: %w", id, err)
	}
	anonymize(h.ProtoReflect())
	b, err := temporalproto.CustomJSONMarshalOptions{Indent: "  "}.Marshal(h)
	if err != nil {
		return "", 0, fmt.Errorf("encode the history of %s: %w", id, err)
	}
	workflow := h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", 0, fmt.Errorf("--output: %w", err)
	}
	file = filepath.Join(folder, inFileName(fmt.Sprintf("%s_%s_%d.json", workflow, id, len(h.Events))))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) // #nosec G302 -- it is to be committed
	if errors.Is(err, os.ErrExist) {
		return "", 0, fmt.Errorf("%s is there already; remove it, or choose another folder by --output", file)
	}
	if err != nil {
		return "", 0, fmt.Errorf("--output: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("write %s: %w", file, err)
	}
	return file, len(h.Events), nil
}

// workflowOf finds the workflow ID of a session. Two apps may have a session of
// the same number.
func workflowOf(ctx context.Context, temporal client.Client, roomSessionID string) (id string, err error) {
	started, _, err := startedAt(ctx, temporal, fmt.Sprintf("%s = '%s'", workflows.RoomSessionID.GetName(), roomSessionID), nil)
	if err != nil {
		return "", err
	}
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(started)), func(id string) bool {
		_, _, err := workflows.ParseWorkflowID(id)
		return err != nil // it is about what came later
	})
	switch len(ids) {
	case 0:
		return "", errors.New("no run of such a session; one that was started just now is found in a moment")
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("found sessions of several apps, want a workflow ID: %s", strings.Join(ids, ", "))
}

// startedAt gives the workflow IDs that a query finds, a thousand at most, and
// when each was last started, without those that aren't wanted. more says that
// there are others.
func startedAt(ctx context.Context, temporal client.Client, query string, wanted func(*workflow.WorkflowExecutionInfo) bool) (ids map[string]time.Time, more bool, err error) {
	answer, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 1000})
	if err != nil {
		return nil, false, fmt.Errorf("look for the session: %w", err)
	}
	ids = map[string]time.Time{}
	for _, run := range answer.GetExecutions() {
		id, start := run.GetExecution().GetWorkflowId(), run.GetStartTime().AsTime()
		if start.After(ids[id]) && (wanted == nil || wanted(run)) {
			ids[id] = start
		}
	}
	return ids, len(answer.GetNextPageToken()) > 0, nil
}

// anonymize takes out who did something, and on which machine: it is of no use
// to a replay, and none of a repository's business.
func anonymize(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Name() == "identity":
			m.Clear(field)
		case field.IsMap():
			if field.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { anonymize(v.Message()); return true })
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				anonymize(v.List().Get(i).Message())
			}
		default:
			if queue, ok := v.Message().Interface().(*taskqueue.TaskQueue); ok && queue.GetKind() == enums.TASK_QUEUE_KIND_STICKY {
				queue.Name = "sticky"
			}
			anonymize(v.Message())
		}
		return true
	})
}

// inFileName replaces what not every file system takes.
func inFileName(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
			return '_'
		}
		return r
	}, s)
}
