package antiphon_test

import (
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

// Go pre-empts goroutines with SIGURG, profiles with SIGPROF, and hears of its children by SIGCHLD.
func TestFaults77StormsOfSignalsDisturbNoAnswer(t *testing.T) {
	engine := open(t)
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Skip(err)
	}
	defer pprof.StopCPUProfile()
	var stop atomic.Bool
	ended := make(chan struct{}, 2)
	go func() {
		for !stop.Load() {
			for range 100 {
				if err := syscall.Kill(os.Getpid(), syscall.SIGURG); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Millisecond)
		}
		ended <- struct{}{}
	}()
	children := 0
	go func() {
		for !stop.Load() {
			if err := exec.Command("true").Run(); err != nil {
				t.Error(err)
			}
			children++
		}
		ended <- struct{}{}
	}()
	var first string
	request := antiphon.Request{Message: "Hello, I need help with my account", Options: antiphon.Options{Cache: antiphon.CacheBypass}}
	answers := 100
	if *long {
		answers = 5000
	}
	for range answers {
		reply, err := engine.Process(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = reply.Response
		}
		if reply.Response != first {
			t.Errorf("%q, and before %q", reply.Response, first)
		}
	}
	stop.Store(true)
	<-ended
	<-ended
	t.Logf("%d answers, %d children", answers, children)
}
