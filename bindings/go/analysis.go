package antiphon

import "encoding/json"

// Analysis is what a message means.
type Analysis struct {
	// Intent is what the user wants.
	Intent Intent `json:"intent"`
	// Sentiment is how the user feels about it.
	Sentiment Sentiment `json:"sentiment"`
	// Entities are the things that the message names, in order of position.
	Entities []Entity `json:"entities"`
	// Tokens is how many the encoder read, its special ones included.
	Tokens int `json:"tokens"`
	// Truncated says whether the message was longer than the encoder can read, and its end was left out.
	Truncated bool `json:"truncated"`
}

// Intent is what the user wants.
type Intent struct {
	// Label is the best label, or "out_of_scope".
	Label string `json:"label"`
	// Confidence is the calibrated probability of the label; out of scope, one minus that of the best label in scope.
	Confidence float64 `json:"confidence"`
	// OutOfScope says whether no known intent is likely enough.
	OutOfScope bool `json:"out_of_scope"`
	// Ranking has the five best labels in scope, best first.
	Ranking []Ranked `json:"ranking"`
}

// Ranked is a label and its probability.
type Ranked struct {
	// Label is the label.
	Label string `json:"label"`
	// Confidence is its calibrated probability.
	Confidence float64 `json:"confidence"`
}

// Sentiment is how the user feels about it.
type Sentiment struct {
	// Label is "negative", "neutral" or "positive".
	Label string `json:"label"`
	// Confidence is the probability of the label.
	Confidence float64 `json:"confidence"`
	// Scores has the probability of each label.
	Scores map[string]float64 `json:"scores"`
}

// Entity is something that a message names: message[Start:End] is its Value.
//
// In JSON its places are code points, as every language writes them; one that was read from JSON has code points in all four.
type Entity struct {
	// Type is what it is, such as "order_id" or "person".
	Type string
	// Value is its text.
	Value string
	// Confidence is how sure the analyst is.
	Confidence float64
	// Start is where it begins, in bytes of the message.
	Start int
	// End is where it ends, in bytes.
	End int
	// StartRune is where it begins, in code points.
	StartRune int
	// EndRune is where it ends, in code points.
	EndRune int
}

type entityJSON struct {
	Type       string  `json:"type"`
	Value      string  `json:"value"`
	Confidence float64 `json:"confidence"`
	Start      int     `json:"start"`
	End        int     `json:"end"`
}

// MarshalJSON writes the entity with its places in code points.
func (e Entity) MarshalJSON() ([]byte, error) {
	return json.Marshal(entityJSON{e.Type, e.Value, e.Confidence, e.StartRune, e.EndRune})
}

// UnmarshalJSON reads an entity; without the message its bytes cannot be known.
func (e *Entity) UnmarshalJSON(text []byte) error {
	var wire entityJSON
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	*e = Entity{wire.Type, wire.Value, wire.Confidence, wire.Start, wire.End, wire.Start, wire.End}
	return nil
}
