// Package bare reads answers with nothing but the C library: what the benchmarks compare this binding with.
package bare

/*
#cgo !antiphon_pkgconfig,!antiphon_static LDFLAGS: -lantiphon
#cgo antiphon_pkgconfig pkg-config: antiphon
#cgo antiphon_static,linux LDFLAGS: -l:libantiphon.a -lm -ldl -lpthread
#cgo antiphon_static,!linux LDFLAGS: -lantiphon -lm -lpthread

#include <antiphon.h>
#include <time.h>

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// Reads an answer, and says how many chunks it had and how long it took from the first one to the last.
static int32_t drain(const antiphon_engine *engine, const char *text, size_t len, const char *cache, size_t cache_len,
                     int64_t *chunks, int64_t *nanoseconds) {
  antiphon_request *request = NULL;
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  int64_t first = 0, last = 0;
  int32_t status = antiphon_request_new(text, len, &request, NULL);
  if (status == ANTIPHON_OK) status = antiphon_request_set(request, "cache", cache, cache_len, NULL);
  if (status == ANTIPHON_OK) status = antiphon_stream_open(engine, request, &stream, NULL);
  *chunks = 0;
  while (status == ANTIPHON_OK && (status = antiphon_stream_next(stream, -1, &event, NULL)) == ANTIPHON_OK)
    if (event.kind == ANTIPHON_EVENT_CHUNK) {
      last = now();
      if ((*chunks)++ == 0) first = last;
    }
  *nanoseconds = last - first;
  antiphon_stream_free(stream);
  antiphon_request_free(request);
  return status;
}
*/
import "C"

import (
	"fmt"
	"time"
	"unsafe"
)

// Engine is one of the library's.
type Engine struct{ native *C.antiphon_engine }

// Open opens an engine with the library's own models.
func Open() (*Engine, error) {
	engine := new(Engine)
	if status := C.antiphon_engine_open(nil, 0, nil, &engine.native, nil); status != C.ANTIPHON_OK {
		return nil, failure(status)
	}
	return engine, nil
}

// Drain reads an answer in C, and says how many chunks it had and how long it took from the first one to the last.
func (e *Engine) Drain(text, cache string) (chunks int64, took time.Duration, err error) {
	var count, nanoseconds C.int64_t
	at, mode := (*C.char)(unsafe.Pointer(unsafe.StringData(text))), (*C.char)(unsafe.Pointer(unsafe.StringData(cache)))
	status := C.drain(e.native, at, C.size_t(len(text)), mode, C.size_t(len(cache)), &count, &nanoseconds)
	if status != C.ANTIPHON_DONE {
		return 0, 0, failure(status)
	}
	return int64(count), time.Duration(nanoseconds), nil
}

// Close frees the engine.
func (e *Engine) Close() { C.antiphon_engine_free(e.native) }

func failure(status C.int32_t) error {
	return fmt.Errorf("%s", C.GoString(C.antiphon_error_kind_name(status)))
}
