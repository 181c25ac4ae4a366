// Package steps runs the standard steps, which package activities names.
package steps

// Standard has an Activity for each method of [activities.Steps].
type Standard struct {
	*Billing
	*Recordings
}
