package antiphon

// #include "shim.h"
import "C"

import (
	"os"
	"sync"
)

// reader wakes those who wait for a stream. The library puts the number of a stream that can be read into a queue and, if the
// queue was empty, a byte into a pipe; one goroutine reads the pipe, parked in the runtime's poller like one that reads a
// socket. However many wait, no thread does, and the library never calls Go for it.
type reader struct {
	queue   *C.antiphon_go_queue
	written *os.File // Its end of the pipe is the library's.
	mutex   sync.Mutex
	waiters map[uint64]*waiter
	last    uint64
}

// waiter is who waits for one stream.
type waiter struct {
	id    uint64
	ready chan struct{}
}

func newReader() (*reader, error) {
	read, written, err := os.Pipe()
	if err != nil {
		return nil, ioError(err)
	}
	r := &reader{written: written, waiters: make(map[uint64]*waiter)}
	connection, err := written.SyscallConn()
	if err == nil {
		// Not written.Fd(), which would make it block.
		err = connection.Control(func(descriptor uintptr) { r.queue = C.antiphon_go_queue_new(C.int(descriptor)) })
	}
	if err != nil {
		_, _ = read.Close(), written.Close()
		return nil, ioError(err)
	}
	go r.run(read)
	return r, nil
}

// run ends when the other end of the pipe is closed.
func (r *reader) run(read *os.File) {
	var bytes [16]byte
	for {
		if _, err := read.Read(bytes[:]); err != nil {
			break
		}
		r.wakeAll()
	}
	_ = read.Close()
	C.antiphon_go_queue_free(r.queue)
}

func (r *reader) wakeAll() {
	var ids [64]C.uint64_t
	for count := len(ids); count == len(ids); {
		count = int(C.antiphon_go_queue_take(r.queue, &ids[0], C.size_t(len(ids))))
		r.mutex.Lock()
		for _, id := range ids[:count] {
			// Who is not there any more has left meanwhile.
			if waiter := r.waiters[uint64(id)]; waiter != nil {
				select {
				case waiter.ready <- struct{}{}:
				default:
				}
			}
		}
		r.mutex.Unlock()
	}
}

// wait begins to wait for a stream.
func (r *reader) wait() *waiter {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.last++
	w := &waiter{id: r.last, ready: make(chan struct{}, 1)}
	r.waiters[w.id] = w
	return w
}

// forget ends that; the stream has been freed.
func (r *reader) forget(w *waiter) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.waiters, w.id)
}

// close ends the goroutine; nobody waits any more.
func (r *reader) close() {
	_ = r.written.Close()
}

func ioError(err error) error {
	failure := newError(codeIO, "a pipe could not be opened")
	failure.causes = []error{err}
	return failure
}
