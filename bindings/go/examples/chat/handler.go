package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"antiphon.dev/antiphon"
)

// handler serves an engine.
func handler(engine *antiphon.Engine) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat", func(w http.ResponseWriter, r *http.Request) { chat(engine, w, r) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		health, err := engine.Health()
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if !health.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(health)
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		metrics, err := engine.Metrics()
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprint(w, metrics)
	})
	return mux
}

// chat streams an answer. The request's context ends when the client leaves, and the work with it.
func chat(engine *antiphon.Engine, w http.ResponseWriter, r *http.Request) {
	var request antiphon.Request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBytes)).Decode(&request); err != nil {
		http.Error(w, "expected a request as JSON, such as {\"message\": \"Hello\"}", http.StatusBadRequest)
		return
	}
	controller, begun := http.NewResponseController(w), false
	for event, err := range engine.Stream(r.Context(), request) {
		if err != nil && !begun {
			fail(w, err)
			return
		}
		if !begun {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-store")
			begun = true
		}
		name, content := string(event.Type), any(event)
		if err != nil {
			name, content = "error", failure{"error", err}
		}
		data, err := json.Marshal(content)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data); err != nil {
			return
		}
		if err := controller.Flush(); err != nil {
			return
		}
	}
}

// failure is the event that a stream which fails ends with.
type failure struct {
	Type  string `json:"type"`
	Error error  `json:"error"`
}

// fail answers with an error: who can act on it is in its status.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, antiphon.ErrOverloaded), errors.Is(err, antiphon.ErrQuotaExceeded):
		status = http.StatusTooManyRequests
	case errors.Is(err, antiphon.ErrClosed), errors.Is(err, antiphon.ErrBackendUnavailable):
		status = http.StatusServiceUnavailable
	case errors.Is(err, antiphon.ErrDeadlineExceeded):
		status = http.StatusGatewayTimeout
	}
	var whole *antiphon.Error
	if errors.As(err, &whole) {
		if whole.Type == "VALIDATION" {
			status = http.StatusBadRequest
		}
		if whole.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(1+int(whole.RetryAfter.Seconds())))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(failure{"error", err})
}

// The largest request that is read.
const maxBytes = 1 << 20
