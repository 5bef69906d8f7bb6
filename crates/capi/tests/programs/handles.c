/* What a debug build finds out about handles, and what is left of one after a bug. The argument says which. */
#include "holds.h"
#include <pthread.h>
#include <semaphore.h>

extern uint32_t antiphon_probe_panic_at(uint32_t moment);

static antiphon_error *error;

/* Freed twice, lent and freed all the same, taken and used. */
static void freed(void) {
  antiphon_engine *engine = open_parrot(), *none = NULL;
  antiphon_request *request = ask("Hello", "parrot");
  antiphon_reply *reply = NULL;
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_observer observer = {.struct_size = sizeof observer};
  HOLDS(antiphon_process(engine, request, &reply, NULL) == ANTIPHON_OK);

  antiphon_analysis_free((antiphon_analysis *)antiphon_reply_analysis(reply)); /* the reply's, and so it stays */
  HOLDS(antiphon_analysis_intent(antiphon_reply_analysis(reply)).len > 0);
  antiphon_reply_free(reply);
  antiphon_reply_free(reply);
  HOLDS(antiphon_reply_response(reply).len == 0 && antiphon_reply_analysis(reply) == NULL);

  HOLDS(antiphon_engine_open("nonsense", 8, plugins, &none, &error) == -106 && none == NULL);
  antiphon_error_free(error);
  HOLDS(antiphon_plugins_add_observer(plugins, &observer, &error) == -101);
  HOLDS(is_error(&error, -101, "plugins was freed"));
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &none, &error) == -101 && none == NULL);
  HOLDS(is_error(&error, -101, "plugins was freed"));
  antiphon_plugins_free(plugins);

  antiphon_request_free(request);
  antiphon_engine_free(engine);
  antiphon_engine_free(engine);
  HOLDS(!antiphon_engine_ready(engine));
}

static sem_t started, finish;
static int32_t slow(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked;
  sem_post(&started);
  sem_wait(&finish);
  return antiphon_sink_write(sink, "done", 4), 0;
}

static int32_t first;
static void *wait_for_end(void *stream) {
  antiphon_event event = {.struct_size = sizeof event};
  /* The other thread may be in the stream, for a moment. */
  do first = antiphon_stream_next(stream, -1, &event, NULL);
  while (first == ANTIPHON_OK || first == -101);
  return NULL;
}

/* A second thread in a stream that one is waiting in. */
static void shared(void) {
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "slow", .generate = slow};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_engine *engine = NULL;
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  pthread_t thread;
  sem_init(&started, 0, 0), sem_init(&finish, 0, 0);
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &engine, NULL) == ANTIPHON_OK);
  antiphon_request *request = ask("Hello", "slow");
  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  HOLDS(pthread_create(&thread, NULL, wait_for_end, stream) == 0);
  sem_wait(&started);
  /* The other thread may be between two calls, and an event may be there. */
  int32_t status = ANTIPHON_PENDING;
  for (int i = 0; i < 10000 && (status == ANTIPHON_PENDING || status == ANTIPHON_OK); i++, usleep(1000)) {
    antiphon_error_free(error);
    status = antiphon_stream_next(stream, 0, &event, &error);
  }
  HOLDS(status == -101 && is_error(&error, -101, "stream is in use by another call"));
  HOLDS(antiphon_stream_canceller(stream) == NULL);
  antiphon_stream_free(stream); /* refused as well */
  sem_post(&finish);
  pthread_join(thread, NULL);
  HOLDS(first == ANTIPHON_DONE);
  antiphon_stream_free(stream);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
}

/* After a bug inside of a call that had the handle for itself. */
static void left_behind(void) {
  antiphon_engine *engine = open_parrot();
  antiphon_request *request = ask("Hello", "parrot");
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  antiphon_probe_panic_at(3); /* when the stream is held */
  HOLDS(antiphon_stream_next(stream, -1, &event, &error) == -901);
  HOLDS(is_error(&error, -901, "a bug of this library"));
  HOLDS(antiphon_stream_next(stream, -1, &event, &error) == -901);
  HOLDS(is_error(&error, -901, "stream was left behind"));
  HOLDS(antiphon_stream_canceller(stream) == NULL);
  antiphon_stream_free(stream);
  /* Everything else is as it was. */
  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK);
  antiphon_stream_free(stream);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
}

int main(int count, char **arguments) {
  HOLDS(count == 2);
  alarm(60);
  if (strcmp(arguments[1], "freed") == 0) freed();
  else if (strcmp(arguments[1], "shared") == 0) shared();
  else left_behind();
  printf("all held\n");
  return 0;
}
