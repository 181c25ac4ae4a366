package main

import "testing"

// A run carries its app, and the app's weight, so that a fair task queue can hand out
// the apps' tasks in turn.
func TestARunCarriesItsAppAsFairnessKey(t *testing.T) {
	c := settings(t, map[string]string{"app-weights": "1=5;2=0.5"})
	setUp(t, c)
	closed := newClose()
	post(t, start(t, c, both), closed)
	temporalClient := dial(t, c)
	result(t, temporalClient, closed)
	described, err := temporalClient.DescribeWorkflowExecution(t.Context(), workflowID(closed), "")
	if err != nil {
		t.Fatal(err)
	}
	if p := described.GetWorkflowExecutionInfo().GetPriority(); p.GetFairnessKey() != "1" || p.GetFairnessWeight() != 5 {
		t.Errorf("got %v", p)
	}
}
