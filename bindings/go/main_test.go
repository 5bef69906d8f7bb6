package antiphon_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

// long runs what takes more than a few seconds, too.
var long = flag.Bool("long", false, "run the long tests, too")

func open(t testing.TB, options ...antiphon.Option) *antiphon.Engine {
	t.Helper()
	engine, err := antiphon.Open(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// threads is how many threads the process has.
func threads(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc")
	}
	_, after, _ := strings.Cut(string(status), "\nThreads:")
	line, _, _ := strings.Cut(after, "\n")
	count, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// leavesNothing runs a test and checks that goroutines and handles are as many as before, once the rest has ended.
func leavesNothing(t *testing.T, test func()) {
	t.Helper()
	goroutines, handles := runtime.NumGoroutine(), antiphon.Handles()
	test()
	eventually(t, "all handles are back", func() bool { runtime.GC(); return antiphon.Handles() <= handles })
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// text is a message that no other call gives.
func text() string {
	messages++
	return "Where is order " + strconv.Itoa(100000+messages) + "?"
}

var messages int

// running is how many requests the engine says that run.
func running(t testing.TB, engine *antiphon.Engine) string {
	t.Helper()
	metrics, err := engine.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(metrics, "\nantiphon_running_requests ")
	count, _, _ := strings.Cut(after, "\n")
	return count
}
