package antiphon

import (
	"context"
	"encoding/json"
	"iter"
	"runtime"
	"sync"
)

// Conversation remembers its turns: each answer knows those before it. Its answers come one after the other, whichever
// goroutines ask for them.
type Conversation struct {
	engine *Engine
	native *conversation
	mutex  sync.Mutex
	closed bool
	net    runtime.Cleanup
}

// ConversationOptions say whose conversation it is, and how it begins.
type ConversationOptions struct {
	// TenantID is that of every request that names none. Default: "default".
	TenantID string `json:"tenant_id,omitempty"`
	// UserID is that of every request that names none.
	UserID string `json:"user_id,omitempty"`
	// ConversationID is that of every request that names none.
	ConversationID string `json:"conversation_id,omitempty"`
	// History has the turns that went before, oldest first.
	History []Message `json:"history,omitempty"`
}

// NewConversation begins a conversation. It may be closed when it is not needed any more.
func (e *Engine) NewConversation(options ConversationOptions) (*Conversation, error) {
	// Texts, which can always be written.
	written, _ := json.Marshal(options)
	if err := e.core.enter(); err != nil {
		return nil, err
	}
	defer e.core.leave()
	native, err := newConversation(e.core, string(written))
	if err != nil {
		return nil, err
	}
	c := &Conversation{engine: e, native: native}
	c.net = runtime.AddCleanup(c, (*conversation).free, native)
	return c, nil
}

// Say says something and streams the answer, as Engine.Stream does. An answer that is left early stays in the history as far as
// it came. Another Say before the last one's loop has ended is ErrInvalidArgument.
func (c *Conversation) Say(ctx context.Context, request Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		stream, err := c.engine.begin(ctx, request, c.say)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer stream.close()
		stream.each(yield)
		runtime.KeepAlive(c)
	}
}

func (c *Conversation) say(request *Request) (*nativeStream, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return nil, newError(codeClosed, "the conversation is closed")
	}
	return c.native.say(request)
}

// Close forgets the conversation; an answer that is being streamed goes on. Calling it again does nothing.
func (c *Conversation) Close() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.closed {
		c.closed = true
		c.net.Stop()
		c.native.free()
	}
	return nil
}
