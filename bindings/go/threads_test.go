package antiphon_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"antiphon.dev/antiphon"
)

func TestFaults78TenThousandGoroutinesWaitOnAFewThreads(t *testing.T) {
	const goroutines = 10_000
	engine := open(t, antiphon.WithConfig(`{"batcher": {"max_queue": 20000, "max_queue_tokens": 1000000000, "timeout_ms": 600000}}`))
	before := threads(t)
	var most, replies, waiting atomic.Int64
	var all sync.WaitGroup
	for i := range goroutines {
		all.Add(1)
		go func() {
			defer all.Done()
			// Some are equal, and join each other: that is cheaper, and they wait all the same.
			request := antiphon.Request{Message: fmt.Sprintf("Where is order %d?", 100000+i%distinct(goroutines))}
			request.Options.MaxTokens = 1
			waiting.Add(1)
			for event, err := range engine.Stream(context.Background(), request) {
				if err != nil {
					t.Error(err)
				}
				if event.Type == antiphon.EventDone {
					replies.Add(1)
				}
				if i%100 == 0 {
					most.Store(max(most.Load(), int64(threads(t))))
				}
			}
		}()
	}
	all.Wait()
	t.Logf("%d replies; %d threads before, %d at most; GOMAXPROCS %d", replies.Load(), before, most.Load(), runtime.GOMAXPROCS(0))
	if replies.Load() != goroutines {
		t.Errorf("%d replies", replies.Load())
	}
	if most.Load() > int64(before+40) {
		t.Errorf("%d threads, %d before", most.Load(), before)
	}
}

func distinct(all int) int {
	if *long {
		return all
	}
	return all / 10
}
