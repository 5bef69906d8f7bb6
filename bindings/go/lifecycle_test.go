package antiphon_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"antiphon.dev/antiphon"
)

func TestCloseIsIdempotentAndEndsEverything(t *testing.T) {
	leavesNothing(t, func() {
		engine, err := antiphon.Open()
		if err != nil {
			t.Fatal(err)
		}
		conversation, err := engine.NewConversation(antiphon.ConversationOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for event, err := range engine.Stream(t.Context(), antiphon.Request{Message: text()}) {
			if event.Type == antiphon.EventAnalysis {
				if err := errors.Join(engine.Close(), engine.Close()); err != nil {
					t.Error(err)
				}
			}
			last = err
		}
		if !errors.Is(last, antiphon.ErrClosed) {
			t.Error(last)
		}
		isClosed(t, engine)
		for _, err := range conversation.Say(t.Context(), antiphon.Request{Message: "Hello"}) {
			if !errors.Is(err, antiphon.ErrClosed) {
				t.Error(err)
			}
		}
		if err := conversation.Close(); err != nil {
			t.Error(err)
		}
	})
}

// isClosed makes every call.
func isClosed(t *testing.T, engine *antiphon.Engine) {
	t.Helper()
	ctx, request := t.Context(), antiphon.Request{Message: "Hello"}
	calls := map[string]func() error{
		"Analyze":         func() error { _, err := engine.Analyze(ctx, "Hello"); return err },
		"AnalyzeBatch":    func() error { _, err := engine.AnalyzeBatch(ctx, []string{"Hello"}); return err },
		"Process":         func() error { _, err := engine.Process(ctx, request); return err },
		"Generate":        func() error { _, err := engine.Generate(ctx, request); return err },
		"Summarize":       func() error { _, err := engine.Summarize(ctx, "Hello.", antiphon.SummaryOptions{}); return err },
		"Embed":           func() error { _, err := engine.Embed(ctx, "Hello"); return err },
		"NewConversation": func() error { _, err := engine.NewConversation(antiphon.ConversationOptions{}); return err },
		"Models":          func() error { _, err := engine.Models(); return err },
		"Health":          func() error { _, err := engine.Health(); return err },
		"Diagnose":        func() error { _, err := engine.Diagnose(ctx); return err },
		"CacheStats":      func() error { _, err := engine.CacheStats(); return err },
		"CacheClear":      func() error { return engine.CacheClear("") },
		"CacheResize":     func() error { return engine.CacheResize(0) },
		"CacheWarm":       func() error { return engine.CacheWarm(ctx, request) },
		"Metrics":         func() error { _, err := engine.Metrics(); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, antiphon.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := engine.Drain(ctx); err != nil {
		t.Error(err)
	}
	seen := 0
	for _, err := range engine.Stream(ctx, request) {
		if seen++; !errors.Is(err, antiphon.ErrClosed) {
			t.Error(err)
		}
	}
	if seen != 1 || engine.Ready() {
		t.Error(seen, engine.Ready())
	}
}

func TestCloseWhileManyAsk(t *testing.T) {
	leavesNothing(t, func() {
		engine, err := antiphon.Open()
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 64 {
			request := antiphon.Request{Message: text()}
			all.Add(2)
			go func() {
				defer all.Done()
				for {
					if _, err := engine.Process(context.Background(), request); err != nil {
						if !errors.Is(err, antiphon.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			}()
			go func() {
				defer all.Done()
				for {
					if _, err := engine.Analyze(context.Background(), request.Message); err != nil {
						if !errors.Is(err, antiphon.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			}()
		}
		for range 4 {
			if _, err := engine.Analyze(t.Context(), "Hello"); err != nil {
				t.Error(err)
			}
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}

func TestTwoEnginesKeepApart(t *testing.T) {
	one, two := open(t), open(t, antiphon.WithThreads(1))
	request := antiphon.Request{Message: "Where is order 4711?"}
	first, err := one.Process(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.Process(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if first.Response != second.Response || second.Metadata.ResponseGeneration.Cache != antiphon.CacheMiss {
		t.Error(first, second)
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if _, err := two.Process(t.Context(), request); err != nil {
		t.Error(err)
	}
}

func TestFaults75WhatIsForgottenIsCollected(t *testing.T) {
	leavesNothing(t, func() {
		engine, err := antiphon.Open()
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := antiphon.OpenAndForget(engine, antiphon.Request{Message: text()}); err != nil {
				t.Error(err)
			}
			if _, err := engine.NewConversation(antiphon.ConversationOptions{}); err != nil {
				t.Error(err)
			}
		}
		runtime.KeepAlive(engine)
	})
}

func TestAnEngineLivesWhileSomethingOfItIsUsed(t *testing.T) {
	forget := func() *antiphon.Conversation {
		engine, err := antiphon.Open()
		if err != nil {
			t.Fatal(err)
		}
		conversation, err := engine.NewConversation(antiphon.ConversationOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return conversation
	}
	leavesNothing(t, func() {
		conversation := forget()
		for range 3 {
			runtime.GC()
			for _, err := range conversation.Say(t.Context(), antiphon.Request{Message: text()}) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	leavesNothing(t, func() {
		for _, option := range []antiphon.Option{
			antiphon.WithThreads(-1),
			antiphon.WithConfig(`{"batcher": {"colour": "red"}}`),
			antiphon.WithConfig(`[1]`),
			antiphon.WithGenerator(generator{"No Name", blocked}),
			antiphon.WithGenerator(generator{"a\x00b", blocked}),
		} {
			if _, err := antiphon.Open(option); !errors.Is(err, antiphon.ErrInvalidConfig) {
				t.Error(err)
			}
		}
		if _, err := antiphon.Open(antiphon.WithResponder("no/such/folder")); !errors.Is(err, antiphon.ErrModelNotFound) {
			t.Error(err)
		}
	})
}
