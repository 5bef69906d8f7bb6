package antiphon

import (
	"bytes"
	"errors"
	"sync"
)

// answerWriter hands what a generator writes to the thread that may put it into the engine.
type answerWriter struct {
	mutex  sync.Mutex
	cancel func()
	pieces chan []byte
	// After each piece: whether more are wanted.
	wanted chan bool
	// Closed when the call of the generator has ended.
	gone chan struct{}
}

func (w *answerWriter) Write(piece []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	select {
	case w.pieces <- bytes.Clone(piece):
	case <-w.gone:
		return 0, errNotWanted
	}
	if !<-w.wanted {
		w.cancel()
		return 0, errNotWanted
	}
	return len(piece), nil
}

var errNotWanted = errors.New("antiphon: nobody wants more of this answer")
