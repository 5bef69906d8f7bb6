package antiphon_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

func TestAStreamHasAnAnalysisThenChunksThenTheReply(t *testing.T) {
	engine := open(t)
	var types []antiphon.EventType
	var text strings.Builder
	for event, err := range engine.Stream(t.Context(), antiphon.Request{Message: "Hello, I need help with my account"}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == antiphon.EventChunk && event.Index != uint64(len(types)-1) {
			t.Errorf("chunk %d has the index %d", len(types)-1, event.Index)
		}
		types = append(types, event.Type)
		text.WriteString(event.Content)
		if event.Type == antiphon.EventDone && event.Reply.Response != text.String() {
			t.Errorf("the reply is %q, the chunks %q", event.Reply.Response, text.String())
		}
	}
	if len(types) < 3 || types[0] != antiphon.EventAnalysis || types[len(types)-1] != antiphon.EventDone {
		t.Error(types)
	}
}

func TestAStreamThatIsNotReadNeverBegins(t *testing.T) {
	engine := open(t)
	leavesNothing(t, func() { _ = engine.Stream(t.Context(), antiphon.Request{Message: text()}) })
}

func TestPlacesOfEntitiesAreBytes(t *testing.T) {
	engine := open(t)
	const message = "“Größe” 👋🏽 order 4711, please"
	analysis, err := engine.Analyze(t.Context(), message)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := engine.Process(t.Context(), antiphon.Request{Message: message})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := engine.AnalyzeBatch(t.Context(), []string{"Hello", message})
	if err != nil {
		t.Fatal(err)
	}
	for _, entities := range [][]antiphon.Entity{analysis.Entities, reply.Entities, reply.Analysis().Entities, batch[1].Entities} {
		if len(entities) == 0 {
			t.Error("no entities")
		}
		for _, entity := range entities {
			if message[entity.Start:entity.End] != entity.Value || entity.Start == entity.StartRune {
				t.Errorf("%+v", entity)
			}
			if runes := []rune(message); string(runes[entity.StartRune:entity.EndRune]) != entity.Value {
				t.Errorf("%+v", entity)
			}
		}
	}
}

func TestAReplyCanBeAskedForInEveryWay(t *testing.T) {
	engine := open(t)
	ctx := t.Context()
	reply, err := engine.Generate(ctx, antiphon.Request{
		Messages: []antiphon.Message{{Role: antiphon.RoleUser, Content: "Hello"}},
		Options:  antiphon.Options{MaxTokens: 4},
	})
	if err != nil || reply.Response == "" || reply.Analysis() != nil || reply.FinishReason() != antiphon.FinishLength {
		t.Error(reply, err)
	}
	if reply, err = engine.Generate(ctx, antiphon.Request{Prompt: "Hello", Options: antiphon.Options{MaxTokens: 2}}); err != nil {
		t.Error(err)
	}
	if summary, err := engine.Summarize(ctx, "It rained. We stayed at home. It was dull.", antiphon.SummaryOptions{Sentences: 1}); err != nil ||
		strings.Count(summary, ".") != 1 {
		t.Error(summary, err)
	}
	vector, err := engine.Embed(ctx, "Hello")
	var length float64
	for _, number := range vector {
		length += float64(number) * float64(number)
	}
	if err != nil || math.Abs(length-1) > 1e-3 {
		t.Error(len(vector), length, err)
	}
	if none, err := engine.AnalyzeBatch(ctx, nil); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

func TestAnEngineTellsHowItIs(t *testing.T) {
	engine := open(t)
	ctx := t.Context()
	if err := engine.CacheWarm(ctx, antiphon.Request{Message: "Hello"}); err != nil {
		t.Fatal(err)
	}
	reply, err := engine.Process(ctx, antiphon.Request{Message: "Hello"})
	if err != nil || reply.Metadata.ResponseGeneration.Cache != antiphon.CacheHit {
		t.Error(reply, err)
	}
	if stats, err := engine.CacheStats(); err != nil || stats.Hits != 1 || stats.Entries != 1 {
		t.Error(stats, err)
	}
	if err := engine.CacheClear("somebody else"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(engine.CacheClear(""), engine.CacheResize(1<<20)); err != nil {
		t.Error(err)
	}
	if stats, err := engine.CacheStats(); err != nil || stats.Entries != 0 || stats.MaxBytes != 1<<20 {
		t.Error(stats, err)
	}
	if models, err := engine.Models(); err != nil || len(models) != 2 || models[0].Status != "available" {
		t.Error(models, err)
	}
	if health, err := engine.Health(); err != nil || health.Status != antiphon.HealthHealthy || !engine.Ready() {
		t.Error(health, err)
	}
	if diagnosis, err := engine.Diagnose(ctx); err != nil || len(diagnosis.Checks) == 0 || !diagnosis.Configuration.Valid {
		t.Error(diagnosis, err)
	}
	if metrics, err := engine.Metrics(); err != nil || !strings.Contains(metrics, "ai_requests_total{") {
		t.Error(metrics, err)
	}
}

func TestAConversationRemembers(t *testing.T) {
	engine := open(t)
	conversation, err := engine.NewConversation(antiphon.ConversationOptions{TenantID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	say := func(message string) (prompt int) {
		for event, err := range conversation.Say(t.Context(), antiphon.Request{Message: message}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Reply != nil {
				prompt = event.Reply.Metadata.ResponseGeneration.Usage.PromptTokens
			}
		}
		return prompt
	}
	if first, second := say("Where is order 4711?"), say("Where is order 4712?"); second <= first {
		t.Errorf("prompts of %d and %d tokens", first, second)
	}
	for event, err := range conversation.Say(t.Context(), antiphon.Request{Message: "And 4713?"}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range conversation.Say(t.Context(), antiphon.Request{Message: "And 4714?"}) {
			if !errors.Is(err, antiphon.ErrInvalidArgument) {
				t.Error(err)
			}
		}
		if event.Type == antiphon.EventChunk {
			break
		}
	}
	if say("And 4715?") == 0 {
		t.Error("no answer")
	}
	if err := errors.Join(conversation.Close(), conversation.Close()); err != nil {
		t.Error(err)
	}
	for _, err := range conversation.Say(t.Context(), antiphon.Request{Message: "Hello"}) {
		if !errors.Is(err, antiphon.ErrClosed) {
			t.Error(err)
		}
	}
}

func TestDrainWaitsForWhatIsUnderWay(t *testing.T) {
	engine := open(t)
	drained := make(chan error)
	chunks := 0
	for event, err := range engine.Stream(t.Context(), antiphon.Request{Message: text()}) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Type == antiphon.EventAnalysis {
			go func() { drained <- engine.Drain(context.Background()) }()
			eventually(t, "the engine takes no more", func() bool { return !engine.Ready() })
		}
		if event.Type == antiphon.EventDone {
			chunks = event.Reply.Metadata.ResponseGeneration.Usage.CompletionTokens
		}
	}
	if err := <-drained; err != nil || chunks == 0 {
		t.Error(err, chunks)
	}
	if _, err := engine.Process(t.Context(), antiphon.Request{Message: "Hello"}); !errors.Is(err, antiphon.ErrClosed) {
		t.Error(err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	engine := open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"slow", blocked}))
	ended := make(chan error)
	go func() {
		_, err := engine.Process(context.Background(), antiphon.Request{Message: text()})
		ended <- err
	}()
	eventually(t, "it runs", func() bool {
		metrics, _ := engine.Metrics()
		return strings.Contains(metrics, "antiphon_running_requests 1")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := engine.Drain(ctx); !errors.Is(err, antiphon.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, antiphon.ErrClosed) {
		t.Error(err)
	}
}
