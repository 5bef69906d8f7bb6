package antiphon

// #include "shim.h"
import "C"

import "unsafe"

// What a request is for.
type purpose int

const (
	forProcess purpose = iota
	forGenerate
)

// newRequest gives the library its own copy of a request.
func newRequest(request *Request, use purpose) (*C.antiphon_request, error) {
	if err := request.check(use); err != nil {
		return nil, err
	}
	turns, settings, err := request.parts()
	if err != nil {
		return nil, err
	}
	at, length := chars(request.Message)
	made, err := finish(C.antiphon_go_request_new(at, length), func(at unsafe.Pointer) {
		C.antiphon_request_free((*C.antiphon_request)(at))
	})
	if err != nil {
		return nil, err
	}
	native := (*C.antiphon_request)(made)
	handles.Add(1)
	for _, turn := range turns {
		role := terminated(string(turn.Role))
		at, length := chars(turn.Content)
		if err = done(C.antiphon_go_request_add_message(native, role, at, length)); err != nil {
			break
		}
	}
	if err == nil {
		err = setAll(native, settings)
	}
	if err != nil {
		freeRequest(native)
		return nil, err
	}
	return native, nil
}

func setAll(native *C.antiphon_request, settings []setting) error {
	for _, setting := range settings {
		at, length := chars(setting.value)
		if err := done(C.antiphon_go_request_set(native, terminated(setting.key), at, length)); err != nil {
			return err
		}
	}
	return nil
}

// terminated is a name as C reads it: up to a NUL.
func terminated(name string) *C.char {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(name + "\x00")))
}

func requestText(native *C.antiphon_request) []byte {
	return lent(C.antiphon_request_json(native))
}

func freeRequest(native *C.antiphon_request) {
	C.antiphon_request_free(native)
	handles.Add(-1)
}
