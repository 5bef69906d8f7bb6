// Package bare reads answers with nothing but the C library: what the benchmarks compare this binding with.
package bare

/*
#cgo !antiphon_pkgconfig,!antiphon_static LDFLAGS: -lantiphon
#cgo antiphon_pkgconfig pkg-config: antiphon
#cgo antiphon_static,linux LDFLAGS: -l:libantiphon.a -lm -ldl -lpthread
#cgo antiphon_static,!linux LDFLAGS: -lantiphon -lm -lpthread

#include <antiphon.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// Opens an answer of the library's own responder, or of another model.
static int32_t begin(const antiphon_engine *engine, const char *text, const char *cache, const char *model,
                     antiphon_stream **stream) {
  antiphon_request *request = NULL;
  int32_t status = antiphon_request_new(text, strlen(text), &request, NULL);
  if (status == ANTIPHON_OK) status = antiphon_request_set(request, "cache", cache, strlen(cache), NULL);
  if (status == ANTIPHON_OK && *model) status = antiphon_request_set(request, "model", model, strlen(model), NULL);
  if (status == ANTIPHON_OK) status = antiphon_stream_open(engine, request, stream, NULL);
  antiphon_request_free(request);
  return status;
}

// Reads an answer, and says how many chunks it had and how long it took from the first one to the last.
static int32_t drain(const antiphon_engine *engine, const char *text, int64_t *chunks, int64_t *nanoseconds) {
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  int64_t first = 0, last = 0;
  int32_t status = begin(engine, text, "use", "", &stream);
  *chunks = 0;
  while (status == ANTIPHON_OK && (status = antiphon_stream_next(stream, -1, &event, NULL)) == ANTIPHON_OK)
    if (event.kind == ANTIPHON_EVENT_CHUNK) {
      last = now();
      if ((*chunks)++ == 0) first = last;
    }
  *nanoseconds = last - first;
  antiphon_stream_free(stream);
  return status;
}

// A model that computes for a tenth of a millisecond, and then says what time it is.
static int32_t tell_time(void *user_data, const antiphon_request *request, antiphon_sink *sink) {
  for (int i = 0; i < 200; i++) {
    for (int64_t until = now() + 100000; now() < until;) {
    }
    char text[32];
    int length = snprintf(text, sizeof text, " %lld", (long long)now());
    if (antiphon_sink_write(sink, text, (size_t)length) != ANTIPHON_CONTINUE) return -1;
  }
  return 0;
}

static antiphon_plugins *clock_plugins(void) {
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "clock", .generate = tell_time};
  antiphon_plugins_add_generator(plugins, &generator, NULL);
  return plugins;
}

// Reads what the clock says, and how long ago that was each time.
static int32_t delays(const antiphon_engine *engine, const char *text, int64_t *delays, size_t capacity, size_t *count) {
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  int32_t status = begin(engine, text, "bypass", "clock", &stream);
  *count = 0;
  while (status == ANTIPHON_OK && (status = antiphon_stream_next(stream, -1, &event, NULL)) == ANTIPHON_OK)
    if (event.kind == ANTIPHON_EVENT_CHUNK && *count < capacity) {
      // A chunk may have several words: the last one is the newest.
      const char *word = event.text.ptr + event.text.len - 1;
      while (word > event.text.ptr && word[-1] != ' ') word--;
      delays[(*count)++] = now() - atoll(word);
    }
  antiphon_stream_free(stream);
  return status;
}

static atomic_bool working;
static pthread_t worker;

static void *work(void *unused) {
  while (atomic_load(&working)) {
  }
  return unused;
}

static void start_work(void) {
  atomic_store(&working, true);
  pthread_create(&worker, NULL, work, NULL);
}

static void end_work(void) {
  atomic_store(&working, false);
  pthread_join(worker, NULL);
}
*/
import "C"

import (
	"fmt"
	"time"
	"unsafe"
)

// Engine is one of the library's, with its own models and a clock.
type Engine struct{ native *C.antiphon_engine }

// Open opens an engine.
func Open() (*Engine, error) {
	engine := new(Engine)
	if status := C.antiphon_engine_open(nil, 0, C.clock_plugins(), &engine.native, nil); status != C.ANTIPHON_OK {
		return nil, failure(status)
	}
	return engine, nil
}

// Native is the engine as the library knows it.
func (e *Engine) Native() unsafe.Pointer { return unsafe.Pointer(e.native) }

// Drain reads an answer, from the cache where it can, and says how many chunks it had and how long it took from the first one to
// the last.
func (e *Engine) Drain(text string) (chunks int64, took time.Duration, err error) {
	var count, nanoseconds C.int64_t
	if status := C.drain(e.native, terminated(text), &count, &nanoseconds); status != C.ANTIPHON_DONE {
		return 0, 0, failure(status)
	}
	return int64(count), time.Duration(nanoseconds), nil
}

// Delays reads what the clock says: how long each of its words took to come here.
func (e *Engine) Delays(text string) ([]float64, error) {
	var delays [256]C.int64_t
	var count C.size_t
	status := C.delays(e.native, terminated(text), &delays[0], C.size_t(len(delays)), &count)
	if status != C.ANTIPHON_DONE {
		return nil, failure(status)
	}
	took := make([]float64, count)
	for i := range took {
		took[i] = float64(delays[i])
	}
	return took, nil
}

// Now is what the clock would say now.
func Now() int64 { return int64(C.now()) }

// Work keeps a core busy until the function that it gives is called.
func Work() (end func()) {
	C.start_work()
	return func() { C.end_work() }
}

func terminated(text string) *C.char {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(text + "\x00")))
}

func failure(status C.int32_t) error {
	return fmt.Errorf("%s", C.GoString(C.antiphon_error_kind_name(status)))
}
