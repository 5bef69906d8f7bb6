package antiphon

// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// core is an engine of the library, and what it shares with its streams. It is freed when the last of those who use it has
// left: the Engine itself, running calls, streams, and conversations.
type core struct {
	native *C.antiphon_engine
	reader *reader
	users  atomic.Int64
	closed atomic.Bool
	// Ends the contexts of the host's generators.
	stop context.CancelFunc
	// Places for calls that keep a thread each: short ones, long ones, and the opening of streams. The last two are not counted
	// where a stage looks at requests meanwhile, which may itself ask for answers.
	short, long, opening chan struct{}
}

func openCore(config string, plugins *plugins) (*core, error) {
	if version := uint32(C.antiphon_abi_version()); version != C.ANTIPHON_ABI_VERSION {
		return nil, newError(codeInternal, fmt.Sprintf(
			"the library has version %d of its interface, this program was built with %d", version, uint32(C.ANTIPHON_ABI_VERSION)))
	}
	reader := newReader()
	working, stop := context.WithCancel(context.Background())
	native, err := nativePlugins(working, plugins)
	if err != nil {
		stop()
		reader.close()
		return nil, err
	}
	text, length := chars(config)
	engine, err := finish(C.antiphon_go_engine_open(text, length, native), func(at unsafe.Pointer) {
		C.antiphon_engine_free((*C.antiphon_engine)(at))
	})
	if err != nil {
		stop()
		reader.close()
		return nil, err
	}
	c := newCore(engine, reader, stop)
	if len(plugins.stages) > 0 {
		c.long, c.opening = nil, nil
	}
	return c, nil
}

func newCore(native unsafe.Pointer, reader *reader, stop context.CancelFunc) *core {
	handles.Add(1)
	c := &core{
		native:  (*C.antiphon_engine)(native),
		reader:  reader,
		stop:    stop,
		short:   make(chan struct{}, shortCalls),
		long:    make(chan struct{}, longCalls),
		opening: make(chan struct{}, openCalls),
	}
	c.users.Store(1)
	return c
}

// enter keeps the engine from being freed until leave; it fails when the engine is closed.
func (c *core) enter() error {
	for {
		users := c.users.Load()
		if users == 0 || c.closed.Load() {
			return newError(codeClosed, "the engine is closed")
		}
		if c.users.CompareAndSwap(users, users+1) {
			return nil
		}
	}
}

func (c *core) leave() {
	if c.users.Add(-1) == 0 {
		C.antiphon_engine_free(c.native)
		c.reader.close()
		handles.Add(-1)
	}
}

// close ends everything that runs, once.
func (c *core) close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	defer c.leave()
	defer c.stop()
	return done(C.antiphon_go_engine_close(c.native))
}

func (c *core) drain(timeoutMS uint64) error {
	return done(C.antiphon_go_engine_drain(c.native, C.uint64_t(timeoutMS)))
}

func (c *core) analyze(text string) (*Analysis, error) {
	at, length := chars(text)
	return takeAnalysis(C.antiphon_go_analyze(c.native, at, length))
}

func (c *core) analyzeBatch(texts []string) ([]*Analysis, error) {
	if len(texts) == 0 {
		return []*Analysis{}, nil
	}
	// The list points to texts of Go's: they stay where they are while the library reads it.
	var pinned runtime.Pinner
	defer pinned.Unpin()
	list := make([]C.antiphon_text, len(texts))
	for i, text := range texts {
		list[i].ptr, list[i].len = chars(text)
		if text != "" {
			pinned.Pin(list[i].ptr)
		}
	}
	natives := make([]*C.antiphon_analysis, len(texts))
	defer func() {
		for _, native := range natives {
			C.antiphon_analysis_free(native)
		}
	}()
	if err := done(C.antiphon_go_analyze_batch(c.native, &list[0], C.size_t(len(list)), &natives[0])); err != nil {
		return nil, err
	}
	analyses := make([]*Analysis, len(texts))
	for i, native := range natives {
		analysis, err := readAnalysis(native)
		if err != nil {
			return nil, err
		}
		analyses[i] = analysis
	}
	return analyses, nil
}

func (c *core) summarize(text, options string) (string, error) {
	at, length := chars(text)
	optionsAt, optionsLength := chars(options)
	return takeString(C.antiphon_go_summarize(c.native, at, length, optionsAt, optionsLength))
}

func (c *core) embed(text string) ([]float32, error) {
	at, length := chars(text)
	vector := make([]float32, 1024)
	for {
		var dimension C.size_t
		err := done(C.antiphon_go_embed(c.native, at, length, (*C.float)(&vector[0]), C.size_t(len(vector)), &dimension))
		if size := int(dimension); err == nil {
			return vector[:size:size], nil
		} else if size <= len(vector) {
			return nil, err
		}
		vector = make([]float32, int(dimension))
	}
}

func (c *core) generate(request *Request) (*Reply, error) {
	native, err := newRequest(request, forGenerate)
	if err != nil {
		return nil, err
	}
	defer freeRequest(native)
	return takeReply(C.antiphon_go_generate(c.native, native))
}

func (c *core) ready() bool { return bool(C.antiphon_engine_ready(c.native)) }

func (c *core) health() (Health, error) { return takeJSON[Health](C.antiphon_go_health(c.native)) }

func (c *core) diagnose() (Diagnosis, error) {
	return takeJSON[Diagnosis](C.antiphon_go_diagnose(c.native))
}

func (c *core) models() ([]Model, error) { return takeJSON[[]Model](C.antiphon_go_models(c.native)) }

func (c *core) metrics() (string, error) { return takeString(C.antiphon_go_metrics(c.native)) }

func (c *core) cacheStats() (CacheStats, error) {
	return takeJSON[CacheStats](C.antiphon_go_cache_stats(c.native))
}

func (c *core) cacheClear(tenant string) error {
	at, length := chars(tenant)
	if tenant == "" {
		at = nil
	}
	return done(C.antiphon_go_cache_clear(c.native, at, length))
}

func (c *core) cacheResize(maxBytes uint64) error {
	return done(C.antiphon_go_cache_resize(c.native, C.uint64_t(maxBytes)))
}

func (c *core) cacheWarm(request *Request) error {
	native, err := newRequest(request, forProcess)
	if err != nil {
		return err
	}
	defer freeRequest(native)
	return done(C.antiphon_go_cache_warm(c.native, native))
}

// How many goroutines are in the library at once, of those that wait in it.
const (
	shortCalls = 8
	longCalls  = 8
	openCalls  = 16
)
