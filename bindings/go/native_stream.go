package antiphon

// #include "shim.h"
import "C"

import (
	"context"
	"unsafe"
)

type nativeStream = C.antiphon_stream

// A step is what one look at a stream finds.
type step struct{ native C.antiphon_go_step }

// lease is a stream of the library with all that hangs on it. It does not know the stream that holds it: it frees what is left
// when that was collected.
type lease struct {
	core      *core
	native    *nativeStream
	waiter    *waiter
	canceller *C.antiphon_canceller
	// Keeps the context's end from reaching the engine; false where it has, or is about to.
	stop func() bool
	// Closed when it has.
	cancelled chan struct{}
}

// newLease takes a stream over, and a place in core that was entered for it; where it fails, only the stream.
func newLease(ctx context.Context, core *core, native *nativeStream) (*lease, error) {
	l := &lease{core: core, native: native, waiter: core.reader.enter()}
	if err := done(C.antiphon_go_queue_watch(core.reader.queue, native, C.uint64_t(l.waiter.id))); err != nil {
		l.release()
		return nil, err
	}
	if ctx.Done() != nil {
		canceller, cancelled := C.antiphon_stream_canceller(native), make(chan struct{})
		l.canceller, l.cancelled = canceller, cancelled
		l.stop = context.AfterFunc(ctx, func() {
			C.antiphon_canceller_cancel(canceller)
			close(cancelled)
		})
	}
	return l, nil
}

// look is a look at the stream, without waiting.
func (l *lease) look() step {
	return step{C.antiphon_go_stream_next(l.native)}
}

// wait waits until a look finds something; a cancel or the end of the context is something.
func (l *lease) wait() {
	l.core.reader.wait(l.waiter)
}

func (l *lease) cancel() {
	C.antiphon_canceller_cancel(l.canceller)
}

func (l *lease) free() {
	if l.stop != nil && !l.stop() {
		// The canceller is in use.
		<-l.cancelled
	}
	C.antiphon_canceller_free(l.canceller)
	l.release()
	l.core.leave()
}

func (l *lease) release() {
	C.antiphon_stream_free(l.native)
	l.core.reader.forget(l.waiter)
	handles.Add(-1)
}

func openStream(core *core, request *Request) (*nativeStream, error) {
	native, err := newRequest(request, forProcess)
	if err != nil {
		return nil, err
	}
	defer freeRequest(native)
	return takeStream(C.antiphon_go_stream_open(core.native, native))
}

// conversation is one of the library's.
type conversation struct{ native *C.antiphon_conversation }

func newConversation(core *core, options string) (*conversation, error) {
	at, length := chars(options)
	native, err := finish(C.antiphon_go_conversation_new(core.native, at, length), func(at unsafe.Pointer) {
		C.antiphon_conversation_free((*C.antiphon_conversation)(at))
	})
	if err != nil {
		return nil, err
	}
	handles.Add(1)
	return &conversation{(*C.antiphon_conversation)(native)}, nil
}

func (c *conversation) say(request *Request) (*nativeStream, error) {
	native, err := newRequest(request, forProcess)
	if err != nil {
		return nil, err
	}
	defer freeRequest(native)
	return takeStream(C.antiphon_go_conversation_say(c.native, native))
}

func (c *conversation) free() {
	C.antiphon_conversation_free(c.native)
	handles.Add(-1)
}

func takeStream(result C.antiphon_go_result) (*nativeStream, error) {
	native, err := finish(result, func(at unsafe.Pointer) { C.antiphon_stream_free((*nativeStream)(at)) })
	if err != nil {
		return nil, err
	}
	handles.Add(1)
	return (*nativeStream)(native), nil
}

func (s step) pending() bool { return s.native.result.status == C.ANTIPHON_PENDING }

func (s step) ended() bool { return s.native.result.status == C.ANTIPHON_DONE }

// err is the error that ended the stream, if one did.
func (s step) err() error { return done(s.native.result) }

// event is what came; before the next step.
func (s step) event() (Event, error) {
	switch s.native.kind {
	case C.ANTIPHON_EVENT_ANALYSIS:
		analysis, err := readAnalysis(s.native.analysis)
		return Event{Type: EventAnalysis, Analysis: analysis}, err
	case C.ANTIPHON_EVENT_CHUNK:
		return Event{Type: EventChunk, Content: copied(s.native.text), Index: uint64(s.native.index)}, nil
	case C.ANTIPHON_EVENT_DONE:
		reply, err := readReply(s.native.reply)
		return Event{Type: EventDone, Reply: reply}, err
	default:
		return Event{}, nil
	}
}

// isReply says whether the event is the last one.
func (s step) isReply() bool { return s.native.kind == C.ANTIPHON_EVENT_DONE }

// isLate says whether the last event is what there was when a deadline passed.
func (s step) isLate() bool {
	return copied(C.antiphon_reply_finish_reason(s.native.reply)) == string(FinishDeadline)
}

// isKnown says whether this package knows the event; a later library may have more.
func (s step) isKnown() bool {
	return s.native.kind >= C.ANTIPHON_EVENT_ANALYSIS && s.native.kind <= C.ANTIPHON_EVENT_DONE
}
