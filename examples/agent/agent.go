package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/workflows"
)

// Agent is an AI agent that left its room.
type Agent struct {
	AppID      uint32    `json:"appid"`
	InstanceID string    `json:"instance_id"`
	RoomID     string    `json:"room_id"`
	UserID     string    `json:"user_id"`
	Deleted    time.Time `json:"deleted"`
	// Code is why the agent was deleted: 0 if the app did it, 1201 to 1206 after an error.
	Code int `json:"code"`
}

// agentDeleted starts one run for each agent that an AgentInstanceDeleted callback names.
func agentDeleted(_ context.Context, c workflows.Callback) (workflows.Action, error) {
	var body struct {
		AgentInstanceID string `json:"AgentInstanceId"`
		AgentUserID     string `json:"AgentUserId"`
		RoomID          string `json:"RoomId"`
		Data            struct {
			Code             int
			DeletedTimestamp int64 // in milliseconds
		}
	}
	if err := json.Unmarshal(c.JSON, &body); err != nil {
		return workflows.Action{}, fmt.Errorf("read the callback: %w", err)
	}
	if body.AgentInstanceID == "" {
		return workflows.Action{}, errors.New("the callback has no AgentInstanceId")
	}
	deleted := c.SentAt
	if ms := body.Data.DeletedTimestamp; ms > 0 {
		deleted = time.UnixMilli(ms).UTC()
	}
	return workflows.Action{
		WorkflowID: fmt.Sprintf("agent-%d-%s", c.AppID, body.AgentInstanceID),
		Workflow:   ReportAgent,
		Input:      Agent{c.AppID, body.AgentInstanceID, body.RoomID, body.AgentUserID, deleted, body.Data.Code},
		Key:        body.AgentInstanceID,
	}, nil
}

// ReportAgent is a Workflow that reports the agent, and retries until the API accepts it.
func ReportAgent(ctx workflow.Context, a Agent) (Report, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, Summary: "Report the agent"})
	var agents *Agents
	var r Report
	err := workflow.ExecuteActivity(ctx, agents.PostAgent, a).Get(ctx, &r)
	return r, err
}

// Agents is an HTTP API that keeps a record of agents, one for each Idempotency-Key.
type Agents struct{ API activities.Endpoint }

// Report is the API's answer.
type Report struct {
	ID string `json:"id"`
}

// PostAgent reports an agent.
func (s *Agents) PostAgent(ctx context.Context, a Agent) (r Report, err error) {
	key := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "agent/%d/%s", a.AppID, a.InstanceID))
	err = s.API.Post(ctx, key, a, &r)
	return r, err
}

// load reads the settings. Without AGENTS_URL, the API is a fake in this process.
func (s *Agents) load() error {
	s.API = activities.Endpoint{Name: "the agents' API", URL: os.Getenv("AGENTS_URL"), Token: os.Getenv("AGENTS_TOKEN")}
	if s.API.URL == "" {
		s.API.URL, s.API.Client = "http://fake", &http.Client{Transport: fakeAPI{}}
		return nil
	}
	if u, err := url.Parse(s.API.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("AGENTS_URL: want a URL as in https://agents.example.com/v1/agents")
	}
	return nil
}

// fakeAPI accepts every report.
type fakeAPI struct{}

// RoundTrip implements [http.RoundTripper].
func (fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	var a Agent
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	slog.Info("fake agents' API: reported", "agent", a.InstanceID, "room", a.RoomID, "deleted", a.Deleted)
	body := fmt.Sprintf(`{"id":"report-%.8s"}`, r.Header.Get("Idempotency-Key"))
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}
