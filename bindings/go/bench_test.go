package antiphon_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
	"antiphon.dev/antiphon/internal/bare"
)

const question = "I want to return my order and get my money back"

// What a token costs from the engine to the loop, beside a loop in C, which costs what it costs in Rust
// (`cargo bench -p antiphon-capi --bench crossing`). An answer from the cache lies ready, so nobody waits: from the first chunk
// to the last.
func BenchmarkTokenReady(b *testing.B) {
	engine, plain := both(b)
	inGo, inC := make([]float64, b.N), make([]float64, b.N)
	for i := -1; i < b.N; i++ {
		goTokens, goTook := drain(b, engine)
		cTokens, cTook, err := plain.Drain(question)
		if err != nil {
			b.Fatal(err)
		}
		// The first one fills the cache.
		if i >= 0 {
			inGo[i] = float64(goTook.Nanoseconds()) / float64(goTokens)
			inC[i] = float64(cTook.Nanoseconds()) / float64(cTokens-1)
		}
	}
	report(b, inGo, inC)
}

// A token that is waited for: from when a model writes it, once in a tenth of a millisecond, to when the loop has it. The model
// keeps one core busy; then another thread keeps another one busy, too.
func BenchmarkTokenWaited(b *testing.B) {
	b.Run("one-core-busy", waited)
	b.Run("two-cores-busy", func(b *testing.B) {
		defer bare.Work()()
		waited(b)
	})
}

func waited(b *testing.B) {
	engine, plain := both(b)
	var inGo, inC []float64
	for range b.N {
		request := antiphon.Request{Message: question, Options: antiphon.Options{Model: "clock", Cache: antiphon.CacheBypass}}
		for event, err := range engine.Stream(context.Background(), request) {
			now := bare.Now()
			if err != nil {
				b.Fatal(err)
			}
			if event.Type == antiphon.EventChunk {
				// A chunk may have several words: the last one is the newest.
				written, err := strconv.ParseInt(event.Content[strings.LastIndexByte(event.Content, ' ')+1:], 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				inGo = append(inGo, float64(now-written))
			}
		}
		delays, err := plain.Delays(question)
		if err != nil {
			b.Fatal(err)
		}
		inC = append(inC, delays...)
	}
	report(b, inGo, inC)
}

// both are two ways to one engine.
func both(b *testing.B) (*antiphon.Engine, *bare.Engine) {
	plain, err := bare.Open()
	if err != nil {
		b.Fatal(err)
	}
	engine := antiphon.Adopt(plain.Native())
	b.Cleanup(func() { _ = engine.Close() })
	return engine, plain
}

// report tells medians.
func report(b *testing.B, inGo, inC []float64) {
	slices.Sort(inGo)
	slices.Sort(inC)
	b.ReportMetric(inGo[len(inGo)/2], "go-ns/token")
	b.ReportMetric(inC[len(inC)/2], "c-ns/token")
	b.ReportMetric(inGo[len(inGo)/2]-inC[len(inC)/2], "over-ns/token")
}

// drain reads an answer: how many chunks after the first, and how long they took.
func drain(b *testing.B, engine *antiphon.Engine) (chunks int64, took time.Duration) {
	var first, last time.Time
	for event, err := range engine.Stream(context.Background(), antiphon.Request{Message: question}) {
		if err != nil {
			b.Fatal(err)
		}
		if event.Type == antiphon.EventChunk {
			last = time.Now()
			if chunks++; chunks == 1 {
				first = last
			}
		}
	}
	return chunks - 1, last.Sub(first)
}

// From the cancel of a context to the end of the loop, while the engine writes.
func BenchmarkCancel(b *testing.B) {
	engine := open(b)
	took := make([]float64, 0, b.N)
	for len(took) < b.N {
		ctx, cancel := context.WithCancel(context.Background())
		request := antiphon.Request{Message: question, Options: antiphon.Options{Cache: antiphon.CacheBypass}}
		var began time.Time
		for event, err := range engine.Stream(ctx, request) {
			if event.Type == antiphon.EventChunk && began.IsZero() {
				go func() { began = time.Now(); cancel() }()
				<-ctx.Done()
			}
			if errors.Is(err, antiphon.ErrCancelled) {
				took = append(took, float64(time.Since(began).Nanoseconds()))
			}
		}
		cancel()
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "p50-ns")
	b.ReportMetric(took[len(took)*99/100], "p99-ns")
}

// A whole message from the cache: the request, the analysis and the reply cross over.
func BenchmarkProcessFromCache(b *testing.B) {
	engine := open(b)
	for b.Loop() {
		if _, err := engine.Process(context.Background(), antiphon.Request{Message: question}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnalyze(b *testing.B) {
	engine := open(b)
	for b.Loop() {
		if _, err := engine.Analyze(context.Background(), question); err != nil {
			b.Fatal(err)
		}
	}
}
