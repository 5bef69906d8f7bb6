package antiphon

// #include "shim.h"
import "C"

import (
	"os"
	"sync"
)

// reader wakes those who wait for a stream. The library puts the number of a stream that can be read into a queue and, if the
// queue was empty, a byte into a pipe. One of those who wait listens to the pipe, parked in the runtime's poller like one that
// reads a socket, and wakes the others; when its own turn comes another one listens. So however many wait, no thread does, the
// library never calls Go for it, and who waits alone is woken by the poller itself.
type reader struct {
	queue   *C.antiphon_go_queue
	read    *os.File
	written *os.File // Its end of the pipe is the library's.

	mutex   sync.Mutex
	waiters map[uint64]*waiter
	last    uint64
	// Whether somebody listens, who alone touches the next two; and who waits without listening.
	listens bool
	bytes   [1]byte
	ids     [64]C.uint64_t
	parked  map[*waiter]struct{}
}

// waiter is who waits for one stream.
type waiter struct {
	id uint64
	// The stream can be read, since somebody last waited for it.
	ready bool
	// Wakes who is parked: it is ready, or is to listen.
	turn chan struct{}
}

func newReader() (*reader, error) {
	read, written, err := os.Pipe()
	if err != nil {
		return nil, ioError(err)
	}
	r := &reader{read: read, written: written, waiters: make(map[uint64]*waiter), parked: make(map[*waiter]struct{})}
	connection, err := written.SyscallConn()
	if err == nil {
		// Not written.Fd(), which would make it block.
		err = connection.Control(func(descriptor uintptr) { r.queue = C.antiphon_go_queue_new(C.int(descriptor)) })
	}
	if err != nil {
		_, _ = read.Close(), written.Close()
		return nil, ioError(err)
	}
	return r, nil
}

// wait returns when a stream can be read, or has ended: also for one who was cancelled, which the library tells like a token.
func (r *reader) wait(w *waiter) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for !w.ready {
		if r.listens {
			r.parked[w] = struct{}{}
			r.mutex.Unlock()
			<-w.turn
			r.mutex.Lock()
		} else {
			r.listen()
		}
	}
	w.ready = false
	if !r.listens {
		for other := range r.parked {
			r.wake(other)
			break
		}
	}
}

// listen waits for a byte, without the mutex, and wakes whose streams it tells of.
func (r *reader) listen() {
	r.listens = true
	r.mutex.Unlock()
	// This cannot fail: the pipe is open for as long as somebody waits.
	_, _ = r.read.Read(r.bytes[:])
	r.mutex.Lock()
	r.listens = false
	for count := len(r.ids); count == len(r.ids); {
		count = int(C.antiphon_go_queue_take(r.queue, &r.ids[0], C.size_t(len(r.ids))))
		for _, id := range r.ids[:count] {
			// Who is not there any more has left meanwhile.
			if w := r.waiters[uint64(id)]; w != nil {
				w.ready = true
				r.wake(w)
			}
		}
	}
}

func (r *reader) wake(w *waiter) {
	if _, parked := r.parked[w]; parked {
		delete(r.parked, w)
		w.turn <- struct{}{}
	}
}

// enter makes a waiter for a stream.
func (r *reader) enter() *waiter {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.last++
	w := &waiter{id: r.last, turn: make(chan struct{}, 1)}
	r.waiters[w.id] = w
	return w
}

// forget ends that; the stream has been freed.
func (r *reader) forget(w *waiter) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.waiters, w.id)
}

// close is for when nobody waits any more.
func (r *reader) close() {
	C.antiphon_go_queue_free(r.queue)
	_, _ = r.written.Close(), r.read.Close()
}

func ioError(err error) error {
	failure := newError(codeIO, "a pipe could not be opened")
	failure.causes = []error{err}
	return failure
}
