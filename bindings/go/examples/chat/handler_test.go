package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"antiphon.dev/antiphon"
)

func serving(t *testing.T, options ...antiphon.Option) (*httptest.Server, *antiphon.Engine) {
	t.Helper()
	engine, err := antiphon.Open(options...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler(engine))
	t.Cleanup(func() {
		server.Close()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, engine
}

func post(t *testing.T, ctx context.Context, url, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestAnAnswerIsStreamed(t *testing.T) {
	server, _ := serving(t)
	response := post(t, t.Context(), server.URL, `{"message": "Hello, I need help with my account"}`)
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatal(response.Status, kind)
	}
	var text, whole string
	var names []string
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if name, found := strings.CutPrefix(lines.Text(), "event: "); found {
			names = append(names, name)
		}
		if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
			var event struct {
				Content string
				Reply   antiphon.Reply
			}
			if err := json.Unmarshal([]byte(data), &event); err != nil {
				t.Fatal(err)
			}
			text += event.Content
			whole = event.Reply.Response
		}
	}
	if len(names) < 3 || names[0] != "analysis" || names[1] != "chunk" || names[len(names)-1] != "done" || text != whole || text == "" {
		t.Errorf("%v %q %q", names, text, whole)
	}
}

func TestAClientThatLeavesCancelsItsWork(t *testing.T) {
	server, engine := serving(t, antiphon.WithResponder(""), antiphon.WithGenerator(endless{}))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	response := post(t, ctx, server.URL, `{"message": "Tell me everything", "options": {"max_tokens": 100000}}`)
	if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	wait(t, engine, "antiphon_running_requests 1")
	leave()
	wait(t, engine, "antiphon_running_requests 0")
}

// endless is a generator that has always more to say.
type endless struct{}

func (endless) Name() string { return "endless" }

func (endless) Generate(_ context.Context, _ *antiphon.Request, answer io.Writer) error {
	for {
		if _, err := io.WriteString(answer, "word "); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func wait(t *testing.T, engine *antiphon.Engine, line string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		metrics, err := engine.Metrics()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(metrics, "\n"+line+"\n") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("never: " + line)
		}
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	server, engine := serving(t)
	for body, status := range map[string]int{
		`{"message": " "}`:                  http.StatusBadRequest,
		`{"message": "Hello", "colour": 1}`: http.StatusBadRequest,
		`nothing`:                           http.StatusBadRequest,
		`{"message": "Hello", "options": {"temperature": 9}}`: http.StatusBadRequest,
	} {
		if response := post(t, t.Context(), server.URL, body); response.StatusCode != status {
			t.Errorf("%s: %s", body, response.Status)
		}
	}
	for path, expected := range map[string]string{"/health": `"ready":true`, "/metrics": "ai_requests_total{"} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), expected) {
			t.Errorf("%s: %s %v", path, text, err)
		}
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	if response := post(t, t.Context(), server.URL, `{"message": "Hello"}`); response.StatusCode != http.StatusServiceUnavailable {
		t.Error(response.Status)
	}
}
