package workflows

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/zego"
)

// Workflow closes out a session. Its Workflow type is the name of the function.
type Workflow func(workflow.Context, session.Session) (Result, error)

// Name returns the Workflow's name.
func Name(w Workflow) string {
	full := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	return strings.TrimSuffix(full[strings.LastIndexByte(full, '.')+1:], "-fm") // of a method's value
}

// The Search Attributes of a run.
var (
	// RoomID is ZEGO's room_id.
	RoomID = temporal.NewSearchAttributeKeyKeyword("RoomId")
	// RoomSessionID is ZEGO's room_session_id in decimal: an Int attribute has 63 bits.
	RoomSessionID = temporal.NewSearchAttributeKeyKeyword("RoomSessionId")
	// AppID is ZEGO's appid.
	AppID = temporal.NewSearchAttributeKeyInt64("AppId")
	// CloseReason is ZEGO's close_reason.
	CloseReason = temporal.NewSearchAttributeKeyInt64("CloseReason")
	// CloseoutState is [StateBlocked], [StateGivenUp] or [StateSkipped]. It is unset in
	// other states, which the execution's status shows.
	CloseoutState = temporal.NewSearchAttributeKeyKeyword("CloseoutState")
)

// SearchAttributes returns the Search Attributes that a Namespace needs, in the order in
// which to create them. CloseoutState comes first, because a run with RoomId sets it.
func SearchAttributes() []temporal.SearchAttributeKey {
	return []temporal.SearchAttributeKey{CloseoutState, RoomSessionID, AppID, CloseReason, RoomID}
}

// searchAttributes returns the Search Attributes of every run of the session.
func searchAttributes(s session.Session) []temporal.SearchAttributeUpdate {
	attributes := []temporal.SearchAttributeUpdate{
		RoomID.ValueSet(clip(s.RoomID, 255)),
		RoomSessionID.ValueSet(strconv.FormatUint(s.RoomSessionID, 10)),
		AppID.ValueSet(int64(s.AppID)),
	}
	if reason, ok := s.CloseReason.Number(); ok {
		attributes = append(attributes, CloseReason.ValueSet(reason))
	}
	return attributes
}

// SignalIndex makes a run that was started without Search Attributes set them. Setup sends
// it, because Temporal lets only a run change its own Search Attributes.
const SignalIndex = "search-attributes"

// UnindexedQuery returns the List Filter of the open runs that lack our Search Attributes.
func UnindexedQuery() string {
	return fmt.Sprintf("%s IS NULL AND WorkflowId STARTS_WITH '%s' AND ExecutionStatus = 'Running'", RoomID.GetName(), session.WorkflowIDPrefix)
}

// ReportedProblems is the Search Attribute that Temporal sets on a run after its Workflow
// Tasks have failed repeatedly. Older servers lack it.
const ReportedProblems = "TemporalReportedProblems"

// BlockedQuery returns the List Filter of the runs that wait for an operator.
func BlockedQuery() string {
	return fmt.Sprintf("%s = '%s' AND ExecutionStatus = 'Running'", CloseoutState.GetName(), StateBlocked)
}

// OpenQuery returns the List Filter of the open runs. It needs none of our Search Attributes.
func OpenQuery() string {
	return fmt.Sprintf("(WorkflowId STARTS_WITH '%s' OR WorkflowId STARTS_WITH '%s') AND ExecutionStatus = 'Running'", session.WorkflowIDPrefix, adjustmentIDPrefix)
}

// reasonText returns a close_reason for Temporal's Markdown.
func reasonText(reason zego.Code) string {
	text := zego.CloseReasonText(reason)
	if text == string(reason) { // ZEGO sent words in place of a number
		return code(clip(text, 80))
	}
	return text
}

// StartOptions returns the options that start the session's run exactly once, after the
// settling time.
func StartOptions(s session.Session, taskQueue string) client.StartWorkflowOptions {
	reason := reasonText(s.CloseReason)
	if s.Reconciled {
		reason = "found gone without a room_close"
	}
	memo := map[string]any{
		"room_id":         s.RoomID,
		"close_reason":    zego.CloseReasonText(s.CloseReason),
		"room_close_time": s.RoomCloseTime.UTC().Format(time.RFC3339Nano),
	}
	if s.Reconciled {
		memo["reconciled"] = true // the close time is an estimate
	}
	return client.StartWorkflowOptions{
		ID:        s.WorkflowID(),
		TaskQueue: taskQueue,
		// A delay costs less than a timer: the first Workflow Task can do all the work.
		StartDelay: time.Duration(s.Settling),
		// Refuse an ID that any run has, open or closed, and report that as an error.
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		// On a fair Task Queue a burst of one app doesn't delay the others. Steps
		// inherit the key, and servers without fairness ignore it.
		Priority:              temporal.Priority{FairnessKey: strconv.FormatUint(uint64(s.AppID), 10)},
		TypedSearchAttributes: temporal.NewSearchAttributes(searchAttributes(s)...),
		Memo:                  memo,
		StaticSummary:         summary("Room %s closed: %s", code(clip(s.RoomID, 80)), reason),
	}
}

// Signal sends the result of an awaited step to a run: see [Await]. If no such run is
// open, the error wraps a [go.temporal.io/api/serviceerror.NotFound].
func Signal(ctx context.Context, temporal client.Client, workflowID, step string, result any) error {
	if err := temporal.SignalWorkflow(ctx, workflowID, "", step, result); err != nil {
		return fmt.Errorf("signal %q to %s: %w", step, workflowID, err)
	}
	return nil
}

// maxSummary is the default of Temporal's limit of a summary in bytes.
const maxSummary = 400

// summary formats the summary of a run and cuts it to maxSummary.
func summary(format string, args ...any) string {
	s := fmt.Sprintf(format, args...)
	for len(s) > maxSummary {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// maxTimerSummary is the longest summary of a timer, in characters of up to four
// bytes: Temporal's limit is 400 bytes.
const maxTimerSummary = 100

// clip returns at most n characters of s. Temporal's SQL stores index 255 characters
// of a Search Attribute.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}
