package antiphon

import "encoding/json"

// Event is one step of an answer: an analysis, then chunks, then done.
type Event struct {
	// Type says which of the others are set.
	Type EventType
	// Content is the text of a chunk; it ends with a whole character.
	Content string
	// Index is the number of a chunk, from 0.
	Index uint64
	// Analysis is what the message means, in the analysis event.
	Analysis *Analysis
	// Reply is the whole reply, in the done event. Its Response is all chunks, one after the other.
	Reply *Reply
}

// EventType is the kind of an event.
type EventType string

const (
	// EventAnalysis comes first, before any of the answer was written.
	EventAnalysis EventType = "analysis"
	// EventChunk is a piece of the answer.
	EventChunk EventType = "chunk"
	// EventDone comes last.
	EventDone EventType = "done"
)

// MarshalJSON writes the event in the shape that every language writes, ready for server-sent events.
func (e Event) MarshalJSON() ([]byte, error) {
	switch e.Type {
	case EventAnalysis:
		return json.Marshal(struct {
			Type     EventType `json:"type"`
			Analysis *Analysis `json:"analysis"`
		}{e.Type, e.Analysis})
	case EventDone:
		return json.Marshal(struct {
			Type  EventType `json:"type"`
			Reply *Reply    `json:"reply"`
		}{e.Type, e.Reply})
	default:
		return json.Marshal(struct {
			Type    EventType `json:"type"`
			Content string    `json:"content"`
			Index   uint64    `json:"index"`
		}{e.Type, e.Content, e.Index})
	}
}
