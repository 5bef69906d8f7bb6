package antiphon

import (
	"context"
	"errors"
	"runtime"
)

// Health is how an engine is.
type Health struct {
	// Status is HealthHealthy, HealthDegraded or HealthUnhealthy.
	Status HealthStatus `json:"status"`
	// Ready says whether it takes requests.
	Ready bool `json:"ready"`
	// UptimeMS is since when it is open.
	UptimeMS uint64 `json:"uptime_ms"`
	// ErrorCount counts the requests that ended with an error; cancelled ones are none.
	ErrorCount uint64 `json:"error_count"`
	// Diagnostics say what is not as it should be.
	Diagnostics []string `json:"diagnostics"`
}

// HealthStatus is how an engine is, in one word.
type HealthStatus string

const (
	// HealthHealthy: everything works.
	HealthHealthy HealthStatus = "healthy"
	// HealthDegraded: it answers, but something is missing.
	HealthDegraded HealthStatus = "degraded"
	// HealthUnhealthy: it does not answer.
	HealthUnhealthy HealthStatus = "unhealthy"
)

// Diagnosis is what a self-test found.
type Diagnosis struct {
	// Timestamp is when: RFC 3339, in UTC.
	Timestamp string `json:"timestamp"`
	// Checks say what was tried.
	Checks []Check `json:"checks"`
	// Configuration says whether the configuration makes sense on this machine.
	Configuration ConfigurationCheck `json:"configuration"`
	// ServerStatus is the engine's health.
	ServerStatus Health `json:"server_status"`
	// Recommendations say what to do.
	Recommendations []string `json:"recommendations"`
}

// Check is one thing that a self-test tried.
type Check struct {
	// Name says what.
	Name string `json:"name"`
	// Result is "success", "failed" or "timeout".
	Result string `json:"result"`
	// DurationMS is how long it took, in milliseconds.
	DurationMS float64 `json:"duration_ms"`
	// Message says what was seen.
	Message string `json:"message"`
}

// ConfigurationCheck says whether a configuration makes sense on this machine.
type ConfigurationCheck struct {
	// Valid says that there are no issues.
	Valid bool `json:"valid"`
	// Issues say what does not.
	Issues []string `json:"issues"`
}

// Model is a model of an engine.
type Model struct {
	// ModelName is that of its slot; Options.Model takes that of a responder.
	ModelName string `json:"model_name"`
	// Version is that of its manifest.
	Version string `json:"version"`
	// Status is "available", "loading" or "failed".
	Status string `json:"status"`
	// Task is "analysis", "generation", or that of a trained head.
	Task string `json:"task"`
	// PerformanceMetrics is its card: what it was trained on, what it measures, what it cannot do.
	PerformanceMetrics map[string]any `json:"performance_metrics"`
	// Config is its shape, as its files have it.
	Config any `json:"config"`
	// Fingerprint is a hash of its files.
	Fingerprint string `json:"fingerprint"`
	// Bytes is the size of its weights in memory.
	Bytes uint64 `json:"bytes"`
}

// CacheStats is what the response cache holds, and how it has served.
type CacheStats struct {
	// Hits counts answers from the cache.
	Hits uint64 `json:"hits"`
	// Misses counts requests that it had no answer for.
	Misses uint64 `json:"misses"`
	// Joined counts requests that joined an equal one under way.
	Joined uint64 `json:"joined"`
	// SharedHits counts, among the misses, answers from the shared tier.
	SharedHits uint64 `json:"shared_hits"`
	// Stored counts answers that were kept.
	Stored uint64 `json:"stored"`
	// Evicted counts answers that made room for others.
	Evicted uint64 `json:"evicted"`
	// Expired counts answers that grew too old.
	Expired uint64 `json:"expired"`
	// Entries counts the answers held now.
	Entries uint64 `json:"entries"`
	// Bytes is what they take.
	Bytes uint64 `json:"bytes"`
	// MaxBytes is the bound on that.
	MaxBytes uint64 `json:"max_bytes"`
	// HitRate is the share of hits, 0 to 1.
	HitRate float64 `json:"hit_rate"`
}

// Ready says whether the engine takes requests.
func (e *Engine) Ready() bool {
	ready, err := ask(e, func(core *core) (bool, error) { return core.ready(), nil })
	return err == nil && ready
}

// Health is how the engine is.
func (e *Engine) Health() (Health, error) { return ask(e, (*core).health) }

// Models are the models that are loaded.
func (e *Engine) Models() ([]Model, error) { return ask(e, (*core).models) }

// Metrics is what the engine counted and what it holds, as the text that Prometheus reads.
func (e *Engine) Metrics() (string, error) { return ask(e, (*core).metrics) }

// Diagnose tests every part, and says what to do about what failed. Each responder writes a few tokens.
func (e *Engine) Diagnose(ctx context.Context) (Diagnosis, error) {
	return within(ctx, e, e.core.long, (*core).diagnose)
}

// CacheStats is what the response cache holds, and how it has served.
func (e *Engine) CacheStats() (CacheStats, error) { return ask(e, (*core).cacheStats) }

// CacheClear forgets the answers of a tenant; of all where it is empty.
func (e *Engine) CacheClear(tenant string) error {
	return order(e, func(core *core) error { return core.cacheClear(tenant) })
}

// CacheResize sets the bound on the bytes of the response cache; 0 switches it off.
func (e *Engine) CacheResize(maxBytes uint64) error {
	return order(e, func(core *core) error { return core.cacheResize(maxBytes) })
}

// CacheWarm answers a request ahead of its time, at low priority, so that an equal one is a hit.
func (e *Engine) CacheWarm(ctx context.Context, request Request) error {
	contextual := bound(ctx, &request)
	_, err := within(ctx, e, e.core.long, func(core *core) (struct{}, error) {
		return struct{}{}, core.cacheWarm(&request)
	})
	if contextual && errors.Is(err, ErrDeadlineExceeded) {
		return contextError(ctx)
	}
	return err
}

// ask makes a call that does not wait.
func ask[T any](e *Engine, call func(*core) (T, error)) (T, error) {
	defer runtime.KeepAlive(e)
	if err := e.core.enter(); err != nil {
		var nothing T
		return nothing, err
	}
	defer e.core.leave()
	return call(e.core)
}

func order(e *Engine, call func(*core) error) error {
	_, err := ask(e, func(core *core) (struct{}, error) { return struct{}{}, call(core) })
	return err
}
