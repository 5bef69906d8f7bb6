/* Cancelled from another thread, at every moment, as often as the argument says: what is read next is that, or the stream had
 * ended; the waker is not called once the stream is freed; nobody waits for ever. */
#include "holds.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

static _Atomic(antiphon_canceller *) asked;
static sem_t asks, returned;
static atomic_int wakes;

/* Cancels what it is given, until that is nothing. */
static void *cancel(void *unused) {
  for (;;) {
    sem_wait(&asks);
    antiphon_canceller *canceller = atomic_load(&asked);
    if (!canceller) return unused;
    antiphon_canceller_cancel(canceller);
    sem_post(&returned);
  }
}

struct stream {
  atomic_int freed;
};
static void wake(void *user_data) {
  struct stream *stream = user_data;
  HOLDS(!atomic_load(&stream->freed));
  atomic_fetch_add(&wakes, 1);
}
static void dropped(void *user_data) { atomic_store(&((struct stream *)user_data)->freed, 1); }

int main(int count, char **arguments) {
  long times = count > 1 ? atol(arguments[1]) : 1000, cancelled = 0;
  antiphon_engine *engine = open_parrot();
  antiphon_request *request = ask("Hello", "parrot");
  antiphon_event event = {.struct_size = sizeof event};
  /* Its pages are never used again, so that a late call is seen. */
  struct stream *streams = calloc((size_t)times, sizeof *streams);
  pthread_t thread;
  HOLDS(sem_init(&asks, 0, 0) == 0 && sem_init(&returned, 0, 0) == 0);
  HOLDS(streams && pthread_create(&thread, NULL, cancel, NULL) == 0);
  alarm((unsigned)(times / 10 + 60)); /* a watchdog, for a busy machine, too */
  for (long i = 0; i < times; i++) {
    antiphon_stream *stream = NULL;
    antiphon_error *error = NULL;
    int32_t status = ANTIPHON_OK;
    HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
    antiphon_canceller *canceller = antiphon_stream_canceller(stream);
    HOLDS(antiphon_stream_set_waker(stream, wake, &streams[i], dropped, NULL) == ANTIPHON_OK);
    /* So far, then cancel; sooner for one, later for another. */
    for (long events = i % 12; events > 0 && status == ANTIPHON_OK; events--) status = antiphon_stream_next(stream, -1, &event, NULL);
    HOLDS(status >= 0);
    atomic_store(&asked, canceller);
    sem_post(&asks);
    if (i % 2)
      while (sem_trywait(&returned) != 0) status = antiphon_stream_next(stream, i % 4 == 1, &event, NULL);
    else
      sem_wait(&returned);
    /* It has returned: at once, without an event more. */
    int32_t after = antiphon_stream_next(stream, 0, &event, &error);
    HOLDS(after == -303 ? is_error(&error, -303, "cancel") : after == ANTIPHON_DONE);
    HOLDS(antiphon_stream_next(stream, 0, &event, NULL) == ANTIPHON_DONE);
    cancelled += after == -303;
    antiphon_stream_free(stream);
    HOLDS(atomic_load(&streams[i].freed));
    antiphon_canceller_free(canceller);
  }
  atomic_store(&asked, NULL);
  sem_post(&asks);
  pthread_join(thread, NULL);
  HOLDS(cancelled > times / 10);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  free(streams);
  printf("all held\n");
  return 0;
}
