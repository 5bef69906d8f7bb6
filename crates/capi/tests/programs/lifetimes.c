/* Handles freed in every order, stops and cancels at every moment, and a generator of the host's own. Exits with the line that
 * did not hold. */
#include <antiphon.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#ifndef ROUNDS
#define ROUNDS 200 /* fewer under valgrind */
#endif

#define HOLDS(condition) \
  do \
    if (!(condition)) { \
      printf("line %d: %s\n", __LINE__, #condition); \
      return __LINE__ % 255 + 1; \
    } \
  while (0)

/* Nothing is late, however slow the machine is. */
#define CONFIG "{\"batcher\": {\"timeout_ms\": 600000}}"

static antiphon_request *request(const char *text, const char *tokens) {
  antiphon_request *made = NULL;
  if (antiphon_request_new(text, strlen(text), &made, NULL) != ANTIPHON_OK) return NULL;
  if (antiphon_request_set(made, "max_tokens", tokens, strlen(tokens), NULL) != ANTIPHON_OK) return NULL;
  return antiphon_request_set(made, "cache", "bypass", 6, NULL) == ANTIPHON_OK ? made : NULL;
}

static atomic_int drops;
static void wake(void *user_data) { (void)user_data; }
static void dropped(void *user_data) { (void)user_data, drops++; }

static int calls;
static int32_t stop_at_first(const antiphon_event *event, void *user_data) {
  calls++;
  /* The engine may be freed from inside of a callback. */
  if (event->kind == ANTIPHON_EVENT_ANALYSIS) antiphon_engine_free(user_data);
  return ANTIPHON_STOP;
}

static int32_t echo(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data;
  const char *json = antiphon_request_json(asked).ptr, *euro = "\xe2\x82\xac";
  if (strstr(json, "\"message\":\"echo this\"") == NULL) return -1;
  /* Cut inside of a character. */
  if (antiphon_sink_write(sink, euro, 1) != ANTIPHON_CONTINUE) return 0;
  antiphon_sink_write(sink, euro + 1, 2);
  return 0;
}

static void *cancel(void *canceller) {
  antiphon_canceller_cancel(canceller);
  return NULL;
}

int main(void) {
  antiphon_engine *engine = NULL;
  antiphon_error *error = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "echo", .generate = echo, .drop = dropped};
  antiphon_plugins *plugins = antiphon_plugins_new();
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(CONFIG, sizeof CONFIG - 1, plugins, &engine, &error) == ANTIPHON_OK && engine != NULL && error == NULL);
  antiphon_request *ask = request("I want to cancel my order", "200");

  /* Cancelled from another thread: the next read is that, then nothing more. */
  for (int i = 0; i < ROUNDS; i++) {
    antiphon_stream *stream = NULL;
    pthread_t thread;
    int status;
    HOLDS(antiphon_stream_open(engine, ask, &stream, NULL) == ANTIPHON_OK);
    antiphon_canceller *canceller = antiphon_stream_canceller(stream);
    HOLDS(antiphon_stream_set_waker(stream, wake, NULL, dropped, NULL) == ANTIPHON_OK);
    HOLDS(pthread_create(&thread, NULL, cancel, canceller) == 0);
    do status = antiphon_stream_next(stream, -1, &event, &error);
    while (status == ANTIPHON_OK);
    HOLDS(status == ANTIPHON_DONE || (status == -303 && antiphon_error_code(error) == -303));
    antiphon_error_free(error);
    error = NULL;
    HOLDS(antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_DONE);
    pthread_join(thread, NULL);
    antiphon_stream_free(stream);
    HOLDS(drops == i + 1);
    antiphon_canceller_cancel(canceller); /* later than the stream */
    antiphon_canceller_free(canceller);
  }

  /* A model of the host's own. */
  antiphon_request *echoed = request("echo this", "8");
  antiphon_reply *reply = NULL;
  HOLDS(antiphon_request_set(echoed, "model", "echo", 4, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_process(engine, echoed, &reply, NULL) == ANTIPHON_OK);
  HOLDS(strcmp(antiphon_reply_response(reply).ptr, "\xe2\x82\xac") == 0);
  HOLDS(strcmp(antiphon_reply_finish_reason(reply).ptr, "stop") == 0);
  HOLDS(antiphon_analysis_intent(antiphon_reply_analysis(reply)).len > 0);
  antiphon_reply_free(reply);
  antiphon_request_free(echoed);

  /* A struct that is too small, a text that is no text, a key that is none. */
  antiphon_stream *stream = NULL;
  HOLDS(antiphon_stream_open(engine, ask, &stream, NULL) == ANTIPHON_OK);
  event.struct_size = 8;
  HOLDS(antiphon_stream_next(stream, -1, &event, &error) == -101);
  HOLDS(strstr(antiphon_error_message(error).ptr, "struct_size is 8") != NULL);
  antiphon_error_free(error);
  event.struct_size = sizeof event;
  antiphon_request *bad = NULL;
  HOLDS(antiphon_request_new("\xff", 1, &bad, &error) == -102 && bad == NULL);
  antiphon_error_free(error);
  HOLDS(antiphon_request_set(ask, "colour", "1", 1, &error) == -101);
  antiphon_error_free(error);
  antiphon_stream_free(stream);

  /* The engine goes first, then its streams: each ends, none hangs. */
  antiphon_stream *streams[100] = {NULL};
  antiphon_engine *second = NULL;
  HOLDS(antiphon_engine_open(CONFIG, sizeof CONFIG - 1, NULL, &second, NULL) == ANTIPHON_OK);
  for (int i = 0; i < 100; i++) HOLDS(antiphon_stream_open(second, ask, &streams[i], NULL) == ANTIPHON_OK);
  antiphon_engine_free(second);
  for (int i = 0; i < 100; i++) {
    int status;
    do status = antiphon_stream_next(streams[i], -1, &event, NULL);
    while (status == ANTIPHON_OK);
    HOLDS(status == -107 || status == ANTIPHON_DONE);
    antiphon_stream_free(streams[i]);
  }

  /* Pushed: the callback stops it, and it is not called again; it has freed the engine, too. The answer does without the token that
   * ends it, so that it is still being written then. */
  HOLDS(antiphon_request_set(ask, "logit_bias", "{\"3\": -100}", 11, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_request_set(ask, "max_tokens", "900", 3, NULL) == ANTIPHON_OK);
  int32_t status = antiphon_stream_each(engine, ask, stop_at_first, engine, &reply, NULL);
  HOLDS(calls == 1 && (status == ANTIPHON_OK || status == -107));
  if (status == ANTIPHON_OK) HOLDS(strcmp(antiphon_reply_finish_reason(reply).ptr, "cancelled") == 0);
  antiphon_reply_free(reply);
  antiphon_request_free(ask);
  printf("all held\n");
  return 0;
}
