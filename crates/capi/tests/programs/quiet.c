/* Open, stream, drain, free, between two system calls that nobody makes. Whoever watches sees what the library asks the system. */
#include "holds.h"
#include <pthread.h>

static void *nothing(void *unused) { return unused; }

int main(void) {
  antiphon_engine *engine = NULL;
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  antiphon_request *request = ask("Where is order 4711?", NULL);
  pthread_t thread;
  set(request, "max_tokens", "24");
  /* With its first thread the C library handles a signal of its own. */
  HOLDS(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
  access("/antiphon/begin", F_OK);
  HOLDS(antiphon_engine_open(NULL, 0, NULL, &engine, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  while (antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK) {}
  HOLDS(antiphon_engine_drain(engine, 1000, NULL) == ANTIPHON_OK);
  antiphon_stream_free(stream);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  access("/antiphon/end", F_OK);
  printf("all held\n");
  return 0;
}
