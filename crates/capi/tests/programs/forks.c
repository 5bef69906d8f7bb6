/* A process forks while its engine works. In the child every call is told so at once, everything can be freed, a new engine
 * answers, and it ends; the parent notices nothing. */
#include "holds.h"
#include <sys/wait.h>

static antiphon_error *error;

static int32_t each(const antiphon_event *event, void *user_data) { return (void)event, (void)user_data, ANTIPHON_CONTINUE; }

static void in_child(antiphon_engine *engine, antiphon_request *request, antiphon_stream *stream, antiphon_canceller *canceller,
                     antiphon_conversation *conversation) {
  antiphon_analysis *analysis = NULL;
  antiphon_reply *reply = NULL;
  antiphon_stream *another = NULL;
  antiphon_string *string = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  float vector[4];
  size_t dimension;
  alarm(20); /* a child that hangs dies, and the parent sees it */
  HOLDS(antiphon_analyze(engine, "Hello", 5, &analysis, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_process(engine, request, &reply, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_generate(engine, request, &reply, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_stream_each(engine, request, each, NULL, NULL, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_stream_open(engine, request, &another, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_conversation_say(conversation, request, &another, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_summarize(engine, "Hello.", 6, NULL, 0, &string, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_embed(engine, "Hello", 5, vector, 0, &dimension, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_cache_warm(engine, request, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_engine_drain(engine, 1000, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_engine_close(engine, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_stream_next(stream, -1, &event, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(!antiphon_engine_ready(engine));
  int32_t (*asks[])(const antiphon_engine *, antiphon_string **, antiphon_error **) = {
      antiphon_engine_health, antiphon_engine_diagnose, antiphon_engine_models, antiphon_engine_metrics, antiphon_cache_stats};
  for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
    HOLDS(asks[i](engine, &string, &error) == -108 && string == NULL && is_error(&error, -108, "another process"));
  HOLDS(antiphon_cache_clear(engine, NULL, 0, &error) == -108 && is_error(&error, -108, "another process"));
  HOLDS(antiphon_cache_resize(engine, 0, &error) == -108 && is_error(&error, -108, "another process"));
  antiphon_canceller_cancel(canceller);

  antiphon_engine *own = open_parrot();
  antiphon_request *parroted = ask("Hello", "parrot");
  HOLDS(antiphon_process(own, parroted, &reply, NULL) == ANTIPHON_OK);
  antiphon_reply_free(reply);
  antiphon_request_free(parroted);
  antiphon_engine_free(own);

  antiphon_engine_free(engine);
  antiphon_stream_free(stream);
  antiphon_canceller_free(canceller);
  antiphon_conversation_free(conversation);
  antiphon_request_free(request);
  exit(0); /* not _exit: nothing that runs at the end may wait for what is not there */
}

int main(void) {
  antiphon_engine *engine = NULL;
  antiphon_request *request = NULL;
  antiphon_stream *stream = NULL;
  antiphon_conversation *conversation = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  HOLDS(antiphon_request_new("Tell me about my order", 22, &request, NULL) == ANTIPHON_OK);
  set(request, "max_tokens", "64");
  alarm(120);
  HOLDS(antiphon_engine_open(NULL, 0, NULL, &engine, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_conversation_new(engine, NULL, 0, &conversation, NULL) == ANTIPHON_OK);
  /* At other moments of an answer each time. */
  for (int i = 0; i < 20; i++) {
    int status = ANTIPHON_OK;
    char seed[8]; /* no two of them alike, so none is in the cache */
    snprintf(seed, sizeof seed, "%d", i);
    set(request, "seed", seed);
    HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
    antiphon_canceller *canceller = antiphon_stream_canceller(stream);
    for (int events = i % 5; events > 0; events--) HOLDS(antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK);
    pid_t child = fork();
    if (child == 0) in_child(engine, request, stream, canceller, conversation);
    HOLDS(child > 0);
    int32_t read;
    do read = antiphon_stream_next(stream, -1, &event, NULL);
    while (read == ANTIPHON_OK);
    HOLDS(read == ANTIPHON_DONE);
    HOLDS(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    antiphon_stream_free(stream);
    antiphon_canceller_free(canceller);
  }
  antiphon_conversation_free(conversation);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  printf("all held\n");
  return 0;
}
