package antiphon

import (
	"context"
	"io"
	"time"
)

// SharedTier is a cache tier that engines share: a store of bytes by key, in another process or machine. The engine asks it for
// an answer that its own cache does not have, and gives it every answer that it keeps. It trusts nothing that comes back: a
// value has its whole key and a checksum, and what does not fit is a miss.
//
// A few goroutines call it at once. A request waits for Get at most 20 ms, then it is computed; after some failures in a row
// the tier is left alone for a second at most. A panic is a failure.
type SharedTier interface {
	// Get is the value of a key; nil if there is none.
	Get(key []byte) ([]byte, error)
	// Put keeps a value for about that time, in place of an older one.
	Put(key, value []byte, timeToLive time.Duration) error
	// Remove forgets a key; one that is not there is no error.
	Remove(key []byte) error
}

// Generator is a model of the host's own: one behind a network, for instance. The engine analyses, queues, caches and streams
// around it. As many goroutines call it at once as requests run; it may block.
//
// Where it fails or panics before the first piece, the answer comes from the cache or from a template (Generation.Degraded), else
// it is ErrBackendUnavailable; after that the request ends with ErrPluginFailed. After some failures in a row the generator is
// left alone for a while.
type Generator interface {
	// Name is what Options.Model calls it: of a-z, 0-9, '.', '_', '-', at most 64, with a letter or digit first. Cached answers
	// belong to the name: one that answers in another way than before should have another.
	Name() string
	// Generate writes the answer to the request's message in pieces as they come. Its history are the turns before. Of the
	// options those that shape text are its to heed; stop texts, the deadline and the cache are looked after. A write fails
	// when nobody wants any more, and the context ends then at the latest; it ends at the request's deadline, too, when
	// the engine is closed, and when Generate returns.
	Generate(ctx context.Context, request *Request, answer io.Writer) error
}

// Stage looks at every request before it is answered, and at every answer before it is told: moderation, redaction,
// enrichment. Analyses, embeddings and extracts are no answers. It is on the safe side: a failure or a panic ends the request
// with ErrPluginFailed, and nothing of the answer is told.
//
// Answers are held back until all stages have seen them. One that looks at requests alone has a method HoldsBack() bool that
// says false; answers are told as they come, then, and After is not called.
type Stage interface {
	// Before may change the request, and refuses it with an error. It is called while the call that asks waits; if it panics,
	// that call does.
	Before(request *Request) error
	// After gives the text that takes the answer's place; "" is the answer as it is. An error keeps the answer from being told.
	// It is called by as many goroutines at once as requests run. It may block, but must not ask the engine for an answer.
	After(reply *Reply) (string, error)
}

// Observer is told what happens in an engine. No text of a user is in it. It is called where it happens, the computing thread
// included: it must not block, and not call the engine. One that panics is not called again.
type Observer interface {
	// Log gets a line for a log; target says from where.
	Log(level Level, target, message string)
	// Event gets something that happened, with its numbers as a JSON object.
	Event(name string, fields []byte)
}

// Level is how much a line of a log matters.
type Level int

const (
	// LevelError: somebody should look.
	LevelError Level = iota + 1
	// LevelWarn: it works, but not as it should.
	LevelWarn
	// LevelInfo: good to know.
	LevelInfo
	// LevelDebug: for whoever looks for something.
	LevelDebug
)
