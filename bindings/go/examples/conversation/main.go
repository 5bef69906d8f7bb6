// A short conversation: two messages, answered as they come.
package main

import (
	"context"
	"fmt"
	"log"

	"antiphon.dev/antiphon"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	engine, err := antiphon.Open()
	if err != nil {
		return err
	}
	defer engine.Close()
	conversation, err := engine.NewConversation(antiphon.ConversationOptions{})
	if err != nil {
		return err
	}
	for _, message := range []string{"Hello, I need help with my account", "I forgot my password"} {
		for event, err := range conversation.Say(ctx, antiphon.Request{Message: message}) {
			switch {
			case err != nil:
				return err
			case event.Type == antiphon.EventAnalysis:
				fmt.Printf("[%s] ", event.Analysis.Intent.Label)
			case event.Type == antiphon.EventDone:
				fmt.Println()
			default:
				fmt.Print(event.Content)
			}
		}
	}
	return nil
}
