package antiphon_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"antiphon.dev/antiphon"
	"antiphon.dev/antiphon/internal/bare"
)

const question = "I want to return my order and get my money back"

// What a token costs from the engine to the loop, beside a loop in C: from the first chunk to the last, in turns. An answer from
// the cache lies ready, so nobody waits; a new one is waited for, token by token, and most of that is the engine's own work.
func BenchmarkToken(b *testing.B) {
	engine := open(b)
	plain, err := bare.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	for name, cache := range map[string]antiphon.CacheMode{"ready": antiphon.CacheUse, "waited": antiphon.CacheBypass} {
		b.Run(name, func(b *testing.B) {
			inGo, inC := make([]float64, b.N), make([]float64, b.N)
			// The first one fills the cache.
			for i := -1; i < b.N; i++ {
				goTokens, goTook := drain(b, engine, cache)
				cTokens, cTook, err := plain.Drain(question, string(cache))
				if err != nil {
					b.Fatal(err)
				}
				if i >= 0 {
					inGo[i] = float64(goTook.Nanoseconds()) / float64(goTokens)
					inC[i] = float64(cTook.Nanoseconds()) / float64(cTokens-1)
				}
			}
			slices.Sort(inGo)
			slices.Sort(inC)
			b.ReportMetric(inGo[b.N/2], "go-ns/token")
			b.ReportMetric(inC[b.N/2], "c-ns/token")
			b.ReportMetric(inGo[b.N/2]-inC[b.N/2], "over-ns/token")
		})
	}
}

// drain reads an answer: how many chunks after the first, and how long they took.
func drain(b *testing.B, engine *antiphon.Engine, cache antiphon.CacheMode) (chunks int64, took time.Duration) {
	request := antiphon.Request{Message: question, Options: antiphon.Options{Cache: cache}}
	var first, last time.Time
	for event, err := range engine.Stream(context.Background(), request) {
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
