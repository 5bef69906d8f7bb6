package antiphon

import (
	"context"
	"runtime"
	"unsafe"
)

// Handles is how much the library has lent and not got back.
func Handles() int64 { return handles.Load() }

// Adopt takes over an engine of the library's.
func Adopt(native unsafe.Pointer) *Engine {
	return newEngine(newCore(native, newReader(), func() {}))
}

// KindName is what the library calls the number of an error.
var KindName = kindName

// OpenAndForget opens a stream that nobody reads or closes.
func OpenAndForget(e *Engine, request Request) error {
	stream, err := e.open(context.Background(), request)
	runtime.KeepAlive(stream)
	return err
}

// Begin opens a stream at once, where a loop opens it when it begins. next is for one goroutine.
func Begin(ctx context.Context, e *Engine, request Request) (next func() (Event, error), end func()) {
	return begun(e.open(ctx, request))
}

// BeginToSay opens a stream of a conversation at once.
func BeginToSay(ctx context.Context, c *Conversation, request Request) (next func() (Event, error), end func()) {
	return begun(c.engine.begin(ctx, request, c.say))
}

func begun(stream *stream, err error) (next func() (Event, error), end func()) {
	if err != nil {
		return func() (Event, error) { return Event{}, err }, func() {}
	}
	return func() (Event, error) {
		step, err := stream.next()
		if err != nil {
			return Event{}, err
		}
		return step.event()
	}, stream.close
}

// ContextError is the error for a context that has ended.
func ContextError(ctx context.Context) *Error { return contextError(ctx) }

// NewError is an error as it is found on this side.
var NewError = newError

// CodesFoundHere are those of errors that the library has no part in.
func CodesFoundHere() (codes []int) {
	for code := range facts {
		codes = append(codes, code)
	}
	return codes
}
