/* What it costs to cross from C into the library: a getter, and an event of a stream that is already there. Prints nanoseconds,
 * one line each; the arguments are how many pieces the stream has and how often it is read. */
#include "holds.h"
#include <time.h>

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int pieces;
/* Slow enough that no two pieces come as one. */
static int32_t write_pieces(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked;
  for (int i = 0; i < pieces; i++, usleep(200))
    if (antiphon_sink_write(sink, "a piece ", 8) != ANTIPHON_CONTINUE) break;
  return 0;
}

/* The best of a few rounds: what disturbs only makes it slower. */
#define BEST(name, times, call)                                         \
  do {                                                                  \
    double best = 1e18;                                                 \
    for (int round = 0; round < 20; round++) {                          \
      double begin = now_ns();                                          \
      for (int i = 0; i < (times); i++) {                               \
        __asm__ volatile("" ::: "memory");                              \
        (void)call;                                                     \
      }                                                                 \
      double each = (now_ns() - begin) / (times);                       \
      if (each < best) best = each;                                     \
    }                                                                   \
    printf("%s %.1f\n", name, best);                                    \
  } while (0)

int main(int count, char **arguments) {
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "pieces", .generate = write_pieces};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_engine *engine = NULL;
  antiphon_reply *reply = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  HOLDS(count == 3);
  pieces = atoi(arguments[1]);
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &engine, NULL) == ANTIPHON_OK);
  antiphon_request *request = ask("Hello", "pieces");
  set(request, "max_tokens", "2000");
  HOLDS(antiphon_process(engine, request, &reply, NULL) == ANTIPHON_OK);
  const antiphon_analysis *analysis = antiphon_reply_analysis(reply);
  BEST("antiphon_analysis_intent", 100000, antiphon_analysis_intent(analysis));
  BEST("antiphon_analysis_intent_confidence", 100000, antiphon_analysis_intent_confidence(analysis));
  BEST("antiphon_analysis_json", 100000, antiphon_analysis_json(analysis));
  BEST("antiphon_reply_response", 100000, antiphon_reply_response(reply));
  BEST("antiphon_reply_analysis", 100000, antiphon_reply_analysis(reply));
  BEST("antiphon_engine_ready", 100000, antiphon_engine_ready(engine));

  /* Read when all of it is there: no wait is in the figure. */
  double best = 1e18;
  for (int round = 0; round < atoi(arguments[2]); round++) {
    antiphon_stream *stream = NULL;
    int events = 0;
    HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
    usleep((useconds_t)pieces * 400 + 20000);
    double begin = now_ns();
    while (antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK) events += event.kind == ANTIPHON_EVENT_CHUNK;
    double each = (now_ns() - begin) / events;
    if (each < best) best = each;
    antiphon_stream_free(stream);
  }
  printf("antiphon_stream_next %.1f\n", best);
  antiphon_reply_free(reply);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  return 0;
}
