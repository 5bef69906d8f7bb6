package antiphon

import (
	"encoding/json"
	"maps"
	"strings"
	"time"
)

// Option sets something of an engine that is opened.
type Option func(*settings)

// settings is what all options said.
type settings struct {
	config  map[string]any
	plugins plugins
	err     error
}

// plugins is what the host puts in.
type plugins struct {
	tier       SharedTier
	generators []Generator
	stages     []Stage
	observers  []Observer
}

// WithConfig sets keys of the configuration from a JSON object, such as {"batcher": {"max_queue": 1000}}. An unknown key is
// an error of Open.
func WithConfig(object string) Option {
	return func(s *settings) {
		decoder := json.NewDecoder(strings.NewReader(object))
		// As they are written: not every number is one of Go's floats.
		decoder.UseNumber()
		var keys map[string]any
		if err := decoder.Decode(&keys); err != nil || decoder.More() {
			s.err = newError(codeInvalidConfig, "WithConfig: not a JSON object, expected one")
			return
		}
		merge(s.config, keys)
	}
}

// WithModelsDir sets where relative paths of models begin. Default: the working directory.
func WithModelsDir(path string) Option { return with("models_dir", path) }

// WithAnalyst sets the encoder that understands messages: "bundled", or a directory. Default: the bundled one.
func WithAnalyst(source string) Option { return with("analyst", source) }

// WithResponder sets the decoder that answers: "bundled", a directory, or a .gguf file; "" is none, and answers come from
// templates or from the first Generator. Default: the bundled one.
func WithResponder(source string) Option {
	if source == "" {
		return with("responder", nil)
	}
	return with("responder", source)
}

// WithNamedResponder adds a responder by the name that Options.Model takes.
func WithNamedResponder(name, source string) Option {
	return with("responders", map[string]any{name: source})
}

// WithThreads sets how many threads compute, 1 to 256. Default: the CPU quota of the process.
func WithThreads(count int) Option { return with("threads", count) }

// WithMemoryLimit sets a ceiling for weights, key/value rows, scratch, cache and waiting requests together. Default: none.
func WithMemoryLimit(bytes int64) Option { return with("memory_limit_bytes", bytes) }

// WithContextTokens sets the longest prompt and answer together. Default: the model's.
func WithContextTokens(tokens int) Option { return with("context_tokens", tokens) }

// WithCache bounds the response cache; 0 bytes switch it off. Default: 50 MiB, an hour.
func WithCache(maxBytes int64, timeToLive time.Duration) Option {
	return with("cache", map[string]any{"max_bytes": maxBytes, "ttl_seconds": int64(timeToLive / time.Second)})
}

// WithConcurrency sets how many requests run at once, and how many may wait. Default: 5 and 256.
func WithConcurrency(running, waiting int) Option {
	return with("batcher", map[string]any{"max_concurrent": running, "max_queue": waiting})
}

// WithTimeout sets the deadline of a request that has none. Default: 30 seconds.
func WithTimeout(timeout time.Duration) Option {
	return with("batcher", map[string]any{"timeout_ms": milliseconds(timeout)})
}

// WithQuota allows each tenant and user so many requests in a sliding window. Default: any number.
func WithQuota(requests int, window time.Duration) Option {
	return with("quota", map[string]any{"requests": requests, "window_ms": milliseconds(window)})
}

// WithSharedTier sets a cache tier that engines share.
func WithSharedTier(tier SharedTier) Option {
	return func(s *settings) { s.plugins.tier = tier }
}

// WithGenerator adds a model of the host's own. The first one answers where there is no responder.
func WithGenerator(generator Generator) Option {
	return func(s *settings) { s.plugins.generators = append(s.plugins.generators, generator) }
}

// WithStage adds someone who looks at requests and answers. Requests meet stages in the order in which they were added, answers
// in the opposite one.
func WithStage(stage Stage) Option {
	return func(s *settings) { s.plugins.stages = append(s.plugins.stages, stage) }
}

// WithObserver adds someone who is told what happens.
func WithObserver(observer Observer) Option {
	return func(s *settings) { s.plugins.observers = append(s.plugins.observers, observer) }
}

func with(key string, value any) Option {
	return func(s *settings) { merge(s.config, map[string]any{key: value}) }
}

// merge puts keys into a configuration; of an object that both have, each key.
func merge(config, keys map[string]any) {
	for key, value := range keys {
		inner, both := value.(map[string]any)
		if outer, ok := config[key].(map[string]any); ok && both {
			merge(outer, inner)
		} else if both {
			config[key] = maps.Clone(inner)
		} else {
			config[key] = value
		}
	}
}
