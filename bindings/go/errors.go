package antiphon

import (
	"context"
	"encoding/json"
	"time"
)

// Error is every failure of this package. Its message names the thing and what was expected; it never holds text of a user.
//
// [errors.Is] compares its kind with one of the sentinels (ErrOverloaded, ...); where the end of a context is the reason, the
// context's error and cause match, too.
type Error struct {
	// Code is the number of the kind, the same in every language and for ever.
	Code int
	// Kind is its name, such as "overloaded".
	Kind string
	// Type is what the services of the chat platform call it, such as "RATE_LIMIT".
	Type string
	// Severity is LOW, MEDIUM, HIGH or CRITICAL.
	Severity string
	// Message says what happened.
	Message string
	// Hint says what to do about it.
	Hint string
	// Retryable says whether the same call can succeed later.
	Retryable bool
	// RetryAfter is when to try again; 0 where that is not known.
	RetryAfter time.Duration

	causes []error
}

// Error is the message.
func (e *Error) Error() string {
	text := "antiphon: " + e.Message
	if len(e.causes) > 0 {
		text += ": " + e.causes[0].Error()
	}
	return text
}

// Is says whether target is the sentinel of the error's kind.
func (e *Error) Is(target error) bool {
	kind, ok := target.(*kindError)
	return ok && kind.code == e.Code
}

// Unwrap is what caused the error: of one that comes from a context, its cause and its error.
func (e *Error) Unwrap() []error { return e.causes }

// MarshalJSON writes the error in the shape of the "error" event, as every language has it.
func (e *Error) MarshalJSON() ([]byte, error) {
	wire := errorJSON{e.Code, e.Kind, e.Type, e.Severity, e.Message, e.Retryable, nil, e.Hint}
	if e.RetryAfter > 0 {
		after := e.RetryAfter.Milliseconds()
		wire.RetryAfterMS = &after
	}
	return json.Marshal(wire)
}

// UnmarshalJSON reads that shape.
func (e *Error) UnmarshalJSON(text []byte) error {
	var wire errorJSON
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	*e = Error{
		Code: wire.Code, Kind: wire.Kind, Type: wire.Type, Severity: wire.Severity,
		Message: wire.Message, Hint: wire.Hint, Retryable: wire.Retryable,
	}
	if wire.RetryAfterMS != nil {
		e.RetryAfter = time.Duration(*wire.RetryAfterMS) * time.Millisecond
	}
	return nil
}

type errorJSON struct {
	Code         int    `json:"code"`
	Kind         string `json:"kind"`
	Type         string `json:"type"`
	Severity     string `json:"severity"`
	Message      string `json:"message"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMS *int64 `json:"retry_after_ms"`
	Hint         string `json:"hint"`
}

// The kinds of failure, for [errors.Is].
var (
	// ErrInvalidArgument: an argument or option is out of its range.
	ErrInvalidArgument error = &kindError{codeInvalidArgument, "invalid_argument"}
	// ErrInvalidText: a text is empty, white space, or not UTF-8.
	ErrInvalidText error = &kindError{codeInvalidText, "invalid_text"}
	// ErrInputTooLong: a text is longer than the limit.
	ErrInputTooLong error = &kindError{-103, "input_too_long"}
	// ErrContextFull: the prompt does not fit the model's context.
	ErrContextFull error = &kindError{-104, "context_full"}
	// ErrUnknownModel: Options.Model names no configured model.
	ErrUnknownModel error = &kindError{-105, "unknown_model"}
	// ErrInvalidConfig: a configuration value is out of its range, or a key is unknown.
	ErrInvalidConfig error = &kindError{codeInvalidConfig, "invalid_config"}
	// ErrClosed: the engine or the conversation is closed.
	ErrClosed error = &kindError{codeClosed, "closed"}
	// ErrForked: the engine was opened in another process.
	ErrForked error = &kindError{-108, "forked"}
	// ErrQuotaExceeded: the quota of a tenant or user is used up.
	ErrQuotaExceeded error = &kindError{-109, "quota_exceeded"}
	// ErrModelNotFound: there is no such model file or directory.
	ErrModelNotFound error = &kindError{-201, "model_not_found"}
	// ErrModelInvalid: a model's files are malformed or disagree with each other.
	ErrModelInvalid error = &kindError{-202, "model_invalid"}
	// ErrIntegrityMismatch: a model's bytes are not those that its manifest lists.
	ErrIntegrityMismatch error = &kindError{-203, "integrity_mismatch"}
	// ErrUnsupportedModel: a model needs something that this build does not have.
	ErrUnsupportedModel error = &kindError{-204, "unsupported_model"}
	// ErrIO: the operating system failed a read or a thread.
	ErrIO error = &kindError{-205, "io"}
	// ErrOutOfBudget: the request or model does not fit the memory limit.
	ErrOutOfBudget error = &kindError{-206, "out_of_budget"}
	// ErrHubUnavailable: the model hub cannot be reached.
	ErrHubUnavailable error = &kindError{-207, "hub_unavailable"}
	// ErrPluginFailed: a plugin of the host failed.
	ErrPluginFailed error = &kindError{-208, "plugin_failed"}
	// ErrOverloaded: the queue is full; see RetryAfter.
	ErrOverloaded error = &kindError{-301, "overloaded"}
	// ErrDeadlineExceeded: the deadline, of the context or of the options, passed before there was an answer.
	ErrDeadlineExceeded error = &kindError{codeDeadlineExceeded, "deadline_exceeded"}
	// ErrCancelled: the context was cancelled.
	ErrCancelled error = &kindError{codeCancelled, "cancelled"}
	// ErrBackendUnavailable: nothing can answer; no responder is loaded, or its circuit is open.
	ErrBackendUnavailable error = &kindError{-305, "backend_unavailable"}
	// ErrInternal: a bug of the library.
	ErrInternal error = &kindError{codeInternal, "internal"}
)

// kindError stands for all errors of a kind.
type kindError struct {
	code int
	name string
}

func (k *kindError) Error() string { return "antiphon: " + k.name }

// newError is an error that is found on this side, with what the library says about its kind.
func newError(code int, message string) *Error {
	err := facts[code]
	err.Code, err.Message = code, message
	return &err
}

// contextError is the error for a context that has ended, or whose deadline an engine noticed first.
func contextError(ctx context.Context) *Error {
	reason, cause := ctx.Err(), context.Cause(ctx)
	if reason == nil {
		reason, cause = context.DeadlineExceeded, context.DeadlineExceeded
	}
	err := newError(codeCancelled, "the request was cancelled")
	if reason == context.DeadlineExceeded {
		err = newError(codeDeadlineExceeded, "the deadline passed")
	}
	err.causes = []error{cause}
	if cause != reason {
		err.causes = append(err.causes, reason)
	}
	return err
}

// The kinds that are found on this side; a test compares them with the library's.
const (
	codeInvalidArgument  = -101
	codeInvalidText      = -102
	codeInvalidConfig    = -106
	codeClosed           = -107
	codeDeadlineExceeded = -302
	codeCancelled        = -303
	codeInternal         = -901
)

var facts = map[int]Error{
	codeInvalidArgument: {
		Kind: "invalid_argument", Type: "VALIDATION", Severity: "LOW", Hint: "correct the argument that the message names",
	},
	codeInvalidConfig: {
		Kind: "invalid_config", Type: "VALIDATION", Severity: "HIGH", Hint: "correct the configuration key that the message names",
	},
	codeInvalidText: {Kind: "invalid_text", Type: "VALIDATION", Severity: "LOW", Hint: "send a text in UTF-8 with something in it"},
	codeClosed:      {Kind: "closed", Type: "SYSTEM", Severity: "MEDIUM", Hint: "open a new engine"},
	codeDeadlineExceeded: {
		Kind: "deadline_exceeded", Type: "API", Severity: "MEDIUM", Hint: "allow more time or lower the load", Retryable: true,
	},
	codeCancelled: {Kind: "cancelled", Type: "API", Severity: "LOW", Hint: "nothing to do: the caller asked for it"},
	codeInternal:  {Kind: "internal", Type: "UNKNOWN", Severity: "CRITICAL", Hint: "report this; the engine goes on"},
}
