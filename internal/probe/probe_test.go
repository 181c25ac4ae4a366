package probe

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnswersAreReturnedAsTheyAre(t *testing.T) {
	refused := errors.New("refused")
	p := New(time.Hour, func(context.Context) (int, error) { return 7, refused })
	if n, err := p.Get(t.Context()); n != 7 || err != refused {
		t.Errorf("%d, %v", n, err)
	}
}

// A caller gets an answer in time, whether or not the call heeds its context.
func TestHangingCallTimesOut(t *testing.T) {
	for name, heeds := range map[string]bool{"heeds its context": true, "a system call": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				var asked atomic.Int32
				p := New(2*time.Second, func(ctx context.Context) (int, error) {
					asked.Add(1)
					if heeds {
						<-ctx.Done()
						return 0, ctx.Err()
					}
					<-end
					return 1, nil
				})
				for range 3 {
					began := time.Now()
					_, err := p.Get(t.Context())
					if !errors.Is(err, ErrNoAnswer) || time.Since(began) > 2*time.Second {
						t.Errorf("%v after %v", err, time.Since(began))
					}
					synctest.Wait()
				}
				if want := map[bool]int32{true: 3, false: 1}[heeds]; asked.Load() != want {
					t.Errorf("asked %d times, want %d", asked.Load(), want)
				}
				close(end)
				synctest.Wait()
				if n, err := p.Get(t.Context()); !heeds && (n != 1 || err != nil) {
					t.Errorf("after it has come to life: %d, %v", n, err)
				}
			})
		})
	}
}

// A caller that leaves doesn't end the call for others.
func TestCallOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(time.Hour, func(ctx context.Context) (int, error) {
			select {
			case <-time.After(time.Minute):
				return 1, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		leaving, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { _, err := p.Get(leaving); left <- err }()
		synctest.Wait()
		stays := make(chan error, 1)
		go func() { _, err := p.Get(t.Context()); stays <- err }()
		leave()
		if err := <-left; !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
	})
}
