//go:build linux

package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/workflow"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// naiveClose and the rest of this file are the naive handler to compare with: it starts
// the Workflow and then answers 200.
type naiveClose struct {
	Event         string `json:"event"`
	AppID         uint32 `json:"appid"`
	Timestamp     int64  `json:"timestamp"`
	Nonce         string `json:"nonce"`
	Signature     string `json:"signature"`
	RoomID        string `json:"room_id"`
	RoomSessionID uint64 `json:"room_session_id"`
	CloseReason   int    `json:"close_reason"`
	RoomCloseTime string `json:"room_close_time"`
}

// findable makes it start Workflows with Closeout's start options, so that runs are as
// easy to find and read. The rest of the handler stays the same.
func naiveHandler(temporal client.Client, findable bool) http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/zego/callbacks", func(w http.ResponseWriter, r *http.Request) {
		var c naiveClose
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		parts := []string{secret, fmt.Sprint(c.Timestamp), c.Nonce}
		slices.Sort(parts)
		sum := sha1.Sum([]byte(strings.Join(parts, "")))
		if hex.EncodeToString(sum[:]) != c.Signature {
			http.Error(w, "bad signature", http.StatusUnauthorized)
			return
		}
		options := client.StartWorkflowOptions{ID: fmt.Sprintf("room-close-%d", c.RoomSessionID), TaskQueue: taskQueue}
		if findable {
			closed, _ := time.Parse(time.RFC3339, c.RoomCloseTime) // the naive handler doesn't check it
			options = workflows.StartOptions(session.Session{ID: session.ID{AppID: c.AppID, RoomSessionID: c.RoomSessionID}, RoomID: c.RoomID, RoomCloseTime: closed}, taskQueue)
		}
		if _, err := temporal.ExecuteWorkflow(r.Context(), options, naiveWorkflow, c); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusOK)
	}).Methods(http.MethodPost)
	return r
}

func naiveWorkflow(ctx workflow.Context, c naiveClose) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	if err := workflow.ExecuteActivity(ctx, naiveBill, c).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.ExecuteActivity(ctx, naiveArchive, c).Get(ctx, nil)
}

func naiveBill(context.Context, naiveClose) error    { return nil }
func naiveArchive(context.Context, naiveClose) error { return nil }
