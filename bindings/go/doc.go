// Package antiphon is conversational AI inside of a Go process: a message goes in, and back comes what it means (intent,
// sentiment, entities) and an answer, token by token. There is no server and no network; two small models are in the library.
//
//	engine, err := antiphon.Open()
//	if err != nil {
//		return err
//	}
//	defer engine.Close()
//	for event, err := range engine.Stream(ctx, antiphon.Request{Message: "Where is order 4711?"}) {
//		if err != nil {
//			return err
//		}
//		switch event.Type {
//		case antiphon.EventAnalysis:
//			fmt.Printf("[%s] ", event.Analysis.Intent.Label)
//		case antiphon.EventChunk:
//			fmt.Print(event.Content)
//		case antiphon.EventDone:
//			fmt.Println(event.Reply.FinishReason())
//		}
//	}
//
// # Ownership
//
// What a call gives is Go's: it was copied, and stays. Two things are held by the library: an [Engine], with its models and its
// threads, and a [Conversation]. Close either when it is not needed any more; Close can be called again, and from any goroutine.
// One that is forgotten is closed when it is collected, some time later. A stream ends with its loop, however that is left; who
// takes [Engine.Stream] apart with [iter.Pull2] calls its stop function. After Close every call is [ErrClosed].
//
// # Contexts
//
// When its context ends a call returns at once, with [ErrCancelled] or [ErrDeadlineExceeded], which wrap the context's error and
// cause. The engine hears of it even while the loop is busy with an event, and drops the work. A deadline reaches the engine as
// the request's: what cannot be answered in time is refused right away, with the time after which to try again. In a stream the
// end of its context is exactly one step, and the last. A context that ends after the done event changes nothing.
//
// [Options].Deadline is another thing: when it passes within an answer, the reply has what there was, and [FinishDeadline].
//
// There are calls that the engine cannot drop: Generate, Summarize, Embed, Analyze, AnalyzeBatch, CacheWarm and Diagnose return
// when their context ends, too, but what they began is finished for nobody.
//
// # Threads and goroutines
//
// An Engine may be used by any number of goroutines at once, a Conversation as well, in which one answer follows the other. An
// answer that is waited for costs a goroutine: the library says which streams can be read, and one of those who wait hears it and
// wakes the others. So ten thousand may wait in Stream and Process, and keep one thread. The other calls keep a thread each while they
// run: eight short ones (Analyze, AnalyzeBatch, Embed) and eight long ones (Generate, Summarize, ...) at once in each engine;
// more of them wait for their turn, in Go. AnalyzeBatch takes many texts through in few passes. An engine with a [Stage] does not
// count the long ones, because a stage may ask for an answer itself.
//
// The engine has threads of its own for computing, as many as WithThreads says. They are not counted by GOMAXPROCS.
//
// # Errors
//
// Every error is an [*Error] with a number, a kind, a hint, and whether and when to try again. Compare it with the sentinels:
//
//	var failure *antiphon.Error
//	switch {
//	case errors.Is(err, antiphon.ErrOverloaded) && errors.As(err, &failure):
//		time.Sleep(failure.RetryAfter)
//	case errors.Is(err, antiphon.ErrInvalidText):
//		// The message was empty.
//	}
//
// No error holds the text of a user.
//
// # Plugins
//
// A [SharedTier], a [Generator], a [Stage] or an [Observer] is code of the host that the engine calls, each call on a goroutine
// of its own. A panic in one, or a runtime.Goexit, is the plugin's failure, and costs what its type says. Where a call of this
// package waits for it meanwhile, as for Stage.Before, the panic goes on in the goroutine that called.
//
// # Signals and processes
//
// The library handles no signal, and blocks them all on its own threads, so os/signal, profiling and child processes work as
// ever. It writes nothing to standard output or error. Programs that are started with os/exec have nothing of an engine; a
// process that was copied with a bare fork, which Go does not do, gets [ErrForked].
//
// # Building
//
// This package needs cgo, antiphon.h and libantiphon, on Linux or macOS. By default the compiler finds them by itself, or with
//
//	CGO_CFLAGS=-I/path/to/include CGO_LDFLAGS=-L/path/to/lib go build
//
// The build tag antiphon_pkgconfig asks pkg-config for them; antiphon_static links libantiphon.a, so that the program needs no
// library of ours where it runs.
package antiphon
