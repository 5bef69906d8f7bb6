package antiphon

import (
	"slices"
	"time"
)

// Request is what is asked. All its texts are a user's: none ever becomes a control token.
type Request struct {
	// Message is what the user says.
	Message string
	// TenantID is whose request it is; answers are never shared between tenants. Default: "default".
	TenantID string
	// UserID is the user, for quotas.
	UserID string
	// ConversationID is for the host's own bookkeeping.
	ConversationID string
	// History has the turns before the message, oldest first.
	History []Message
	// Messages has the turns to continue, for Generate alone, in place of History and Message.
	Messages []Message
	// Prompt is text to continue as it stands, for Generate alone, in place of all turns.
	Prompt string
	// Context is at most 4 KiB of JSON. The responder is told its "previous_intent".
	Context map[string]any
	// Options say how to answer.
	Options Options
}

// Message is one turn of a conversation.
type Message struct {
	// Role is who speaks.
	Role Role `json:"role"`
	// Content is what is said.
	Content string `json:"content"`
}

// Options say how to answer. The zero value has every default.
type Options struct {
	// MaxTokens is the longest answer. Default: 256.
	MaxTokens int
	// Temperature is from 0, greedy, to 2. Default: 0.
	Temperature *float64
	// TopK keeps the likeliest tokens, at least 1. Default: all.
	TopK *int
	// TopP keeps the likeliest tokens up to that probability, above 0 to 1. Default: all.
	TopP *float64
	// MinP keeps the tokens that are at least so likely beside the likeliest, 0 to 1. Default: all.
	MinP *float64
	// RepetitionPenalty divides the logits of tokens that occurred, above 0 to 10. Default: 1, off.
	RepetitionPenalty *float64
	// PresencePenalty is subtracted once from tokens that occurred in the answer, -2 to 2. Default: 0.
	PresencePenalty *float64
	// FrequencyPenalty is subtracted for each time a token occurred in the answer, -2 to 2. Default: 0.
	FrequencyPenalty *float64
	// LogitBias is added to the logits of tokens by id, -100 to 100. Default: none.
	LogitBias map[int]float64
	// Seed makes a sampled answer repeatable. Default: drawn, and reported in Repro.
	Seed *uint64
	// Stop has texts that end the answer and are not part of it; at most 16. Default: none.
	Stop []string
	// Deadline is the time for queue, prompt and answer together. When it passes within an answer, the reply has what there
	// was. The deadline of a context counts, too, and is an error. Default: the engine's.
	Deadline time.Duration
	// Priority is who goes first when requests wait. Default: PriorityNormal.
	Priority Priority
	// Cache says whether a cached answer may serve. Default: CacheUse.
	Cache CacheMode
	// Overflow is what happens to a history that does not fit. Default: OverflowTruncateOldest.
	Overflow Overflow
	// Model is a name from Models, never a path. Default: the engine's responder.
	Model string
}

// Ptr is a pointer to a value, for options that can be unset.
func Ptr[T any](value T) *T { return &value }

// Role is who speaks.
type Role string

const (
	// RoleSystem gives instructions of the host.
	RoleSystem Role = "system"
	// RoleUser is the user.
	RoleUser Role = "user"
	// RoleAssistant is the answering side.
	RoleAssistant Role = "assistant"
)

// Priority is who goes first when requests wait.
type Priority string

const (
	// PriorityLow goes after all others.
	PriorityLow Priority = "low"
	// PriorityNormal goes in the order of arrival.
	PriorityNormal Priority = "normal"
	// PriorityHigh goes before all others.
	PriorityHigh Priority = "high"
)

// CacheMode says whether a cached answer may serve.
type CacheMode string

const (
	// CacheUse takes a cached answer, and keeps a new one.
	CacheUse CacheMode = "use"
	// CacheRefresh computes anew, and keeps the answer.
	CacheRefresh CacheMode = "refresh"
	// CacheBypass neither takes nor keeps one.
	CacheBypass CacheMode = "bypass"
)

// Overflow is what happens to a history that does not fit the context.
type Overflow string

const (
	// OverflowError refuses the request.
	OverflowError Overflow = "error"
	// OverflowTruncateOldest leaves out the oldest turns, never the system text.
	OverflowTruncateOldest Overflow = "truncate_oldest"
)

// check refuses what the library has no word for.
func (r *Request) check(use purpose) error {
	switch {
	case use == forProcess && (len(r.Messages) > 0 || r.Prompt != ""):
		return newError(codeInvalidArgument, "request.Messages and request.Prompt are Generate's, expected Message and History")
	case len(r.Messages) > 0 && (r.Message != "" || len(r.History) > 0):
		return newError(codeInvalidArgument, "request.Messages is set, expected no Message and no History beside it")
	case use == forGenerate && len(r.Context) > 0:
		return newError(codeInvalidArgument, "request.Context is set, expected none for Generate")
	}
	for _, turn := range append(slices.Clip(r.History), r.Messages...) {
		switch turn.Role {
		case RoleSystem, RoleUser, RoleAssistant:
		default:
			return newError(codeInvalidArgument, "role is none of these, expected one: system, user, assistant")
		}
	}
	return nil
}
