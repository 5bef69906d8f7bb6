package antiphon_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"antiphon.dev/antiphon"
)

// stage is a Stage from two functions.
type stage struct {
	before func(*antiphon.Request) error
	after  func(*antiphon.Reply) (string, error)
}

func (s stage) Before(request *antiphon.Request) error {
	if s.before == nil {
		return nil
	}
	return s.before(request)
}

func (s stage) After(reply *antiphon.Reply) (string, error) {
	if s.after == nil {
		return "", nil
	}
	return s.after(reply)
}

// requestsOnly is a stage that holds no answer back.
type requestsOnly struct{ stage }

func (requestsOnly) HoldsBack() bool { return false }

func TestAStageChangesRequestsAndAnswers(t *testing.T) {
	leavesNothing(t, func() {
		engine := open(t, antiphon.WithGenerator(generator{"clerk", parrot}), antiphon.WithStage(stage{
			before: func(request *antiphon.Request) error {
				request.Message = strings.ReplaceAll(request.Message, "4711", "<number>")
				request.Context = map[string]any{"previous_intent": "greeting"}
				request.History = append(request.History, antiphon.Message{Role: antiphon.RoleUser, Content: "Hi"})
				request.Options.Model = "clerk"
				request.Options.Seed = nil
				request.Options.Stop = nil
				return nil
			},
			after: func(reply *antiphon.Reply) (string, error) { return strings.ToUpper(reply.Response), nil },
		}))
		request := antiphon.Request{Message: "Where is order 4711?", Options: antiphon.Options{
			Seed: antiphon.Ptr(uint64(7)), Stop: []string{"order"},
		}}
		reply, err := engine.Process(t.Context(), request)
		if err != nil || reply.Response != "WHERE IS ORDER <NUMBER>?" || reply.Metadata.ResponseGeneration.Repro.Seed != nil {
			t.Error(reply, err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAStageThatLeavesAllAsItIsChangesNothing(t *testing.T) {
	plain, staged := open(t), open(t, antiphon.WithStage(stage{}))
	expected, err := plain.Process(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := staged.Process(t.Context(), everything)
	if err != nil || reply.Response != expected.Response {
		t.Error(reply, expected, err)
	}
}

func TestAStageThatLooksAtRequestsAloneHoldsNothingBack(t *testing.T) {
	for _, holds := range []bool{true, false} {
		plugin := antiphon.Stage(stage{after: func(*antiphon.Reply) (string, error) { return "held", nil }})
		if !holds {
			plugin = requestsOnly{stage{}}
		}
		engine := open(t, antiphon.WithStage(plugin))
		chunks := 0
		for event, err := range engine.Stream(t.Context(), antiphon.Request{Message: "Hello, I need help with my account"}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Type == antiphon.EventChunk {
				chunks++
			}
		}
		if holds != (chunks == 1) {
			t.Errorf("%d chunks", chunks)
		}
	}
}

func TestAStageThatFailsIsOnTheSafeSide(t *testing.T) {
	for name, plugin := range map[string]stage{
		"before fails":     {before: func(*antiphon.Request) error { return errors.New("a matter for people") }},
		"before breaks":    {before: func(request *antiphon.Request) error { request.Message = "\xff"; return nil }},
		"before unsets":    {before: func(request *antiphon.Request) error { request.Message = ""; return nil }},
		"before misplaces": {before: func(request *antiphon.Request) error { request.Prompt = "x"; return nil }},
		"after fails":      {after: func(*antiphon.Reply) (string, error) { return "", errors.New("not for you") }},
		"after panics":     {after: func(*antiphon.Reply) (string, error) { panic("a stage's own trouble") }},
		"after exits":      {after: func(*antiphon.Reply) (string, error) { runtime.Goexit(); return "", nil }},
	} {
		engine := open(t, antiphon.WithStage(plugin))
		reply, err := engine.Process(t.Context(), antiphon.Request{Message: text()})
		if !errors.Is(err, antiphon.ErrPluginFailed) && !(name == "before unsets" && errors.Is(err, antiphon.ErrInvalidText)) {
			t.Errorf("%s: %v %v", name, reply, err)
		}
	}
}

func TestFaults73APanicBeforeARequestGoesOnWhereItWasAsked(t *testing.T) {
	for expected, behave := range map[any]func(){
		"a stage's own trouble": func() { panic("a stage's own trouble") },
		"exited":                runtime.Goexit,
	} {
		leavesNothing(t, func() {
			engine := open(t, antiphon.WithStage(stage{before: func(request *antiphon.Request) error {
				if request.Message != "Hello" {
					behave()
				}
				return nil
			}}))
			conversation, err := engine.NewConversation(antiphon.ConversationOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for name, call := range map[string]func(context.Context, antiphon.Request){
				"Process":   func(ctx context.Context, request antiphon.Request) { _, _ = engine.Process(ctx, request) },
				"Generate":  func(ctx context.Context, request antiphon.Request) { _, _ = engine.Generate(ctx, request) },
				"CacheWarm": func(ctx context.Context, request antiphon.Request) { _ = engine.CacheWarm(ctx, request) },
				"Stream": func(ctx context.Context, request antiphon.Request) {
					for range engine.Stream(ctx, request) {
					}
				},
				"Say": func(ctx context.Context, request antiphon.Request) {
					for range conversation.Say(ctx, request) {
					}
				},
			} {
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					if thrown := attempt(func() { call(ctx, antiphon.Request{Message: "trouble"}) }); thrown != expected {
						t.Errorf("%s: %v", name, thrown)
					}
				}
			}
			if _, err := engine.Process(t.Context(), antiphon.Request{Message: "Hello"}); err != nil {
				t.Error(err)
			}
			if err := errors.Join(conversation.Close(), engine.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAStageMayAskTheEngine(t *testing.T) {
	var engine *antiphon.Engine
	engine = open(t, antiphon.WithStage(stage{before: func(request *antiphon.Request) error {
		analysis, err := engine.Analyze(context.Background(), request.Message)
		if err == nil {
			request.Context = map[string]any{"previous_intent": analysis.Intent.Label}
		}
		return err
	}}))
	ended := make(chan error)
	for range 64 {
		request := antiphon.Request{Message: text()}
		go func() { _, err := engine.Process(context.Background(), request); ended <- err }()
	}
	for range 64 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
