package antiphon_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

// A request with every key.
var everything = antiphon.Request{
	Message: "Where is order 4711?", TenantID: "acme", UserID: "user-123", ConversationID: "conv-456",
	History: []antiphon.Message{{Role: antiphon.RoleUser, Content: "Hi"}, {Role: antiphon.RoleAssistant, Content: "Yes?"}},
	Context: map[string]any{"previous_intent": "greeting"},
	Options: antiphon.Options{
		MaxTokens: 4, Temperature: antiphon.Ptr(0.5), TopK: antiphon.Ptr(40), TopP: antiphon.Ptr(0.9), MinP: antiphon.Ptr(0.05),
		RepetitionPenalty: antiphon.Ptr(1.1), PresencePenalty: antiphon.Ptr(0.1), FrequencyPenalty: antiphon.Ptr(-0.1),
		LogitBias: map[int]float64{7: -100}, Seed: antiphon.Ptr(uint64(math.MaxUint64)), Stop: []string{"\n", "<end>"},
		Deadline: time.Minute, Priority: antiphon.PriorityHigh, Cache: antiphon.CacheBypass,
		Overflow: antiphon.OverflowError, Model: "responder",
	},
}

func TestEveryOptionReachesTheEngine(t *testing.T) {
	engine := open(t)
	reply, err := engine.Process(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	made := reply.Metadata.ResponseGeneration
	if made.Repro.Seed == nil || *made.Repro.Seed != math.MaxUint64 || made.Usage.CompletionTokens > 4 {
		t.Errorf("%+v", made)
	}
	for name, options := range map[string]antiphon.Options{
		"max_tokens":         {MaxTokens: -1},
		"temperature":        {Temperature: antiphon.Ptr(3.0)},
		"top_k":              {TopK: antiphon.Ptr(0)},
		"top_p":              {TopP: antiphon.Ptr(0.0)},
		"min_p":              {MinP: antiphon.Ptr(2.0)},
		"repetition_penalty": {RepetitionPenalty: antiphon.Ptr(0.0)},
		"presence_penalty":   {PresencePenalty: antiphon.Ptr(3.0)},
		"frequency_penalty":  {FrequencyPenalty: antiphon.Ptr(3.0)},
		"logit_bias":         {LogitBias: map[int]float64{7: 1000}},
		"stop":               {Stop: []string{""}},
		"deadline_ms":        {Deadline: -1},
		"priority":           {Priority: "urgent"},
		"cache":              {Cache: "always"},
		"overflow":           {Overflow: "spill"},
	} {
		_, err := engine.Process(t.Context(), antiphon.Request{Message: "Hello", Options: options})
		if !errors.Is(err, antiphon.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = engine.Process(t.Context(), antiphon.Request{Message: "Hello", Options: antiphon.Options{Model: "nobody"}})
	if !errors.Is(err, antiphon.ErrUnknownModel) {
		t.Error(err)
	}
}

func TestARequestThatCannotBeIsRefused(t *testing.T) {
	engine := open(t)
	turn := []antiphon.Message{{Role: antiphon.RoleUser, Content: "canary"}}
	for name, request := range map[string]antiphon.Request{
		"messages":     {Messages: turn},
		"prompt":       {Prompt: "canary"},
		"a number":     {Message: "canary", Options: antiphon.Options{Temperature: antiphon.Ptr(math.NaN())}},
		"a bias":       {Message: "canary", Options: antiphon.Options{LogitBias: map[int]float64{1: math.Inf(1)}}},
		"a context":    {Message: "canary", Context: map[string]any{"a": make(chan int)}},
		"a role":       {Message: "canary", History: []antiphon.Message{{Role: "boss", Content: "canary"}}},
		"a NUL inside": {Message: "canary", History: []antiphon.Message{{Role: "user\x00canary", Content: " "}}},
	} {
		_, err := engine.Process(t.Context(), request)
		if !errors.Is(err, antiphon.ErrInvalidArgument) && !errors.Is(err, antiphon.ErrInvalidText) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, request := range map[string]antiphon.Request{
		"both":    {Messages: turn, Message: "canary"},
		"context": {Messages: turn, Context: map[string]any{"a": 1}},
		"nothing": {},
	} {
		if _, err := engine.Generate(t.Context(), request); !errors.Is(err, antiphon.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, request := range map[string]antiphon.Request{
		"a message": {Message: "canary\xff"},
		"a turn":    {Message: "Hello", History: []antiphon.Message{{Role: "user", Content: "canary\xff"}}},
		"a tenant":  {Message: "Hello", TenantID: "canary\xff"},
		"a stop":    {Message: "Hello", Options: antiphon.Options{Stop: []string{"canary\xff"}}},
	} {
		_, err := engine.Process(t.Context(), request)
		if !errors.Is(err, antiphon.ErrInvalidText) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARequestIsReadAsItIsWritten(t *testing.T) {
	written := *jsonOf(t, everything)
	var read antiphon.Request
	if err := json.Unmarshal([]byte(written), &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read, everything) {
		t.Errorf("%s", written)
	}
	if text := *jsonOf(t, antiphon.Request{Message: "Hello"}); text != `{"message":"Hello"}` {
		t.Error(text)
	}
	if err := json.Unmarshal([]byte(`{"message": "Hello", "colour": 1}`), &read); err == nil || !strings.Contains(err.Error(), "colour") {
		t.Error(err)
	}
}

func TestAnEventIsWrittenInTheShapeOfEveryLanguage(t *testing.T) {
	if text := *jsonOf(t, antiphon.Event{Type: antiphon.EventChunk, Content: "I'd be"}); text != `{"type":"chunk","content":"I'd be","index":0}` {
		t.Error(text)
	}
	entity := antiphon.Entity{Type: "account", Value: "account", Confidence: 0.98, Start: 28, End: 35, StartRune: 27, EndRune: 34}
	if text := *jsonOf(t, entity); text != `{"type":"account","value":"account","confidence":0.98,"start":27,"end":34}` {
		t.Error(text)
	}
	for _, event := range []antiphon.Event{{Type: antiphon.EventAnalysis, Analysis: new(antiphon.Analysis)}, {Type: antiphon.EventDone, Reply: new(antiphon.Reply)}} {
		if text := *jsonOf(t, event); !strings.HasPrefix(text, `{"type":"`+string(event.Type)+`","`) {
			t.Error(text)
		}
	}
}
