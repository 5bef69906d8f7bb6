package antiphon

// Reply is an answer, in the shape of the AI service that hosts already serve; [encoding/json] writes that shape.
type Reply struct {
	// Response is the answer.
	Response string `json:"response"`
	// Confidence is that of the intent; 0 for Generate, which analyses nothing.
	Confidence float64 `json:"confidence"`
	// Intent is the label of the intent; empty for Generate.
	Intent string `json:"intent"`
	// Sentiment is the label of the sentiment; empty for Generate.
	Sentiment string `json:"sentiment"`
	// Entities are the things that the message names.
	Entities []Entity `json:"entities"`
	// Metadata says how the reply came about.
	Metadata Metadata `json:"metadata"`
}

// Analysis is what the reply was made from; nil for Generate.
func (r *Reply) Analysis() *Analysis {
	metadata := &r.Metadata
	if metadata.NLPProcessing == nil || metadata.IntentAnalysis == nil || metadata.SentimentAnalysis == nil {
		return nil
	}
	return &Analysis{
		Intent:    *metadata.IntentAnalysis,
		Sentiment: *metadata.SentimentAnalysis,
		Entities:  r.Entities,
		Tokens:    metadata.NLPProcessing.Tokens,
		Truncated: metadata.NLPProcessing.Truncated,
	}
}

// FinishReason is why the answer ended.
func (r *Reply) FinishReason() FinishReason { return r.Metadata.ResponseGeneration.FinishReason }

// Metadata says how a reply came about.
type Metadata struct {
	// NLPProcessing is what the encoder read; nil for Generate.
	NLPProcessing *NLPProcessing `json:"nlp_processing"`
	// IntentAnalysis is the intent in full; nil for Generate.
	IntentAnalysis *Intent `json:"intent_analysis"`
	// SentimentAnalysis is the sentiment in full; nil for Generate.
	SentimentAnalysis *Sentiment `json:"sentiment_analysis"`
	// ResponseGeneration is the making of the answer.
	ResponseGeneration Generation `json:"response_generation"`
	// Timestamp is when the reply was made: RFC 3339, in UTC, with milliseconds.
	Timestamp string `json:"timestamp"`
}

// NLPProcessing is what the encoder read.
type NLPProcessing struct {
	// Tokens is how many.
	Tokens int `json:"tokens"`
	// Truncated says whether the end of the message was left out.
	Truncated bool `json:"truncated"`
}

// Generation is the making of an answer.
type Generation struct {
	// Model is the name of the responder.
	Model string `json:"model"`
	// FinishReason is why the answer ended.
	FinishReason FinishReason `json:"finish_reason"`
	// Usage counts tokens.
	Usage Usage `json:"usage"`
	// Cache says where the answer came from.
	Cache CacheOutcome `json:"cache"`
	// Degraded is what stood in for the responder; nil if nothing had to.
	Degraded *Degraded `json:"degraded"`
	// Timings says where the time went.
	Timings Timings `json:"timings_ms"`
	// Repro is what is needed to get the same answer again.
	Repro Repro `json:"repro"`
}

// Usage counts the tokens that were read and written.
type Usage struct {
	// PromptTokens are those of the prompt.
	PromptTokens int `json:"prompt_tokens"`
	// CompletionTokens are those of the answer.
	CompletionTokens int `json:"completion_tokens"`
	// CachedTokens are those of the prompt that were not computed again.
	CachedTokens int `json:"cached_tokens"`
	// TotalTokens are prompt and answer.
	TotalTokens int `json:"total_tokens"`
}

// Timings says where the time went, in milliseconds.
type Timings struct {
	// Queue is the waiting for admission.
	Queue float64 `json:"queue"`
	// Analysis is the encoder's pass.
	Analysis float64 `json:"analysis"`
	// Prefill is the reading of the prompt.
	Prefill float64 `json:"prefill"`
	// FirstToken is from submission to the first token.
	FirstToken float64 `json:"first_token"`
	// Decode is the writing of the answer.
	Decode float64 `json:"decode"`
	// Total is from submission to the end.
	Total float64 `json:"total"`
}

// Repro is what is needed to get the same answer again.
type Repro struct {
	// Engine is the version of the library.
	Engine string `json:"engine"`
	// Models has the fingerprint of each model that took part.
	Models map[string]string `json:"models"`
	// Seed is that of a sampled answer; else nil.
	Seed *uint64 `json:"seed"`
}

// FinishReason is why an answer ended.
type FinishReason string

const (
	// FinishStop: the model ended it, or a stop text came.
	FinishStop FinishReason = "stop"
	// FinishLength: MaxTokens or the context was reached.
	FinishLength FinishReason = "length"
	// FinishCancelled: the consumer stopped it.
	FinishCancelled FinishReason = "cancelled"
	// FinishDeadline: Options.Deadline passed while it was being written.
	FinishDeadline FinishReason = "deadline"
)

// CacheOutcome is where an answer came from.
type CacheOutcome string

const (
	// CacheMiss: it was computed for this request.
	CacheMiss CacheOutcome = "miss"
	// CacheHit: it came from the engine's cache.
	CacheHit CacheOutcome = "hit"
	// CacheJoined: it came from an equal request that was under way.
	CacheJoined CacheOutcome = "joined"
	// CacheShared: it came from the tier that engines share.
	CacheShared CacheOutcome = "shared"
)

// Degraded is what stood in for the responder.
type Degraded string

const (
	// DegradedCache: an older cached answer.
	DegradedCache Degraded = "cache"
	// DegradedTemplate: a template, filled from the analysis.
	DegradedTemplate Degraded = "template"
)
