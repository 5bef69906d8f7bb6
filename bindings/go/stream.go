package antiphon

import (
	"context"
	"errors"
	"iter"
	"runtime"
)

// Stream understands and answers a message, as it comes: an analysis, chunks, and done, or an error that ends it. Leaving the
// loop early cancels the work. When the context ends, the next step is its error, and the last.
func (e *Engine) Stream(ctx context.Context, request Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		stream, err := e.open(ctx, request)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer stream.close()
		stream.each(yield)
	}
}

// Process understands and answers a message.
func (e *Engine) Process(ctx context.Context, request Request) (*Reply, error) {
	stream, err := e.open(ctx, request)
	if err != nil {
		return nil, err
	}
	defer stream.close()
	for {
		step, err := stream.next()
		if err != nil {
			return nil, err
		}
		if step.isReply() {
			event, err := step.event()
			return event.Reply, err
		}
	}
}

// stream is an answer as it comes, of one goroutine.
type stream struct {
	*lease
	// An engine that nobody else holds is not collected meanwhile.
	engine *Engine
	ctx    context.Context
	// Whether the deadline that the library knows is the context's.
	contextual bool
	net        runtime.Cleanup
}

func (e *Engine) open(ctx context.Context, request Request) (*stream, error) {
	return e.begin(ctx, request, func(request *Request) (*nativeStream, error) {
		if err := take(ctx, e.core.opening); err != nil {
			return nil, err
		}
		defer give(e.core.opening)
		return openStream(e.core, request)
	})
}

// begin opens a stream, in one of the ways to do so.
func (e *Engine) begin(
	ctx context.Context, request Request, open func(*Request) (*nativeStream, error),
) (*stream, error) {
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	if err := e.core.enter(); err != nil {
		return nil, err
	}
	s := &stream{engine: e, ctx: ctx, contextual: bound(ctx, &request)}
	// Also where a stage panics.
	defer func() {
		if s.lease == nil {
			e.core.leave()
		}
	}()
	native, err := open(&request)
	if err != nil {
		return nil, err
	}
	if s.lease, err = newLease(ctx, e.core, native); err != nil {
		return nil, err
	}
	s.net = runtime.AddCleanup(s, (*lease).free, s.lease)
	return s, nil
}

// each yields event after event, to the last one or to an error.
func (s *stream) each(yield func(Event, error) bool) {
	for {
		step, err := s.next()
		var event Event
		if err == nil {
			event, err = step.event()
		}
		if !yield(event, err) || err != nil || step.isReply() {
			return
		}
	}
}

// next waits for the next event, or for the error that ends the stream.
func (s *stream) next() (step, error) {
	for {
		if s.ctx.Err() != nil {
			// The engine has heard of it or is about to; from here on it is certain.
			s.cancel()
			return step{}, contextError(s.ctx)
		}
		step := s.look()
		switch err := step.err(); {
		case step.pending():
			s.wait()
		case err != nil && (s.ctx.Err() != nil || s.contextual && errors.Is(err, ErrDeadlineExceeded)):
			return step, contextError(s.ctx)
		case err != nil:
			return step, err
		case s.contextual && step.isReply() && step.isLate():
			// The engine looked at the clock before the context did.
			return step, contextError(s.ctx)
		case step.ended():
			return step, newError(codeInternal, "the stream ended without a reply")
		case step.isKnown():
			return step, nil
		}
	}
}

// close ends what still runs.
func (s *stream) close() {
	s.net.Stop()
	s.free()
}
