package antiphon

import (
	"bytes"
	"encoding/json"
	"math"
	"time"
)

// MarshalJSON writes the request in the shape that every language reads.
func (r Request) MarshalJSON() ([]byte, error) {
	o := &r.Options
	wire := requestJSON{
		Message: r.Message, TenantID: r.TenantID, UserID: r.UserID, ConversationID: r.ConversationID,
		History: r.History, Messages: r.Messages, Prompt: r.Prompt, Context: r.Context,
		Options: optionsJSON{
			MaxTokens: o.MaxTokens, Temperature: o.Temperature, TopK: o.TopK, TopP: o.TopP, MinP: o.MinP,
			RepetitionPenalty: o.RepetitionPenalty, PresencePenalty: o.PresencePenalty,
			FrequencyPenalty: o.FrequencyPenalty, LogitBias: o.LogitBias, Seed: o.Seed, Stop: o.Stop,
			DeadlineMS: milliseconds(o.Deadline), Priority: o.Priority, Cache: o.Cache, Overflow: o.Overflow, Model: o.Model,
		},
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads that shape. A key that it does not have is an error that names it.
func (r *Request) UnmarshalJSON(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var wire requestJSON
	if err := decoder.Decode(&wire); err != nil {
		return err
	}
	*r = wire.request()
	return nil
}

type requestJSON struct {
	Message        string         `json:"message,omitempty"`
	TenantID       string         `json:"tenant_id,omitempty"`
	UserID         string         `json:"user_id,omitempty"`
	ConversationID string         `json:"conversation_id,omitempty"`
	History        []Message      `json:"history,omitempty"`
	Messages       []Message      `json:"messages,omitempty"`
	Prompt         string         `json:"prompt,omitempty"`
	Context        map[string]any `json:"context,omitempty"`
	Options        optionsJSON    `json:"options,omitzero"`
}

type optionsJSON struct {
	MaxTokens         int             `json:"max_tokens,omitempty"`
	Temperature       *float64        `json:"temperature,omitempty"`
	TopK              *int            `json:"top_k,omitempty"`
	TopP              *float64        `json:"top_p,omitempty"`
	MinP              *float64        `json:"min_p,omitempty"`
	RepetitionPenalty *float64        `json:"repetition_penalty,omitempty"`
	PresencePenalty   *float64        `json:"presence_penalty,omitempty"`
	FrequencyPenalty  *float64        `json:"frequency_penalty,omitempty"`
	LogitBias         map[int]float64 `json:"logit_bias,omitempty"`
	Seed              *uint64         `json:"seed,omitempty"`
	Stop              []string        `json:"stop,omitempty"`
	DeadlineMS        int64           `json:"deadline_ms,omitempty"`
	Priority          Priority        `json:"priority,omitempty"`
	Cache             CacheMode       `json:"cache,omitempty"`
	Overflow          Overflow        `json:"overflow,omitempty"`
	Model             string          `json:"model,omitempty"`
}

// duration is so many milliseconds, or as many as there can be.
func duration(milliseconds int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Millisecond)
	return time.Duration(max(-most, min(milliseconds, most))) * time.Millisecond
}

func (wire *requestJSON) request() Request {
	o := &wire.Options
	return Request{
		Message: wire.Message, TenantID: wire.TenantID, UserID: wire.UserID, ConversationID: wire.ConversationID,
		History: wire.History, Messages: wire.Messages, Prompt: wire.Prompt, Context: wire.Context,
		Options: Options{
			MaxTokens: o.MaxTokens, Temperature: o.Temperature, TopK: o.TopK, TopP: o.TopP, MinP: o.MinP,
			RepetitionPenalty: o.RepetitionPenalty, PresencePenalty: o.PresencePenalty,
			FrequencyPenalty: o.FrequencyPenalty, LogitBias: o.LogitBias, Seed: o.Seed, Stop: o.Stop,
			Deadline: duration(o.DeadlineMS),
			Priority: o.Priority, Cache: o.Cache, Overflow: o.Overflow, Model: o.Model,
		},
	}
}
