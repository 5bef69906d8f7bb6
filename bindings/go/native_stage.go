package antiphon

// #include "shim.h"
import "C"

import (
	"encoding/json"
	"runtime/cgo"
	"slices"
)

//export antiphonGoBefore
func antiphonGoBefore(plugin C.uintptr_t, native *C.antiphon_request) C.int32_t {
	stage := cgo.Handle(plugin).Value().(Stage)
	request, err := readRequest(native)
	if err != nil {
		return failed
	}
	before, err := readRequest(native)
	if err != nil {
		return failed
	}
	if status := guard(func() (C.int32_t, error) { return 0, stage.Before(request) }); status == failed {
		return failed
	}
	changed, err := changes(before, request)
	if err != nil || setAll(native, changed) != nil {
		return failed
	}
	return 0
}

//export antiphonGoAfter
func antiphonGoAfter(plugin C.uintptr_t, native *C.antiphon_reply, sink *C.antiphon_sink) C.int32_t {
	stage := cgo.Handle(plugin).Value().(Stage)
	reply, err := readReply(native)
	if err != nil {
		return failed
	}
	var text string
	status := guard(func() (_ C.int32_t, err error) {
		text, err = stage.After(reply)
		return 0, err
	})
	if status != failed && text != "" {
		write(sink, []byte(text))
	}
	return status
}

// changes is what a stage made another of a request.
func changes(before, after *Request) (changed []setting, err error) {
	if err := after.check(forProcess); err != nil {
		return nil, err
	}
	if before.Message != after.Message {
		message, err := quoted("request.Message", after.Message)
		if err != nil {
			return nil, err
		}
		changed = append(changed, setting{"message", message})
	}
	oldTurns, oldSettings, err := before.parts()
	if err != nil {
		return nil, err
	}
	turns, settings, err := after.parts()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(oldTurns, turns) {
		// Texts, which can always be written; "[]" is no turns.
		history, _ := json.Marshal(append([]Message{}, turns...))
		changed = append(changed, setting{"history", string(history)})
	}
	for _, setting := range settings {
		if !slices.Contains(oldSettings, setting) {
			changed = append(changed, setting)
		}
	}
	for _, gone := range oldSettings {
		if !slices.ContainsFunc(settings, func(one setting) bool { return one.key == gone.key }) {
			changed = append(changed, setting{gone.key, unset(gone.key)})
		}
	}
	return changed, nil
}

// unset is the value of a key that was taken out.
func unset(key string) string {
	switch key {
	case "tenant_id":
		return "default"
	case "user_id", "conversation_id", "model":
		return ""
	case "context", "logit_bias":
		return "{}"
	case "stop":
		return "[]"
	case "max_tokens":
		return "256"
	case "repetition_penalty":
		return "1"
	case "temperature", "presence_penalty", "frequency_penalty":
		return "0"
	case "priority":
		return string(PriorityNormal)
	case "cache":
		return string(CacheUse)
	case "overflow":
		return string(OverflowTruncateOldest)
	default:
		return "null"
	}
}
