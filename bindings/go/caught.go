package antiphon

import "runtime"

// caught is how a function ended that did not return: with a panic, or with runtime.Goexit (as t.FailNow does it).
type caught struct{ value any }

// resume ends the calling goroutine in the same way.
func (c *caught) resume() {
	if c.value == nil {
		runtime.Goexit()
	}
	panic(c.value)
}

// isolate runs a function on a goroutine of its own. The channel says how it ended: nil if it returned.
//
// Code of the host that the library calls is run so: the frames below it are C's, which neither may unwind.
func isolate(run func()) <-chan *caught {
	ended := make(chan *caught, 1)
	go func() {
		returned := false
		defer func() {
			// A panic always has a value, so nil is the other way.
			if value := recover(); returned {
				ended <- nil
			} else {
				ended <- &caught{value}
			}
		}()
		run()
		returned = true
	}()
	return ended
}
