package antiphon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"antiphon.dev/antiphon"
)

// An answer as it comes.
func Example() {
	engine, err := antiphon.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var answer strings.Builder
	for event, err := range engine.Stream(ctx, antiphon.Request{Message: "Hello, I need help with my account"}) {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Type {
		case antiphon.EventAnalysis:
			fmt.Println(event.Analysis.Intent.Label, event.Analysis.Sentiment.Label)
		case antiphon.EventChunk:
			answer.WriteString(event.Content)
		case antiphon.EventDone:
			fmt.Println(event.Reply.FinishReason(), event.Reply.Response == answer.String())
		}
	}
	// Output:
	// help_request neutral
	// stop true
}

func ExampleEngine_Analyze() {
	engine, err := antiphon.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	message := "The café table is too small – please take back order 4711"
	analysis, err := engine.Analyze(context.Background(), message)
	if err != nil {
		log.Fatal(err)
	}
	for _, entity := range analysis.Entities {
		fmt.Println(entity.Type, message[entity.Start:entity.End])
	}
	// Output:
	// order_id 4711
}

func ExampleEngine_Process() {
	engine, err := antiphon.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	reply, err := engine.Process(context.Background(), antiphon.Request{
		Message:  "Where is order 4711?",
		TenantID: "acme",
		Options:  antiphon.Options{MaxTokens: 4, Temperature: antiphon.Ptr(0.7), Seed: antiphon.Ptr(uint64(1))},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Intent, reply.FinishReason(), reply.Metadata.ResponseGeneration.Usage.CompletionTokens)
	// Output:
	// track_order length 4
}

// A conversation knows the turns before.
func ExampleConversation_Say() {
	engine, err := antiphon.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	conversation, err := engine.NewConversation(antiphon.ConversationOptions{TenantID: "acme"})
	if err != nil {
		log.Fatal(err)
	}
	defer conversation.Close()
	for _, message := range []string{"Hello, I need help with my account", "I forgot my password"} {
		for event, err := range conversation.Say(context.Background(), antiphon.Request{Message: message}) {
			if err != nil {
				log.Fatal(err)
			}
			if event.Type == antiphon.EventDone {
				fmt.Println(event.Reply.Intent)
			}
		}
	}
	// Output:
	// help_request
	// recover_password
}

// Every failure has a kind, a number and a hint.
func ExampleError() {
	engine, err := antiphon.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	_, err = engine.Process(context.Background(), antiphon.Request{Message: " "})
	var failure *antiphon.Error
	if errors.Is(err, antiphon.ErrInvalidText) && errors.As(err, &failure) {
		fmt.Println(failure.Code, failure.Retryable, failure.Hint)
	}
	// Output:
	// -102 false send a text in UTF-8 with something in it
}

// discreet keeps one topic from the model, and says goodbye in its own way.
type discreet struct{}

func (discreet) Before(request *antiphon.Request) error {
	if strings.Contains(request.Message, "lawyer") {
		return errors.New("a matter for people")
	}
	return nil
}

func (discreet) After(reply *antiphon.Reply) (string, error) {
	if reply.Intent == "goodbye" {
		return "Thank you, and goodbye!", nil
	}
	return "", nil
}

func ExampleStage() {
	engine, err := antiphon.Open(antiphon.WithStage(discreet{}))
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	for _, message := range []string{"Bye, have a nice day!", "My lawyer will write to you."} {
		reply, err := engine.Process(context.Background(), antiphon.Request{Message: message})
		if errors.Is(err, antiphon.ErrPluginFailed) {
			fmt.Println("refused")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(reply.Response)
	}
	// Output:
	// Thank you, and goodbye!
	// refused
}

// echo is a model of the host's own; a real one would ask a server.
type echo struct{}

func (echo) Name() string { return "echo" }

func (echo) Generate(_ context.Context, request *antiphon.Request, answer io.Writer) error {
	_, err := fmt.Fprintf(answer, "You said: %s", request.Message)
	return err
}

func ExampleGenerator() {
	engine, err := antiphon.Open(antiphon.WithGenerator(echo{}))
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	reply, err := engine.Process(context.Background(), antiphon.Request{
		Message: "Hello!",
		Options: antiphon.Options{Model: "echo"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Response)
	// Output:
	// You said: Hello!
}
