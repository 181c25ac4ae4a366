package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/session"
)

// Recording returns the command for recordings without a session.
func Recording() *cli.Command {
	return &cli.Command{
		Name:  "recording",
		Usage: "list recordings without a session, and assign them",
		Description: "ZEGO's recording callbacks do not name the session. If several match, choose one and retry the step:\n\n" +
			"    closeout recording list\n" +
			"    closeout recording assign --app 1234567890 --session 858012925204410417 YZ4joOE4IwmFAAAT\n" +
			"    closeout blocked retry --step recordings --reason 'assigned' room-close-1234567890-858012925204410417\n\n" +
			"With --session 0 the recording belongs to no session, and no run waits for it.",
		Commands: []*cli.Command{
			{Name: "list", Usage: "list recording tasks with files that are not archived, oldest first", Action: operate(needLedger, listRecordings),
				Flags: append(Flags("DATA", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT"),
					&cli.DurationFlag{Name: "older", Usage: "only tasks without a callback for this long", Value: 10 * time.Minute},
					&cli.IntFlag{Name: "limit", Usage: "maximum number of tasks", Value: 100}, jsonFlag())},
			{Name: "assign", Usage: "assign recording tasks to a session", ArgsUsage: "TASK-ID...", Action: operate(assignRecordings),
				Flags: append(Flags("DATA", "DATABASE_URL", "LOG_LEVEL", "LOG_FORMAT"),
					&cli.Uint32Flag{Name: "app", Usage: "ZEGO's appid", Required: true},
					&cli.StringFlag{Name: "session", Usage: "room_session_id; 0 for none", Required: true},
					&cli.BoolFlag{Name: "announced", Usage: "as the app that started the tasks, even before any callback: the run waits for their files"})},
		},
	}
}

// leftRecordings are tasks without a session.
type leftRecordings struct {
	Tasks []leftRecording `json:"recordings"`
}

type leftRecording struct {
	AppID        uint32    `json:"appid"`
	TaskID       string    `json:"task_id"`
	RoomID       string    `json:"room_id"`
	Files        int       `json:"files"`
	Contradicted int       `json:"contradicted,omitempty"`
	Begin        time.Time `json:"begin,omitzero"`
	LastCallback time.Time `json:"last_callback"`
	AssignedTo   string    `json:"assigned_to,omitempty"`
}

func listRecordings(ctx context.Context, op *operation) error {
	tasks, err := op.ledger.LeftRecordings(ctx, time.Now().Add(-op.Duration("older")), op.Int("limit"))
	if err != nil {
		return err
	}
	left := leftRecordings{Tasks: []leftRecording{}}
	for _, t := range tasks {
		left.Tasks = append(left.Tasks, leftRecordingOf(t))
	}
	return op.print(left, left.print)
}

func leftRecordingOf(t ledger.RecordingTask) leftRecording {
	left := leftRecording{AppID: t.AppID, TaskID: t.TaskID, RoomID: t.RoomID, Files: len(t.Files), LastCallback: t.Last}
	for _, f := range t.Files {
		if f.Contradicted != 0 {
			left.Contradicted++
		}
		if !f.Begin.IsZero() && (left.Begin.IsZero() || f.Begin.Before(left.Begin)) {
			left.Begin = f.Begin
		}
	}
	if t.Assigned {
		left.AssignedTo = strconv.FormatUint(t.RoomSessionID, 10)
	}
	return left
}

func (l leftRecordings) print(out io.Writer) error {
	if len(l.Tasks) == 0 {
		fmt.Fprintln(out, "every recording is archived, or a run waits for it")
		return nil
	}
	t := newTable(out, "TASK", "FILES", "BEGIN", "LAST CALLBACK", "APP", "ROOM", "ASSIGNED TO")
	for _, r := range l.Tasks {
		files, begin := strconv.Itoa(r.Files), ""
		if r.Contradicted > 0 {
			files += fmt.Sprintf(" (%d contradicted)", r.Contradicted)
		}
		if !r.Begin.IsZero() {
			begin = moment(r.Begin)
		}
		t.row(r.TaskID, files, begin, moment(r.LastCallback), r.AppID, r.RoomID, r.AssignedTo)
	}
	return t.print()
}

func assignRecordings(ctx context.Context, op *operation) error {
	number, err := strconv.ParseUint(op.String("session"), 10, 64)
	if err != nil {
		return usagef("--session: found %q, want a room_session_id, or 0", op.String("session"))
	}
	if err := needLedger(ctx, op); err != nil {
		return err
	}
	id, assign, then := session.ID{AppID: op.Uint32("app"), RoomSessionID: number}, op.ledger.AssignRecording, "; retry the step of the run that waits for it"
	if op.Bool("announced") {
		assign, then = op.ledger.AnnounceRecording, ", whose run waits for its files"
	}
	return op.each("task ID", "--app 1 --session 858012925204410417 YZ4joOE4IwmFAAAT", func(task string) error {
		err := assign(ctx, id, task)
		if err == nil {
			fmt.Fprintf(op.out, "%s: assigned to session %d%s\n", printable.Line(task), number, then)
		}
		return err
	})
}
