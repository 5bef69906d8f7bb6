package antiphon

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// A setting is a key of the library's request, with its value.
type setting struct{ key, value string }

// parts is the request as the library takes it: turns, and settings by name.
func (r *Request) parts() ([]Message, []setting, error) {
	var settings []setting
	for _, text := range []setting{
		{"tenant_id", r.TenantID}, {"user_id", r.UserID}, {"conversation_id", r.ConversationID},
	} {
		if text.value != "" {
			settings = append(settings, text)
		}
	}
	if len(r.Context) > 0 {
		context, err := json.Marshal(r.Context)
		if err != nil {
			return nil, nil, newError(codeInvalidArgument, "request.Context cannot be written as JSON")
		}
		settings = append(settings, setting{"context", string(context)})
	}
	if r.Prompt != "" {
		prompt, err := quoted("request.Prompt", r.Prompt)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, setting{"prompt", prompt})
	}
	options, err := r.Options.settings()
	turns := r.History
	if len(r.Messages) > 0 {
		turns = r.Messages
	}
	return turns, append(settings, options...), err
}

func (o *Options) settings() (settings []setting, err error) {
	set := func(key, value string) { settings = append(settings, setting{key, value}) }
	number := func(key string, value *float64) {
		if value != nil {
			set(key, strconv.FormatFloat(*value, 'g', -1, 64))
		}
	}
	if o.MaxTokens != 0 {
		set("max_tokens", strconv.Itoa(o.MaxTokens))
	}
	number("temperature", o.Temperature)
	if o.TopK != nil {
		set("top_k", strconv.Itoa(*o.TopK))
	}
	number("top_p", o.TopP)
	number("min_p", o.MinP)
	number("repetition_penalty", o.RepetitionPenalty)
	number("presence_penalty", o.PresencePenalty)
	number("frequency_penalty", o.FrequencyPenalty)
	if len(o.LogitBias) > 0 {
		biases, err := json.Marshal(o.LogitBias)
		if err != nil {
			return nil, newError(codeInvalidArgument, "options.LogitBias has a value that is no number, expected -100 to 100")
		}
		set("logit_bias", string(biases))
	}
	if o.Seed != nil {
		set("seed", strconv.FormatUint(*o.Seed, 10))
	}
	if len(o.Stop) > 0 {
		stops, err := quoted("options.Stop", o.Stop...)
		if err != nil {
			return nil, err
		}
		set("stop", "["+stops+"]")
	}
	if o.Deadline != 0 {
		set("deadline_ms", strconv.FormatInt(milliseconds(o.Deadline), 10))
	}
	for _, text := range []setting{
		{"priority", string(o.Priority)}, {"cache", string(o.Cache)}, {"overflow", string(o.Overflow)}, {"model", o.Model},
	} {
		if text.value != "" {
			set(text.key, text.value)
		}
	}
	return settings, nil
}

// quoted is texts as JSON, with commas between them. Writing JSON would put another character in the place of a broken one.
func quoted(name string, texts ...string) (string, error) {
	var all []byte
	for i, text := range texts {
		if !utf8.ValidString(text) {
			return "", newError(codeInvalidText, name+" is not UTF-8")
		}
		if i > 0 {
			all = append(all, ',')
		}
		// A string can always be written.
		one, _ := json.Marshal(text)
		all = append(all, one...)
	}
	return string(all), nil
}

// milliseconds rounds away from 0, so that a short time does not become none.
func milliseconds(d time.Duration) int64 {
	whole := d.Milliseconds()
	switch rest := d % time.Millisecond; {
	case rest > 0:
		whole++
	case rest < 0:
		whole--
	}
	return whole
}
