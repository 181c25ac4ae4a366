package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/testsuite"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

func TestServiceIsComplete(t *testing.T) {
	if err := service().Check(); err != nil {
		t.Error(err)
	}
}

// deletedBody is the example in ZEGO's documentation.
const deletedBody = `{"AppId":1234567,"AgentInstanceId":"1912124734317838336","AgentUserId":"agent_user_1","RoomId":"room_1","Sequence":1234567890,` +
	`"Data":{"Code":0,"DeletedTimestamp":1745502345138,"LatencyData":{"LLMTTFT":613,"LLMTPS":11.493}},` +
	`"Event":"AgentInstanceDeleted","Nonce":"7450395512627324902","Signature":"s","Timestamp":1745502313000}`

func TestAnAgentIsReportedOnce(t *testing.T) {
	sent := time.UnixMilli(1745502313000).UTC()
	for name, test := range map[string]struct {
		body string
		want workflows.Action
		err  bool
	}{
		"as documented": {body: deletedBody, want: workflows.Action{WorkflowID: "agent-1234567-1912124734317838336", Key: "1912124734317838336",
			Input: Agent{1234567, "1912124734317838336", "room_1", "agent_user_1", time.UnixMilli(1745502345138).UTC(), 0}}},
		"without a time": {body: `{"AgentInstanceId":"1","Data":{"Code":1202}}`, want: workflows.Action{WorkflowID: "agent-1234567-1", Key: "1",
			Input: Agent{AppID: 1234567, InstanceID: "1", Deleted: sent, Code: 1202}}},
		"without an agent": {body: `{}`, err: true},
		"another type":     {body: `{"AgentInstanceId":1}`, err: true},
	} {
		got, err := agentDeleted(t.Context(), workflows.Callback{AppID: 1234567, Event: "AgentInstanceDeleted", SentAt: sent, JSON: json.RawMessage(test.body)})
		if (err != nil) != test.err || got.WorkflowID != test.want.WorkflowID || got.Key != test.want.Key || got.Input != test.want.Input || !test.err && got.Workflow == nil {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, test.want)
		}
	}
}

func TestTheWorkflowReportsUntilTheAPITakesIt(t *testing.T) {
	env := new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()
	agents := &Agents{}
	env.RegisterActivity(agents)
	agent := Agent{AppID: 1, InstanceID: "7"}
	env.OnActivity(agents.PostAgent, mock.Anything, agent).Return(Report{}, errors.New("away")).Times(3)
	env.OnActivity(agents.PostAgent, mock.Anything, agent).Return(Report{"r"}, nil).Once()
	env.ExecuteWorkflow(ReportAgent, agent)
	var got Report
	if err := env.GetWorkflowResult(&got); err != nil || got.ID != "r" {
		t.Errorf("%+v, %v", got, err)
	}
	env.AssertExpectations(t)
}

func TestARepeatedReportHasTheKeyOfTheFirst(t *testing.T) {
	keys := map[string]int{}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys[r.Header.Get("Idempotency-Key")]++
		_, _ = w.Write([]byte(`{"id":"r"}`))
	}))
	defer api.Close()
	agents := &Agents{activities.Endpoint{URL: api.URL}}
	for _, a := range []Agent{{AppID: 1, InstanceID: "7"}, {AppID: 1, InstanceID: "7"}, {AppID: 2, InstanceID: "7"}} {
		if r, err := agents.PostAgent(t.Context(), a); err != nil || r.ID != "r" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if len(keys) != 2 {
		t.Errorf("keys %v, want 2", keys)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for url, ok := range map[string]bool{"": true, "https://agents.example.com": true, "agents.example.com": false, "ftp://x": false} {
		t.Setenv("AGENTS_URL", url)
		if err := new(Agents).load(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
