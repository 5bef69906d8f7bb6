package antiphon

// #include "shim.h"
import "C"

import (
	"context"
	"encoding/json"
	"runtime/cgo"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// nativePlugins hands the host's plugins to the library. It knows each by the number of a cgo.Handle, which lives until the
// library drops the plugin.
func nativePlugins(working context.Context, all *plugins) (*C.antiphon_plugins, error) {
	for _, generator := range all.generators {
		if strings.ContainsRune(generator.Name(), 0) {
			return nil, newError(codeInvalidConfig, "a generator's name has a NUL, expected a name of a-z, 0-9, '.', '_', '-'")
		}
	}
	native := C.antiphon_plugins_new()
	var err error
	add := func(plugin any, register func(C.uintptr_t) C.antiphon_go_result) {
		if err == nil {
			// Where this fails the library drops it, too.
			err = done(register(C.uintptr_t(cgo.NewHandle(plugin))))
			handles.Add(1)
		}
	}
	if all.tier != nil {
		add(all.tier, func(plugin C.uintptr_t) C.antiphon_go_result { return C.antiphon_go_set_shared_tier(native, plugin) })
	}
	for _, generator := range all.generators {
		add(&generating{generator, working}, func(plugin C.uintptr_t) C.antiphon_go_result {
			return C.antiphon_go_add_generator(native, terminated(generator.Name()), plugin)
		})
	}
	for _, stage := range all.stages {
		holding, ok := stage.(interface{ HoldsBack() bool })
		holdsBack := !ok || holding.HoldsBack()
		add(stage, func(plugin C.uintptr_t) C.antiphon_go_result {
			return C.antiphon_go_add_stage(native, C.bool(holdsBack), plugin)
		})
	}
	for _, observer := range all.observers {
		add(&observing{Observer: observer}, func(plugin C.uintptr_t) C.antiphon_go_result {
			return C.antiphon_go_add_observer(native, plugin)
		})
	}
	if err != nil {
		C.antiphon_plugins_free(native)
		return nil, err
	}
	return native, nil
}

// generating is a generator with the context of its engine.
type generating struct {
	Generator
	working context.Context
}

// observing is an observer until it fails.
type observing struct {
	Observer
	failed atomic.Bool
}

// guard runs code of the host and says how it ended, as the library wants to know it. If the code panicked, and a call of Go's
// is waiting on this thread, the panic goes on there.
func guard(run func() (C.int32_t, error)) C.int32_t {
	var (
		status C.int32_t
		err    error
	)
	return conclude(<-isolate(func() { status, err = run() }), &status, &err)
}

func conclude(thrown *caught, status *C.int32_t, err *error) C.int32_t {
	if thrown != nil {
		handle := cgo.NewHandle(thrown)
		if !C.antiphon_go_throw(C.uintptr_t(handle)) {
			handle.Delete()
		}
		return failed
	}
	if *err != nil {
		return failed
	}
	return *status
}

//export antiphonGoDrop
func antiphonGoDrop(plugin C.uintptr_t) {
	cgo.Handle(plugin).Delete()
	handles.Add(-1)
}

//export antiphonGoTierGet
func antiphonGoTierGet(plugin C.uintptr_t, key *C.char, keyLen C.size_t, sink *C.antiphon_sink) C.int32_t {
	tier, wanted := cgo.Handle(plugin).Value().(SharedTier), bytesOf(key, keyLen)
	var value []byte
	status := guard(func() (C.int32_t, error) {
		var err error
		if value, err = tier.Get(wanted); value == nil {
			return notThere, err
		}
		return found, err
	})
	if status == found {
		write(sink, value)
	}
	return status
}

//export antiphonGoTierPut
func antiphonGoTierPut(
	plugin C.uintptr_t, key *C.char, keyLen C.size_t, value *C.char, valueLen C.size_t, ttl C.uint64_t,
) C.int32_t {
	tier, kept, content := cgo.Handle(plugin).Value().(SharedTier), bytesOf(key, keyLen), bytesOf(value, valueLen)
	timeToLive := time.Duration(min(uint64(ttl), uint64(forever/time.Millisecond))) * time.Millisecond
	return guard(func() (C.int32_t, error) { return 0, tier.Put(kept, content, timeToLive) })
}

//export antiphonGoTierRemove
func antiphonGoTierRemove(plugin C.uintptr_t, key *C.char, keyLen C.size_t) C.int32_t {
	tier, gone := cgo.Handle(plugin).Value().(SharedTier), bytesOf(key, keyLen)
	return guard(func() (C.int32_t, error) { return 0, tier.Remove(gone) })
}

//export antiphonGoGenerate
func antiphonGoGenerate(plugin C.uintptr_t, native *C.antiphon_request, sink *C.antiphon_sink) C.int32_t {
	generator := cgo.Handle(plugin).Value().(*generating)
	request, err := readRequest(native)
	if err != nil {
		return failed
	}
	deadline := request.Options.Deadline
	if deadline == 0 {
		deadline = forever
	}
	ctx, cancel := context.WithTimeout(generator.working, deadline)
	defer cancel()
	answer := &answerWriter{cancel: cancel, pieces: make(chan []byte), wanted: make(chan bool), gone: make(chan struct{})}
	defer close(answer.gone)
	var status C.int32_t
	ended := isolate(func() { err = generator.Generate(ctx, request, answer) })
	listening := time.NewTicker(askEvery)
	defer listening.Stop()
	for {
		// The sink belongs to this thread, so what is written on the generator's goroutine comes here.
		select {
		case piece := <-answer.pieces:
			answer.wanted <- write(sink, piece)
		case <-listening.C:
			// Nothing is written, but the engine says whether anybody waits for it.
			if !write(sink, nil) {
				cancel()
			}
		case thrown := <-ended:
			return conclude(thrown, &status, &err)
		}
	}
}

//export antiphonGoLog
func antiphonGoLog(plugin C.uintptr_t, level C.int32_t, target, message C.antiphon_text) {
	from, line := copied(target), copied(message)
	observe(plugin, func(observer Observer) { observer.Log(Level(level), from, line) })
}

//export antiphonGoEvent
func antiphonGoEvent(plugin C.uintptr_t, name, fields C.antiphon_text) {
	what, numbers := copied(name), []byte(copied(fields))
	observe(plugin, func(observer Observer) { observer.Event(what, numbers) })
}

func observe(plugin C.uintptr_t, tell func(Observer)) {
	observer := cgo.Handle(plugin).Value().(*observing)
	if observer.failed.Load() {
		return
	}
	status := guard(func() (C.int32_t, error) { tell(observer.Observer); return 0, nil })
	if status == failed {
		observer.failed.Store(true)
	}
}

// readRequest is what a plugin is asked. Keys that this package does not know are not its concern.
func readRequest(native *C.antiphon_request) (*Request, error) {
	var wire requestJSON
	if err := json.Unmarshal(requestText(native), &wire); err != nil {
		return nil, err
	}
	request := wire.request()
	return &request, nil
}

// write puts bytes into a sink, and says whether more are wanted.
func write(sink *C.antiphon_sink, bytes []byte) bool {
	at := (*C.char)(unsafe.Pointer(unsafe.SliceData(bytes)))
	return C.antiphon_sink_write(sink, at, C.size_t(len(bytes))) == C.ANTIPHON_CONTINUE
}

func bytesOf(at *C.char, length C.size_t) []byte {
	return C.GoBytes(unsafe.Pointer(at), C.int(length))
}

// How a plugin's call ended.
const (
	found    = C.int32_t(0)
	notThere = C.int32_t(1)
	failed   = C.int32_t(-1)
)

// How often the engine is asked whether anybody still waits for what a silent generator will write.
const askEvery = 20 * time.Millisecond
