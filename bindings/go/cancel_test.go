package antiphon_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

var errHungUp = errors.New("the caller hung up")

func TestAnEndedContextGivesOneErrorAndNothingElse(t *testing.T) {
	engine := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errHungUp)
	request := antiphon.Request{Message: "Hello"}
	calls := map[string]func() error{
		"Analyze":   func() error { _, err := engine.Analyze(ctx, "Hello"); return err },
		"Process":   func() error { _, err := engine.Process(ctx, request); return err },
		"Generate":  func() error { _, err := engine.Generate(ctx, request); return err },
		"Summarize": func() error { _, err := engine.Summarize(ctx, "Hello.", antiphon.SummaryOptions{}); return err },
		"Embed":     func() error { _, err := engine.Embed(ctx, "Hello"); return err },
	}
	for name, call := range calls {
		if err := call(); !isCancelled(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	seen := 0
	for event, err := range engine.Stream(ctx, request) {
		if seen++; !isCancelled(err) || event.Type != "" {
			t.Error(event, err)
		}
	}
	if seen != 1 {
		t.Errorf("%d steps", seen)
	}
}

func isCancelled(err error) bool {
	var whole *antiphon.Error
	return errors.Is(err, antiphon.ErrCancelled) && errors.Is(err, errHungUp) && errors.Is(err, context.Canceled) &&
		errors.As(err, &whole) && whole.Kind == "cancelled"
}

func TestACancelEndsTheStreamWithTheNextStep(t *testing.T) {
	engine := open(t)
	for _, when := range []antiphon.EventType{antiphon.EventAnalysis, antiphon.EventChunk, antiphon.EventDone} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var steps []error
		for event, err := range engine.Stream(ctx, antiphon.Request{Message: text()}) {
			if len(steps) > 0 {
				steps = append(steps, err)
			}
			if event.Type == when && len(steps) == 0 {
				cancel(errHungUp)
				steps = append(steps, err)
			}
		}
		cancel(nil)
		if when == antiphon.EventDone {
			if len(steps) != 1 {
				t.Error("after the last event there is nothing to cancel", steps)
			}
		} else if len(steps) != 2 || !isCancelled(steps[1]) {
			t.Error(when, steps)
		}
	}
}

func TestACancelReachesTheEngineWhileTheLoopIsBusy(t *testing.T) {
	engine := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for event := range engine.Stream(ctx, antiphon.Request{Message: text()}) {
		if event.Type == antiphon.EventAnalysis {
			cancel()
			eventually(t, "nothing runs", func() bool { return running(t, engine) == "0" })
		}
	}
}

func TestACancelEndsThoseWhoWait(t *testing.T) {
	engine := open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"slow", blocked}))
	request := antiphon.Request{Message: text()}
	for name, call := range map[string]func(context.Context) error{
		"Process":  func(ctx context.Context) error { _, err := engine.Process(ctx, request); return err },
		"Generate": func(ctx context.Context) error { _, err := engine.Generate(ctx, request); return err },
		"Stream": func(ctx context.Context) (last error) {
			for _, last = range engine.Stream(ctx, request) {
			}
			return last
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errHungUp) })
		began := time.Now()
		if err := call(ctx); !isCancelled(err) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, time.Since(began)-20*time.Millisecond)
	}
}

func TestTheDeadlineOfAContextIsAnError(t *testing.T) {
	for _, behaviour := range []func(context.Context, answer) error{blocked, stalled} {
		engine := open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"slow", behaviour}))
		for name, call := range map[string]func(context.Context) error{
			"Process": func(ctx context.Context) error {
				_, err := engine.Process(ctx, antiphon.Request{Message: text()})
				return err
			},
			"Stream": func(ctx context.Context) (last error) {
				for _, last = range engine.Stream(ctx, antiphon.Request{Message: text()}) {
				}
				return last
			},
			"Generate": func(ctx context.Context) error {
				_, err := engine.Generate(ctx, antiphon.Request{Message: text()})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			err := call(ctx)
			cancel()
			if !errors.Is(err, antiphon.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestTheDeadlineOfTheOptionsGivesWhatThereIs(t *testing.T) {
	late := antiphon.Options{Deadline: 50 * time.Millisecond}
	engine := open(t, antiphon.WithResponder(""),
		antiphon.WithGenerator(generator{"stalls", stalled}), antiphon.WithGenerator(generator{"broods", blocked}))
	reply, err := engine.Process(t.Context(), antiphon.Request{Message: text(), Options: late})
	if err != nil || reply.FinishReason() != antiphon.FinishDeadline || reply.Response == "" {
		t.Error(reply, err)
	}
	late.Model = "broods"
	_, err = engine.Process(t.Context(), antiphon.Request{Message: text(), Options: late})
	if !errors.Is(err, antiphon.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	late.Model = "stalls"
	if reply, err = engine.Process(ctx, antiphon.Request{Message: text(), Options: late}); err != nil {
		t.Error("the deadline of the options comes first", err)
	}
}

func TestFaults72AThousandCancelsLeaveNothing(t *testing.T) {
	engine := open(t)
	before := threads(t)
	cancelOnce := func(i int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		// Before it is opened, after so many events, or from another goroutine at some time.
		switch events := 0; i % 4 {
		case 0:
			time.AfterFunc(time.Duration(i%17)*100*time.Microsecond, cancel)
			fallthrough
		default:
			for _, err := range engine.Stream(ctx, antiphon.Request{Message: text()}) {
				if err != nil && !errors.Is(err, antiphon.ErrCancelled) {
					t.Error(err)
				}
				if events++; events == i%7+1 {
					cancel()
				}
			}
		case 3:
			time.AfterFunc(time.Duration(i%17)*100*time.Microsecond, cancel)
			if _, err := engine.Process(ctx, antiphon.Request{Message: text()}); err != nil && !errors.Is(err, antiphon.ErrCancelled) {
				t.Error(err)
			}
		}
	}
	cancelOnce(0)
	leavesNothing(t, func() {
		for i := range 1000 {
			cancelOnce(i)
		}
	})
	if after := threads(t); after > before+8 {
		t.Errorf("%d threads, %d before", after, before)
	}
	eventually(t, "nothing runs", func() bool { return running(t, engine) == "0" })
	if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
		t.Error(err)
	}
}
