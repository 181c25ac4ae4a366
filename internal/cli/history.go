package cli

import (
	"context"
	"errors"
	"fmt"
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
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/service"
)

// History returns the command that records histories for replay tests.
func History() *cli.Command {
	return &cli.Command{
		Name:  "history",
		Usage: "record Workflow histories for replay tests",
		Description: "A test that replays a recorded history fails if a changed Workflow would leave open runs stuck: see\n" +
			"closeouttest.Replay.\n\n" +
			"    closeout history save --output workflows/testdata 858012925204410417",
		Commands: []*cli.Command{{
			Name: "save", Usage: "save the history of a run", ArgsUsage: sessionArgs, Action: operate(needTemporal, saveHistories),
			Description: "The file is <workflow>_<workflow ID>_<number of events>.json. It has the whole history, including the\n" +
				"room's name and the results of steps, decrypted, but without host names and identities. An open run is saved\n" +
				"up to its last event.",
			Flags: append(Flags("PAYLOAD_KEYS", "LOG_LEVEL", "LOG_FORMAT"),
				&cli.StringFlag{Name: "output", Value: "testdata", Usage: "folder for the files"}),
		}},
	}
}

func saveHistories(ctx context.Context, op *operation) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return op.each("session", exampleSession, func(arg string) error {
		h, id, err := readHistory(ctx, op, arg)
		if err != nil {
			return err
		}
		file, err := writeHistory(h, id, op.String("output"))
		if err == nil {
			fmt.Fprintf(op.out, "%s: %d events in %s\n", printable.Line(arg), len(h.Events), printable.Line(file))
		}
		return err
	})
}

func readHistory(ctx context.Context, op *operation, arg string) (h *history.History, id string, err error) {
	id = arg
	if _, notNumber := strconv.ParseUint(arg, 10, 64); notNumber == nil {
		if id, err = roomCloseID(ctx, op.temporal, arg); err != nil {
			return nil, "", err
		}
	}
	h = &history.History{}
	for pages := op.temporal.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); pages.HasNext(); {
		event, err := pages.Next()
		if err != nil {
			return nil, "", fmt.Errorf("get the history: %w", err)
		}
		h.Events = append(h.Events, event)
	}
	if len(h.Events) == 0 {
		return nil, "", errors.New("the history has no events")
	}
	if err := op.config.PayloadKeys.DecryptHistory(ctx, h); err != nil {
		return nil, "", fmt.Errorf("decrypt the history: %w", err)
	}
	anonymize(h.ProtoReflect())
	return h, id, nil
}

// roomCloseID returns the Workflow ID of a session. Several apps may have a session with that number.
func roomCloseID(ctx context.Context, c client.Client, roomSessionID string) (string, error) {
	var ids []string
	for run, err := range service.Runs(ctx, c, ofSession(roomSessionID)) {
		if err != nil {
			return "", err
		}
		if id := run.GetExecution().GetWorkflowId(); isRoomClose(id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	switch len(ids) {
	case 0:
		return "", errors.New("found no run of the session; Temporal lists a new run after a moment")
	case 1:
		return ids[0], nil
	}
	slices.Sort(ids)
	return "", fmt.Errorf("found sessions of several apps, want a Workflow ID: %s", strings.Join(ids, ", "))
}

func writeHistory(h *history.History, id, folder string) (file string, err error) {
	b, err := temporalproto.CustomJSONMarshalOptions{Indent: "  "}.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode the history: %w", err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("--output: %w", err)
	}
	name := h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()
	file = filepath.Join(folder, fileName(fmt.Sprintf("%s_%s_%d.json", name, id, len(h.Events))))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) // #nosec G302 -- it is to be committed
	if errors.Is(err, os.ErrExist) {
		return "", withHint(fmt.Errorf("%s exists already", file), "remove it, or choose another folder by --output")
	}
	if err != nil {
		return "", fmt.Errorf("--output: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write %s: %w", file, err)
	}
	return file, nil
}

// anonymize removes identities and host names, which a replay does not need.
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

// fileName replaces characters that some file systems refuse.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
			return '_'
		}
		return r
	}, s)
}
