package antiphon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

// What this face has no words for. Requests and options are structs: no unknown keys, no values of the wrong type, and 0 or ""
// is "not set". A loop that is left gives nothing, so there is no consumer that stops and gets a reply. Close frees the engine,
// so that no call looks at what it is given any more.
var lacking = []string{"json_options", "json_requests", "explicit_defaults", "logprobs", "push", "closed_engine"}

func TestTheConformanceFilesGiveWhatTheyGiveInEveryLanguage(t *testing.T) {
	folder, err := filepath.Abs("../../crates/antiphon")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "tests/conformance/*.json"))
	if err != nil || len(files) == 0 {
		t.Skip("the files are in the repository alone", err)
	}
	// Where paths of models begin.
	t.Chdir(folder)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases conformanceFile
		if err := json.Unmarshal(text, &cases); err != nil {
			t.Fatal(file, err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			for _, one := range cases.Cases {
				t.Run(one.Name, func(t *testing.T) { one.play(t, cases.Config) })
			}
		})
	}
}

type conformanceFile struct {
	Config json.RawMessage
	Cases  []conformanceCase
}

type conformanceCase struct {
	Name  string
	Needs []string
	Steps []step
}

type step struct {
	Call        string
	Gives       json.RawMessage
	Fails       json.RawMessage
	Config      json.RawMessage
	Plugins     []string
	Text        string
	TextHex     *string `json:"text_hex"`
	Texts       []string
	Request     json.RawMessage
	MessageHex  *string `json:"message_hex"`
	LeaveAfter  *int    `json:"leave_after"`
	CancelAfter *int    `json:"cancel_after"`
	Options     json.RawMessage
	Tenant      string
	MaxBytes    uint64 `json:"max_bytes"`
	TimeoutMS   int64  `json:"timeout_ms"`
}

func (c *conformanceCase) play(t *testing.T, config json.RawMessage) {
	for _, need := range c.Needs {
		if slices.Contains(lacking, need) {
			t.Skip("needs " + need)
		}
	}
	face := &face{t: t}
	defer face.close()
	if c.Steps[0].Call != "open" {
		if _, err := face.call(&step{Call: "open", Config: config}); err != nil {
			t.Fatal(err)
		}
	}
	for number, step := range c.Steps {
		value, err := face.call(&step)
		ended, recorded := value, step.Gives
		if err != nil {
			ended = err
		}
		if len(step.Fails) > 0 {
			recorded = step.Fails
		}
		if len(recorded) == 0 {
			t.Skip("not recorded yet")
		}
		if (err != nil) != (len(step.Fails) > 0) {
			t.Errorf("step %d: %v", number+1, err)
		}
		expected, got := parsed(t, recorded), parsed(t, []byte(*jsonOf(t, ended)))
		if expected, got := comparable(t, expected), comparable(t, spelled(expected, got)); expected != got {
			t.Errorf("step %d\nrecorded: %s\nbut it:   %s", number+1, expected, got)
		}
	}
}

// face is an engine, and what a case has opened on it.
type face struct {
	t            *testing.T
	engine       *antiphon.Engine
	conversation *antiphon.Conversation
	left         []*leftStream
}

// leftStream is a stream that somebody reads on later.
type leftStream struct {
	next   func() (antiphon.Event, error)
	end    func()
	cancel context.CancelFunc
	ended  bool
}

func (f *face) close() {
	for _, left := range f.left {
		left.close()
	}
	if f.conversation != nil {
		_ = f.conversation.Close()
	}
	if f.engine != nil {
		_ = f.engine.Close()
	}
}

func (f *face) call(s *step) (value any, err error) {
	ctx := context.Background()
	text := s.Text
	if s.TextHex != nil {
		text = f.unhex(*s.TextHex)
	}
	switch s.Call {
	case "open":
		options := []antiphon.Option{}
		if len(s.Config) > 0 {
			options = append(options, antiphon.WithConfig(string(s.Config)))
		}
		for _, name := range s.Plugins {
			options = append(options, antiphon.WithGenerator(generator{name, behaviours[name]}))
		}
		f.engine, err = antiphon.Open(options...)
		return nil, err
	case "analyze":
		return f.engine.Analyze(ctx, text)
	case "analyze_batch":
		return f.engine.AnalyzeBatch(ctx, s.Texts)
	case "process":
		return f.engine.Process(ctx, f.request(s))
	case "generate":
		return f.engine.Generate(ctx, f.request(s))
	case "stream":
		if s.LeaveAfter == nil && s.CancelAfter == nil {
			return whole(f.engine.Stream(ctx, f.request(s))), nil
		}
		ctx, cancel := context.WithCancel(ctx)
		next, end := antiphon.Begin(ctx, f.engine, f.request(s))
		return f.part(&leftStream{next: next, end: end, cancel: cancel}, s), nil
	case "say":
		if s.LeaveAfter == nil && s.CancelAfter == nil {
			return whole(f.conversation.Say(ctx, f.request(s))), nil
		}
		ctx, cancel := context.WithCancel(ctx)
		next, end := antiphon.BeginToSay(ctx, f.conversation, f.request(s))
		return f.part(&leftStream{next: next, end: end, cancel: cancel}, s), nil
	case "read":
		left := f.left[len(f.left)-1]
		f.left = f.left[:len(f.left)-1]
		defer left.close()
		return left.events(-1), nil
	case "summarize":
		var options struct {
			Sentences int
			Share     float64
			Method    antiphon.SummaryMethod
		}
		_ = json.Unmarshal(s.Options, &options)
		return f.engine.Summarize(ctx, text, antiphon.SummaryOptions(options))
	case "embed":
		vector, err := f.engine.Embed(ctx, text)
		return fingerprint(vector), err
	case "conversation":
		var options antiphon.ConversationOptions
		_ = json.Unmarshal(s.Options, &options)
		f.conversation, err = f.engine.NewConversation(options)
		return nil, err
	case "cache_stats":
		return f.engine.CacheStats()
	case "cache_clear":
		return nil, f.engine.CacheClear(s.Tenant)
	case "cache_resize":
		return nil, f.engine.CacheResize(s.MaxBytes)
	case "cache_warm":
		return nil, f.engine.CacheWarm(ctx, f.request(s))
	case "models":
		return f.engine.Models()
	case "health":
		return f.engine.Health()
	case "ready":
		return f.engine.Ready(), nil
	case "drain":
		ctx, cancel := context.WithTimeout(ctx, time.Duration(s.TimeoutMS)*time.Millisecond)
		defer cancel()
		return nil, f.engine.Drain(ctx)
	case "close":
		return nil, f.engine.Close()
	default:
		f.t.Fatal("no such call: " + s.Call)
		return nil, nil
	}
}

func (f *face) request(s *step) (request antiphon.Request) {
	if err := json.Unmarshal(s.Request, &request); err != nil {
		if strings.Contains(err.Error(), "logprobs") || strings.Contains(err.Error(), "response_format") {
			f.t.Skip(err)
		}
		f.t.Fatal(err)
	}
	if s.MessageHex != nil {
		request.Message = f.unhex(*s.MessageHex)
	}
	return request
}

// whole gives all events of a stream.
func whole(stream iter.Seq2[antiphon.Event, error]) []any {
	events := []any{}
	for event, err := range stream {
		events = append(events, shown(event, err))
	}
	return events
}

// part gives the events of a stream as far as the step reads it.
func (f *face) part(left *leftStream, s *step) []any {
	if s.LeaveAfter != nil {
		f.left = append(f.left, left)
		return left.events(*s.LeaveAfter)
	}
	defer left.close()
	events := left.events(*s.CancelAfter)
	left.cancel()
	return append(events, left.events(-1)...)
}

// events are the next ones; all of them for -1.
func (l *leftStream) events(count int) []any {
	events := []any{}
	for ; count != 0 && !l.ended; count-- {
		event, err := l.next()
		l.ended = err != nil || event.Type == antiphon.EventDone
		events = append(events, shown(event, err))
	}
	return events
}

func (l *leftStream) close() {
	l.end()
	l.cancel()
}

// shown is an event, or the error that takes the place of the last one.
func shown(event antiphon.Event, err error) any {
	if err != nil {
		return map[string]any{"type": "error", "error": err}
	}
	return event
}

// behaviours are the generators that cases name.
var behaviours = map[string]func(context.Context, answer) error{
	"parrot": parrot,
	"mute":   broken,
	"breaks_off": func(_ context.Context, a answer) error {
		_, _ = io.WriteString(a, "one ")
		return errors.New("it broke off")
	},
	"stalls": stalled,
	"broods": blocked,
}

func (f *face) unhex(digits string) string {
	text, err := hex.DecodeString(digits)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// fingerprint is a vector by its length and a hash of its bytes.
func fingerprint(vector []float32) any {
	hash := fnv.New64a()
	for _, number := range vector {
		_ = binary.Write(hash, binary.LittleEndian, number)
	}
	return map[string]any{"dimension": len(vector), "fnv1a": fmt.Sprintf("%016x", hash.Sum64())}
}

// What is another in each run, build or training.
var free = []string{
	"timestamp", "timings_ms", "retry_after_ms", "uptime_ms", "bytes", "engine", "version", "config", "performance_metrics",
}

// comparable prints JSON in one way, without what is free to differ.
func comparable(t *testing.T, value any) string {
	t.Helper()
	return *jsonOf(t, without(value))
}

func without(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if value[key] = without(inner); inner != nil && slices.Contains(free, key) {
				value[key] = 0
			}
		}
	case []any:
		for i, inner := range value {
			value[i] = without(inner)
		}
	case string:
		if strings.HasPrefix(value, "blake3:") {
			return "blake3:"
		}
	}
	return value
}

// parsed keeps numbers as they are written.
func parsed(t *testing.T, text []byte) (value any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// spelled writes floats as the other languages do: 1.0 and not 1, 3e-6 and not 0.000003.
func spelled(recorded, value any) any {
	switch value := value.(type) {
	case map[string]any:
		recorded, _ := recorded.(map[string]any)
		for key, inner := range value {
			value[key] = spelled(recorded[key], inner)
		}
	case []any:
		recorded, _ := recorded.([]any)
		for i := range min(len(recorded), len(value)) {
			value[i] = spelled(recorded[i], value[i])
		}
	case json.Number:
		recorded, _ := recorded.(json.Number)
		number, err := value.Float64()
		switch {
		case err != nil || !strings.ContainsAny(string(recorded), ".e"):
		case number == 0 || math.Abs(number) >= 1e-5:
			text := strconv.FormatFloat(number, 'f', -1, 64)
			if !strings.Contains(text, ".") {
				text += ".0"
			}
			return json.Number(text)
		default:
			text := strconv.FormatFloat(number, 'e', -1, 64)
			return json.Number(strings.Replace(text, "e-0", "e-", 1))
		}
	}
	return value
}
