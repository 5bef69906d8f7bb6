package antiphon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

// answer is what a generator is asked, and where it writes.
type answer struct {
	io.Writer
	request *antiphon.Request
}

// generator is a Generator from a function.
type generator struct {
	name   string
	behave func(context.Context, answer) error
}

func (g generator) Name() string { return g.name }

func (g generator) Generate(ctx context.Context, request *antiphon.Request, to io.Writer) error {
	return g.behave(ctx, answer{to, request})
}

// parrot says what it heard.
func parrot(_ context.Context, a answer) error {
	_, err := io.WriteString(a, a.request.Message)
	return err
}

// blocked writes nothing, until nobody wants anything.
func blocked(ctx context.Context, a answer) error {
	<-ctx.Done()
	return nil
}

// stalled writes a word, and nothing more.
func stalled(ctx context.Context, a answer) error {
	if _, err := io.WriteString(a, "one "); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func broken(context.Context, answer) error { return errors.New("the line is dead") }

func panicking(context.Context, answer) error { panic("a generator's own trouble") }

func exiting(context.Context, answer) error { runtime.Goexit(); return nil }

// withGenerator opens an engine with nothing else to answer.
func withGenerator(t testing.TB, behave func(context.Context, answer) error) *antiphon.Engine {
	return open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"clerk", behave}),
		antiphon.WithConfig(`{"breaker": {"failure_threshold": 1000000}}`))
}

func TestAGeneratorAnswers(t *testing.T) {
	var heard *antiphon.Request
	engine := withGenerator(t, func(ctx context.Context, a answer) error {
		heard = a.request
		// A character in two pieces arrives as one.
		for _, piece := range []string{"Gr", "\xc3", "\xb6", "ße"} {
			if _, err := io.WriteString(a, piece); err != nil {
				return err
			}
		}
		return nil
	})
	reply, err := engine.Process(t.Context(), antiphon.Request{
		Message: "Hello there", TenantID: "acme", History: []antiphon.Message{{Role: antiphon.RoleUser, Content: "Hi"}},
		Options: antiphon.Options{Temperature: antiphon.Ptr(0.5), Deadline: time.Minute},
	})
	if err != nil || reply.Response != "Größe" || reply.Metadata.ResponseGeneration.Model != "clerk" {
		t.Fatal(reply, err)
	}
	turns := heard.History
	if heard.Message != "Hello there" || heard.TenantID != "acme" || turns[len(turns)-1].Content != "Hi" ||
		*heard.Options.Temperature != 0.5 || heard.Options.Deadline != time.Minute {
		t.Errorf("%+v", heard)
	}
}

func TestFaults74AGeneratorThatFailsPanicsOrExitsCostsItsRequestAlone(t *testing.T) {
	leavesNothing(t, func() {
		for _, behave := range []func(context.Context, answer) error{broken, panicking, exiting} {
			engine := open(t, antiphon.WithGenerator(generator{"clerk", behave}))
			for range 3 {
				request := antiphon.Request{Message: text(), Options: antiphon.Options{Model: "clerk"}}
				reply, err := engine.Process(t.Context(), request)
				if err != nil || reply.Metadata.ResponseGeneration.Degraded == nil {
					t.Error("expected an answer from a template", reply, err)
				}
				request.Options.Cache = antiphon.CacheBypass
				if _, err := engine.Generate(t.Context(), request); !errors.Is(err, antiphon.ErrBackendUnavailable) {
					t.Error(err)
				}
			}
			if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
				t.Error(err)
			}
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAGeneratorHearsThatNobodyListens(t *testing.T) {
	left := make(chan error, 1)
	engine := withGenerator(t, func(ctx context.Context, a answer) error {
		for {
			if _, err := io.WriteString(a, "word "); err != nil {
				left <- errors.Join(err, ctx.Err())
				return err
			}
			time.Sleep(time.Millisecond)
		}
	})
	for event, err := range engine.Stream(t.Context(), antiphon.Request{Message: text()}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == antiphon.EventChunk {
			break
		}
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestASilentGeneratorEndsWithItsEngine(t *testing.T) {
	leavesNothing(t, func() {
		engine := withGenerator(t, blocked)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if _, err := engine.Process(ctx, antiphon.Request{Message: text()}); !errors.Is(err, antiphon.ErrDeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		asked := make(chan error)
		go func() {
			_, err := engine.Process(context.Background(), antiphon.Request{Message: text()})
			asked <- err
		}()
		eventually(t, "it runs", func() bool { return running(t, engine) == "1" })
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		if err := <-asked; !errors.Is(err, antiphon.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestAWriterEndsWithItsCall(t *testing.T) {
	kept := make(chan io.Writer, 1)
	engine := withGenerator(t, func(_ context.Context, a answer) error {
		kept <- a.Writer
		_, err := io.WriteString(a, "Yes.")
		return err
	})
	if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the writer refuses", func() bool { _, err := io.WriteString(<-kept, "No."); return err != nil })
}

// shelf is a tier in this process; a real one would talk to a server.
type shelf struct {
	mutex  sync.Mutex
	values map[string][]byte
	fail   func() error
}

func (s *shelf) Get(key []byte) ([]byte, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.fail != nil {
		return nil, s.fail()
	}
	return s.values[string(key)], nil
}

func (s *shelf) Put(key, value []byte, timeToLive time.Duration) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.fail != nil {
		return s.fail()
	}
	if timeToLive <= 0 {
		return fmt.Errorf("a time of %v", timeToLive)
	}
	s.values[string(key)] = value
	return nil
}

func (s *shelf) Remove(key []byte) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.values, string(key))
	return nil
}

func (s *shelf) count() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.values)
}

func TestEnginesShareATier(t *testing.T) {
	leavesNothing(t, func() {
		tier := &shelf{values: make(map[string][]byte)}
		request := antiphon.Request{Message: "What are your opening hours?"}
		var outcomes []antiphon.CacheOutcome
		for range 2 {
			engine := open(t, antiphon.WithSharedTier(tier))
			reply, err := engine.Process(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			outcomes = append(outcomes, reply.Metadata.ResponseGeneration.Cache)
			eventually(t, "the answer is kept", func() bool { return tier.count() == 1 })
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		}
		if outcomes[0] != antiphon.CacheMiss || outcomes[1] != antiphon.CacheShared {
			t.Error(outcomes)
		}
	})
}

func TestATierThatFailsCostsNoRequest(t *testing.T) {
	for _, fail := range []func() error{
		func() error { return errors.New("no server") },
		func() error { panic("no server") },
		func() error { runtime.Goexit(); return nil },
	} {
		engine := open(t, antiphon.WithSharedTier(&shelf{fail: fail}))
		for range 3 {
			if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
				t.Error(err)
			}
		}
	}
}

// watcher counts what it is told.
type watcher struct {
	mutex  sync.Mutex
	events []string
	behave func()
	calls  atomic.Int64
}

func (w *watcher) Log(antiphon.Level, string, string) {}

func (w *watcher) Event(name string, fields []byte) {
	w.calls.Add(1)
	if w.behave != nil {
		w.behave()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.events = append(w.events, name+" "+string(fields))
}

func TestAnObserverIsToldOfEveryRequest(t *testing.T) {
	observer := new(watcher)
	engine := open(t, antiphon.WithObserver(observer))
	for range 3 {
		if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three events", func() bool { return observer.calls.Load() >= 3 })
	observer.mutex.Lock()
	defer observer.mutex.Unlock()
	if !strings.HasPrefix(observer.events[0], "request {") || strings.Contains(fmt.Sprint(observer.events), "Where is") {
		t.Error(observer.events)
	}
}

func TestAnObserverThatPanicsIsNotCalledAgain(t *testing.T) {
	for _, behave := range []func(){func() { panic("an observer's own trouble") }, runtime.Goexit} {
		observer := &watcher{behave: behave}
		engine := open(t, antiphon.WithObserver(observer))
		for range 3 {
			thrown := attempt(func() {
				if _, err := engine.Process(t.Context(), antiphon.Request{Message: text()}); err != nil {
					t.Error(err)
				}
			})
			t.Log("in the caller's goroutine:", thrown)
		}
		if calls := observer.calls.Load(); calls != 1 {
			t.Errorf("called %d times", calls)
		}
	}
}

// attempt runs a function on a goroutine of its own and says how it ended: "returned", "exited", or with which panic.
func attempt(run func()) any {
	ended := make(chan any)
	go func() {
		how := any("exited")
		defer func() {
			if value := recover(); value != nil {
				how = value
			}
			ended <- how
		}()
		run()
		how = "returned"
	}()
	return <-ended
}

func TestFaults79CallbacksOnForeignThreadsLeaveNothing(t *testing.T) {
	calls := 2000
	if *long {
		calls = 1_000_000
	}
	var pieces atomic.Int64
	before := 0
	leavesNothing(t, func() {
		engine := withGenerator(t, func(_ context.Context, a answer) error {
			pieces.Add(1)
			_, err := io.WriteString(a, "Yes.")
			return err
		})
		for i := range calls {
			request := antiphon.Request{Message: "Hello", Options: antiphon.Options{Cache: antiphon.CacheBypass}}
			if _, err := engine.Generate(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			if i == calls/10 {
				before = threads(t)
			}
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	if after := threads(t); after > before+8 {
		t.Errorf("%d threads, %d before", after, before)
	}
	if pieces.Load() != int64(calls) {
		t.Errorf("%d calls", pieces.Load())
	}
}
