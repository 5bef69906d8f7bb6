package antiphon

// #include "shim.h"
import "C"

import (
	"encoding/json"
	"runtime/cgo"
	"sync/atomic"
	"unsafe"
)

// handles counts what the library lent us and has not got back, for tests.
var handles atomic.Int64

// Version is the version of the linked library, such as "0.1.0".
func Version() string {
	return C.GoString(C.antiphon_version())
}

// kindName is what the library calls the number of an error.
func kindName(code int) string {
	return C.GoString(C.antiphon_error_kind_name(C.int32_t(code)))
}

// finish ends a call: what it gave, or its error. If a callback in it threw, that goes on here.
func finish(result C.antiphon_go_result, free func(unsafe.Pointer)) (unsafe.Pointer, error) {
	if result.thrown != 0 {
		if result.out != nil {
			free(result.out)
		}
		C.antiphon_error_free(result.error)
		handle := cgo.Handle(result.thrown)
		thrown := handle.Value().(*caught)
		handle.Delete()
		thrown.resume()
	}
	return result.out, takeError(result.error)
}

// done ends a call that gives nothing.
func done(result C.antiphon_go_result) error {
	_, err := finish(result, func(unsafe.Pointer) {})
	return err
}

func takeError(native *C.antiphon_error) error {
	if native == nil {
		return nil
	}
	defer C.antiphon_error_free(native)
	var err Error
	if json.Unmarshal(lent(C.antiphon_error_json(native)), &err) != nil {
		err.Code, err.Message = int(C.antiphon_error_code(native)), copied(C.antiphon_error_message(native))
	}
	return &err
}

// lent is a text as it lies in the library, for as long as that lends it.
func lent(text C.antiphon_text) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(text.ptr)), int(text.len))
}

func copied(text C.antiphon_text) string {
	return string(lent(text))
}

// chars lends a text to a call. The library copies what it keeps.
func chars(text string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text))
}

// takeString copies an owned string and frees it.
func takeString(result C.antiphon_go_result) (string, error) {
	native, err := finish(result, freeString)
	if err != nil {
		return "", err
	}
	defer freeString(native)
	return copied(C.antiphon_string_text((*C.antiphon_string)(native))), nil
}

// takeJSON reads an owned string and frees it.
func takeJSON[T any](result C.antiphon_go_result) (value T, err error) {
	native, err := finish(result, freeString)
	if err != nil {
		return value, err
	}
	defer freeString(native)
	return value, decode(lent(C.antiphon_string_text((*C.antiphon_string)(native))), &value)
}

func takeAnalysis(result C.antiphon_go_result) (*Analysis, error) {
	native, err := finish(result, freeAnalysis)
	if err != nil {
		return nil, err
	}
	defer freeAnalysis(native)
	return readAnalysis((*C.antiphon_analysis)(native))
}

func takeReply(result C.antiphon_go_result) (*Reply, error) {
	native, err := finish(result, freeReply)
	if err != nil {
		return nil, err
	}
	defer freeReply(native)
	return readReply((*C.antiphon_reply)(native))
}

func readAnalysis(native *C.antiphon_analysis) (*Analysis, error) {
	analysis := new(Analysis)
	if err := decode(lent(C.antiphon_analysis_json(native)), analysis); err != nil {
		return nil, err
	}
	readSpans(native, analysis.Entities)
	return analysis, nil
}

func readReply(native *C.antiphon_reply) (*Reply, error) {
	reply := new(Reply)
	if err := decode(lent(C.antiphon_reply_json(native)), reply); err != nil {
		return nil, err
	}
	if len(reply.Entities) > 0 {
		readSpans(C.antiphon_reply_analysis(native), reply.Entities)
	}
	return reply, nil
}

// readSpans puts in the places in bytes; JSON only has them in code points.
func readSpans(native *C.antiphon_analysis, entities []Entity) {
	if len(entities) == 0 {
		return
	}
	spans := make([]C.size_t, 2*len(entities))
	C.antiphon_go_spans(native, &spans[0], C.size_t(len(entities)))
	for i := range entities {
		entities[i].Start, entities[i].End = int(spans[2*i]), int(spans[2*i+1])
	}
}

func decode(text []byte, value any) error {
	if err := json.Unmarshal(text, value); err != nil {
		// What was read may be a user's: of the error only its place is told.
		return newError(codeInternal, "the library wrote JSON of another shape than this package expects")
	}
	return nil
}

func freeString(at unsafe.Pointer)   { C.antiphon_string_free((*C.antiphon_string)(at)) }
func freeAnalysis(at unsafe.Pointer) { C.antiphon_analysis_free((*C.antiphon_analysis)(at)) }
func freeReply(at unsafe.Pointer)    { C.antiphon_reply_free((*C.antiphon_reply)(at)) }
