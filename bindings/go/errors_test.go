package antiphon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

var sentinels = []error{
	antiphon.ErrInvalidArgument, antiphon.ErrInvalidText, antiphon.ErrInputTooLong, antiphon.ErrContextFull,
	antiphon.ErrUnknownModel, antiphon.ErrInvalidConfig, antiphon.ErrClosed, antiphon.ErrForked, antiphon.ErrQuotaExceeded,
	antiphon.ErrModelNotFound, antiphon.ErrModelInvalid, antiphon.ErrIntegrityMismatch, antiphon.ErrUnsupportedModel,
	antiphon.ErrIO, antiphon.ErrOutOfBudget, antiphon.ErrHubUnavailable, antiphon.ErrPluginFailed, antiphon.ErrOverloaded,
	antiphon.ErrDeadlineExceeded, antiphon.ErrCancelled, antiphon.ErrBackendUnavailable, antiphon.ErrInternal,
}

func TestThereIsASentinelForEveryKindOfTheLibrary(t *testing.T) {
	kinds := 0
	for code := -1; code > -1000; code-- {
		name := antiphon.KindName(code)
		if name == "unknown" {
			continue
		}
		kinds++
		matches := 0
		for _, sentinel := range sentinels {
			if errors.Is(fmt.Errorf("wrapped: %w", &antiphon.Error{Code: code}), sentinel) {
				matches++
				if sentinel.Error() != "antiphon: "+name {
					t.Errorf("%d is %s, its sentinel says %v", code, name, sentinel)
				}
			}
		}
		if matches != 1 {
			t.Errorf("%d (%s) has %d sentinels", code, name, matches)
		}
	}
	if kinds != len(sentinels) {
		t.Errorf("%d kinds, %d sentinels", kinds, len(sentinels))
	}
}

func TestErrorsThatAreFoundHereSayWhatTheLibraryWouldSay(t *testing.T) {
	engine := open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"broods", blocked}))
	provoked := make(map[int]*antiphon.Error)
	provoke := func(err error) {
		var whole *antiphon.Error
		if !errors.As(err, &whole) {
			t.Fatal(err)
		}
		provoked[whole.Code] = whole
	}
	ask := func(request antiphon.Request) { _, err := engine.Process(t.Context(), request); provoke(err) }
	ask(antiphon.Request{Message: " "})
	ask(antiphon.Request{Message: "Hello", Options: antiphon.Options{MaxTokens: -1}})
	ask(antiphon.Request{Message: "Hello", Options: antiphon.Options{Deadline: time.Millisecond}})
	_, err := antiphon.Open(antiphon.WithThreads(-1))
	provoke(err)
	for _, code := range antiphon.CodesFoundHere() {
		here := antiphon.NewError(code, "")
		if here.Kind != antiphon.KindName(code) {
			t.Errorf("%d is %s, not %s", code, antiphon.KindName(code), here.Kind)
		}
		if there := provoked[code]; there != nil {
			here.Message = there.Message
			if *jsonOf(t, here) != *jsonOf(t, there) {
				t.Errorf("%s\n%s", *jsonOf(t, here), *jsonOf(t, there))
			}
		}
	}
	if len(provoked) != 4 {
		t.Error(provoked)
	}
}

func jsonOf(t *testing.T, value any) *string {
	t.Helper()
	written, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	text := string(written)
	return &text
}

func TestAnErrorIsWrittenInTheShapeOfEveryLanguage(t *testing.T) {
	err := &antiphon.Error{
		Code: -301, Kind: "overloaded", Type: "RATE_LIMIT", Severity: "MEDIUM", Message: "queue: 256 requests",
		Hint: "wait for the time in retry_after_ms", Retryable: true, RetryAfter: 120 * time.Millisecond,
	}
	const expected = `{"code":-301,"kind":"overloaded","type":"RATE_LIMIT","severity":"MEDIUM","message":"queue: 256 requests",` +
		`"retryable":true,"retry_after_ms":120,"hint":"wait for the time in retry_after_ms"}`
	if text := *jsonOf(t, err); text != expected {
		t.Error(text)
	}
	var read antiphon.Error
	if json.Unmarshal([]byte(expected), &read) != nil || read.Error() != err.Error() || read.RetryAfter != err.RetryAfter {
		t.Error(read)
	}
}

func TestAContextsErrorWrapsItsCauseAndItsReason(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errHungUp)
	if err := antiphon.ContextError(ctx); !isCancelled(err) || !strings.HasSuffix(err.Error(), errHungUp.Error()) {
		t.Error(err)
	}
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	err := antiphon.ContextError(late)
	if !errors.Is(err, antiphon.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, antiphon.ErrCancelled) {
		t.Error(err)
	}
}

func TestAnOverloadedEngineSaysWhenToComeAgain(t *testing.T) {
	engine := open(t, antiphon.WithResponder(""), antiphon.WithGenerator(generator{"broods", blocked}), antiphon.WithConcurrency(1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := make(chan error)
	for range 8 {
		request := antiphon.Request{Message: text()}
		go func() { _, err := engine.Process(ctx, request); refused <- err }()
	}
	err := <-refused
	var whole *antiphon.Error
	if !errors.Is(err, antiphon.ErrOverloaded) || !errors.As(err, &whole) || !whole.Retryable || whole.RetryAfter <= 0 {
		t.Error(err)
	}
	cancel()
	for range 7 {
		<-refused
	}
}
