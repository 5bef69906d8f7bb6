package antiphon

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"time"
)

// Engine understands and answers messages, with models inside this process. Any number of goroutines may use it at once.
type Engine struct {
	core *core
	// Closes an engine that was forgotten.
	net runtime.Cleanup
}

// Open opens an engine. Without options it has the models inside of the library, which takes some milliseconds; close it when
// it is not needed any more.
func Open(options ...Option) (*Engine, error) {
	all := settings{config: make(map[string]any)}
	for _, option := range options {
		option(&all)
	}
	if all.err != nil {
		return nil, all.err
	}
	config, err := json.Marshal(all.config)
	if err != nil {
		return nil, newError(codeInvalidConfig, "the configuration cannot be written as JSON")
	}
	opened, err := openCore(string(config), &all.plugins)
	if err != nil {
		return nil, err
	}
	return newEngine(opened), nil
}

func newEngine(core *core) *Engine {
	engine := &Engine{core: core}
	engine.net = runtime.AddCleanup(engine, closeForgotten, core)
	return engine
}

func closeForgotten(left *core) { _ = left.close() }

// Close ends everything: running work and new calls end with ErrClosed. Calling it again does nothing. It must not be called
// from within a plugin.
func (e *Engine) Close() error {
	e.net.Stop()
	return e.core.close()
}

// Drain takes no new requests, waits until those under way have ended, or until the context ends, and closes the engine. After
// Close it does nothing.
func (e *Engine) Drain(ctx context.Context) error {
	timeout := uint64(forever.Milliseconds())
	if deadline, ok := ctx.Deadline(); ok {
		timeout = uint64(max(0, milliseconds(time.Until(deadline))))
	}
	_, err := within(ctx, e, nil, func(core *core) (struct{}, error) {
		return struct{}{}, core.drain(timeout)
	})
	if closed := e.Close(); err == nil || errors.Is(err, ErrClosed) {
		err = closed
	}
	return err
}

// Analyze says what a text means.
func (e *Engine) Analyze(ctx context.Context, text string) (*Analysis, error) {
	return within(ctx, e, e.core.short, func(core *core) (*Analysis, error) { return core.analyze(text) })
}

// AnalyzeBatch says what many texts mean, in as few passes as they fit in. One bad text fails the call, which names its index.
func (e *Engine) AnalyzeBatch(ctx context.Context, texts []string) ([]*Analysis, error) {
	return within(ctx, e, e.core.short, func(core *core) ([]*Analysis, error) { return core.analyzeBatch(texts) })
}

// Embed is the vector of a text: of unit length; near in meaning is near in angle.
func (e *Engine) Embed(ctx context.Context, text string) ([]float32, error) {
	return within(ctx, e, e.core.short, func(core *core) ([]float32, error) { return core.embed(text) })
}

// Generate continues the turns of a request, without analysis. When the context is cancelled it returns at once; the engine
// then finishes the answer for nobody, its deadline being the request's.
func (e *Engine) Generate(ctx context.Context, request Request) (*Reply, error) {
	contextual := bound(ctx, &request)
	reply, err := within(ctx, e, e.core.long, func(core *core) (*Reply, error) { return core.generate(&request) })
	// The engine may look at the clock before the context does.
	late := err == nil && reply.FinishReason() == FinishDeadline || errors.Is(err, ErrDeadlineExceeded)
	if contextual && late {
		return nil, contextError(ctx)
	}
	return reply, err
}

// SummaryOptions say how long a summary is, and how it comes about. The zero value is three sentences.
type SummaryOptions struct {
	// Sentences is how many. Default: 3, where no Share is given.
	Sentences int
	// Share is the part of the text's sentences that the summary has, above 0 to 1, in place of Sentences.
	Share float64
	// Method is whose words it is made of. Default: SummaryAuto.
	Method SummaryMethod
}

// SummaryMethod is whose words a summary is made of.
type SummaryMethod string

const (
	// SummaryAuto is SummaryAbstractive where the responder is an instruct model of the host's own, else SummaryExtractive.
	SummaryAuto SummaryMethod = "auto"
	// SummaryExtractive takes the text's most telling sentences, in their order.
	SummaryExtractive SummaryMethod = "extractive"
	// SummaryAbstractive has the responder write it.
	SummaryAbstractive SummaryMethod = "abstractive"
)

// Summarize is a summary of a text or a dialogue of any length.
func (e *Engine) Summarize(ctx context.Context, text string, options SummaryOptions) (string, error) {
	keys := make(map[string]any)
	if options.Sentences != 0 {
		keys["sentences"] = options.Sentences
	}
	if options.Share != 0 {
		keys["share"] = options.Share
	}
	if options.Method != "" {
		keys["method"] = options.Method
	}
	written, err := json.Marshal(keys)
	if err != nil {
		return "", newError(codeInvalidArgument, "options.Share is no number, expected one above 0 to 1")
	}
	return within(ctx, e, e.core.long, func(core *core) (string, error) { return core.summarize(text, string(written)) })
}

// within makes a call that waits inside of the library. A place says how many do so at once; who has none waits for one without
// a thread, and who does not want to wait any longer leaves, while the call ends by itself.
func within[T any](ctx context.Context, e *Engine, places chan struct{}, call func(*core) (T, error)) (T, error) {
	var nothing T
	defer runtime.KeepAlive(e)
	if ctx.Err() != nil {
		return nothing, contextError(ctx)
	}
	core := e.core
	if err := core.enter(); err != nil {
		return nothing, err
	}
	if err := take(ctx, places); err != nil {
		core.leave()
		return nothing, err
	}
	leave := func() {
		give(places)
		core.leave()
	}
	if ctx.Done() == nil {
		defer leave()
		return call(core)
	}
	var (
		value T
		err   error
	)
	ended := isolate(func() {
		defer leave()
		value, err = call(core)
	})
	select {
	case thrown := <-ended:
		if thrown != nil {
			thrown.resume()
		}
		if err != nil && ctx.Err() != nil {
			return nothing, contextError(ctx)
		}
		return value, err
	case <-ctx.Done():
		return nothing, contextError(ctx)
	}
}

// take takes one of the places, if they are counted.
func take(ctx context.Context, places chan struct{}) error {
	if places == nil {
		return nil
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

// give gives it back.
func give(places chan struct{}) {
	if places != nil {
		<-places
	}
}

// bound gives a request the deadline of the context, if that comes first, and says so.
func bound(ctx context.Context, request *Request) (contextual bool) {
	end, ok := ctx.Deadline()
	if !ok {
		return false
	}
	left, own := max(time.Until(end), time.Millisecond), request.Options.Deadline
	if own != 0 && own <= left {
		return false
	}
	request.Options.Deadline = left
	return true
}

// forever is longer than any process lives, and fits in every clock.
const forever = 100 * 365 * 24 * time.Hour
