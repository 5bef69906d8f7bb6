// A chat server: POST /chat streams the events of an answer as server-sent events; a client that leaves cancels its work.
//
//	curl -N localhost:8080/chat -d '{"message": "Where is order 4711?"}'
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"antiphon.dev/antiphon"
)

func main() {
	address := flag.String("address", "localhost:8080", "where to listen")
	flag.Parse()
	if err := serve(*address); err != nil {
		log.Fatal(err)
	}
}

// serve answers until the process is interrupted, and lets answers under way end.
func serve(address string) error {
	engine, err := antiphon.Open()
	if err != nil {
		return err
	}
	defer engine.Close()
	server := &http.Server{Addr: address, Handler: handler(engine), ReadHeaderTimeout: 5 * time.Second}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	left := make(chan error, 1)
	go func() {
		<-interrupted.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		left <- server.Shutdown(ctx)
	}()
	log.Printf("listening on http://%s", address)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-left
}
