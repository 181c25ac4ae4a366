package closeouttest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/worker"

	"github.com/closeouthq/closeout/internal/attendance"
	"github.com/closeouthq/closeout/session"
)

// Participant returns a participant with exact figures. Its stay and its stream begin a
// minute after [time.Unix] 1499676989. The changes are applied last.
func Participant(user string, inRoom, published time.Duration, changes ...func(*session.Participant)) session.Participant {
	begin := time.Unix(1499676989, 0).UTC().Add(time.Minute)
	end := func(t time.Time) session.End {
		return session.End{Time: t, Certainty: session.Stated, Earliest: t, Latest: t}
	}
	exact := func(d time.Duration) session.Span {
		ms := d.Milliseconds()
		return session.Span{Millis: ms, Min: ms, Max: ms}
	}
	p := session.Participant{User: user, Role: "1", InRoom: exact(inRoom), Published: exact(published),
		Stays: []session.Stay{{SessionID: user + "-1", Login: end(begin), Logout: end(begin.Add(inRoom))}}}
	if published > 0 {
		p.Streams = []session.Stream{{StreamSID: user + "-1", StreamID: user, Create: end(begin), Close: end(begin.Add(published))}}
	}
	for _, change := range changes {
		change(&p)
	}
	return p
}

// Adjusted returns the participants of an adjustment, for [WithParticipants] and
// [Env.SetParticipants]: the participants of now, each with the figures billed before.
func Adjusted(before, now []session.Participant) []session.Participant {
	all := slices.Clone(now)
	for _, b := range before {
		i := slices.IndexFunc(all, func(p session.Participant) bool { return p.User == b.User })
		if i < 0 {
			i, all = len(all), append(all, session.Participant{User: b.User})
		}
		all[i].Before = b.Billed()
	}
	slices.SortFunc(all, byUser)
	return all
}

func byUser(a, b session.Participant) int { return cmp.Compare(a.User, b.User) }

// WithParticipants returns a context for a step that the test calls. In it,
// activities.Participants returns the given participants with Settled set.
func WithParticipants(ctx context.Context, all ...session.Participant) context.Context {
	return attendance.With(ctx, func(_ context.Context, s session.Session, adjustment int) (*session.Participants, error) {
		return &session.Participants{Session: s, End: s.RoomCloseTime, Settled: true, Adjustment: adjustment,
			All: func(yield func(session.Participant, error) bool) {
				for _, p := range all {
					if !yield(p, nil) {
						return
					}
				}
			}}, nil
	})
}

// SetParticipants makes activities.Participants return the given participants with Settled
// set, in all steps that aren't mocked. Call it before Start or Run.
func (e *Env) SetParticipants(all ...session.Participant) {
	e.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: maxTaskTime, BackgroundActivityContext: WithParticipants(context.Background(), all...)})
}
