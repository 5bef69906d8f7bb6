package antiphon

// #include "shim.h"
import "C"

import "sync"

// reader wakes those who wait for a stream. The library puts the number of a stream that can be read into a queue. One of those who
// wait listens: blocked in C until the queue has something, so that a token finds it as soon as it would find a thread of C. It
// wakes the others, and when its own turn comes another one listens. So however many wait, they keep one thread, and the library
// never calls Go for it.
type reader struct {
	queue *C.antiphon_go_queue

	mutex   sync.Mutex
	waiters map[uint64]*waiter
	last    uint64
	// Whether somebody listens, who alone touches the numbers; and who waits without listening.
	listens bool
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

func newReader() *reader {
	return &reader{
		queue:   C.antiphon_go_queue_new(),
		waiters: make(map[uint64]*waiter),
		parked:  make(map[*waiter]struct{}),
	}
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
	count := int(C.antiphon_go_queue_take(r.queue, &r.ids[0], C.size_t(len(r.ids))))
	r.mutex.Lock()
	r.listens = false
	for _, id := range r.ids[:count] {
		// Who is not there any more has left meanwhile.
		if w := r.waiters[uint64(id)]; w != nil {
			w.ready = true
			r.wake(w)
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
func (r *reader) close() { C.antiphon_go_queue_free(r.queue) }
