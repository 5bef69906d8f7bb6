/* Callbacks that call back, that block, that take their time, and that leave their thread other than they found it. The argument
 * says which; a watchdog ends what hangs. */
#define _GNU_SOURCE
#include "holds.h"
#include <errno.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static antiphon_engine *engine;
static antiphon_request *asking;
static antiphon_error *error;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What one may do inside of a callback: ask the same engine, and cancel, read and free what is not the stream that calls. */
static antiphon_stream *other;
static int calls;
static int32_t call_back(const antiphon_event *event, void *user_data) {
  antiphon_reply *reply = NULL;
  antiphon_analysis *analysis = NULL;
  antiphon_event of_other = {.struct_size = sizeof of_other};
  (void)user_data;
  if (calls++ > 0) return event->kind == ANTIPHON_EVENT_DONE ? ANTIPHON_STOP : ANTIPHON_CONTINUE;
  HOLDS(antiphon_process(engine, asking, &reply, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_analyze(engine, "Hello", 5, &analysis, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_stream_each(engine, asking, call_back, NULL, NULL, NULL) == ANTIPHON_OK);
  antiphon_canceller *canceller = antiphon_stream_canceller(other);
  antiphon_canceller_cancel(canceller);
  HOLDS(antiphon_stream_next(other, -1, &of_other, NULL) == -303);
  antiphon_stream_free(other);
  antiphon_canceller_free(canceller);
  antiphon_analysis_free(analysis);
  antiphon_reply_free(reply);
  antiphon_request_free(asking); /* it was copied */
  antiphon_engine_free(engine);  /* now calls end with -107 */
  return ANTIPHON_CONTINUE;
}
static void inside(void) {
  engine = open_parrot();
  asking = ask("Hello", "parrot");
  HOLDS(antiphon_stream_open(engine, asking, &other, NULL) == ANTIPHON_OK);
  int32_t status = antiphon_stream_each(engine, asking, call_back, NULL, NULL, NULL);
  HOLDS(status == ANTIPHON_OK || status == -107);
  HOLDS(calls > 3);
}

static sem_t started, finish;
static atomic_int drops, returned;
static int32_t block(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)asked;
  sem_post(&started);
  while (sem_wait(&finish) != 0) {}
  HOLDS(antiphon_sink_write(sink, "late", 4) == ANTIPHON_STOP); /* nobody wants it any more */
  HOLDS(*(int *)user_data == 4711 && atomic_load(&drops) == 0);
  atomic_store(&returned, 1);
  return 0;
}
static void dropped(void *user_data) { (void)user_data, atomic_fetch_add(&drops, 1); }

/* A generator that does not return holds up nobody but those who wait for it, and they may leave. */
static void blocks(void) {
  int data = 4711;
  antiphon_generator blocking = {.struct_size = sizeof blocking, .user_data = &data, .name = "block", .generate = block, .drop = dropped};
  antiphon_generator prompt = {.struct_size = sizeof prompt, .name = "parrot", .generate = parrot};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_stream *stream = NULL;
  antiphon_reply *reply = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  sem_init(&started, 0, 0), sem_init(&finish, 0, 0);
  HOLDS(antiphon_plugins_add_generator(plugins, &blocking, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_plugins_add_generator(plugins, &prompt, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &engine, NULL) == ANTIPHON_OK);
  antiphon_request *stuck = ask("Hello", "block");
  asking = ask("Hello", "parrot");
  HOLDS(antiphon_stream_open(engine, stuck, &stream, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK && event.kind == ANTIPHON_EVENT_ANALYSIS);
  sem_wait(&started);
  HOLDS(antiphon_process(engine, asking, &reply, NULL) == ANTIPHON_OK); /* others go on */
  HOLDS(antiphon_stream_next(stream, 10, &event, NULL) == ANTIPHON_PENDING);
  antiphon_canceller *canceller = antiphon_stream_canceller(stream);
  antiphon_canceller_cancel(canceller);
  HOLDS(antiphon_stream_next(stream, -1, &event, NULL) == -303);
  antiphon_stream_free(stream);
  antiphon_canceller_free(canceller);
  double before = seconds();
  int32_t drained = antiphon_engine_drain(engine, 500, &error);
  antiphon_error_free(error);
  HOLDS(antiphon_engine_close(engine, NULL) == ANTIPHON_OK);
  antiphon_engine_free(engine);
  HOLDS((drained == ANTIPHON_OK || drained == -302) && seconds() - before < 5);
  HOLDS(!atomic_load(&returned) && atomic_load(&drops) == 0); /* what it uses is not gone */
  sem_post(&finish);
  for (int i = 0; i < 500 && atomic_load(&drops) == 0; i++) usleep(10000);
  HOLDS(atomic_load(&returned) && atomic_load(&drops) == 1);
  antiphon_reply_free(reply);
  antiphon_request_free(stuck);
  antiphon_request_free(asking);
}

static long memory_kib(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  HOLDS(file && fscanf(file, "%*d %ld", &pages) == 1);
  fclose(file);
  return pages * 4;
}

static int32_t slowly(const antiphon_event *event, void *user_data) {
  (void)user_data, calls += event->kind == ANTIPHON_EVENT_CHUNK;
  usleep(10000);
  return ANTIPHON_CONTINUE;
}

/* One that takes 10 ms a piece gets all of them; meanwhile others have theirs, and nothing grows. */
static void *ask_others(void *unused) {
  for (int i = 0; i < 4; i++) {
    antiphon_reply *reply = NULL;
    HOLDS(antiphon_process(engine, asking, &reply, NULL) == ANTIPHON_OK);
    antiphon_reply_free(reply);
  }
  return unused;
}
/* Like the parrot, but so that no two pieces come at once. */
static int32_t trickle(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked;
  for (int i = 0; i < 50; i++, usleep(1000))
    if (antiphon_sink_write(sink, "A piece. ", 9) != ANTIPHON_CONTINUE) break;
  return 0;
}
static void slow(void) {
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "trickle", .generate = trickle};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_reply *reply = NULL;
  pthread_t thread;
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &engine, NULL) == ANTIPHON_OK);
  asking = ask("Hello", "trickle");
  ask_others(NULL);
  long before = memory_kib();
  HOLDS(pthread_create(&thread, NULL, ask_others, NULL) == 0);
  HOLDS(antiphon_stream_each(engine, asking, slowly, NULL, &reply, NULL) == ANTIPHON_OK);
  pthread_join(thread, NULL);
  HOLDS(calls > 4 && antiphon_reply_response(reply).len == 50 * 9);
  HOLDS(memory_kib() - before < 8192);
  antiphon_reply_free(reply);
  antiphon_request_free(asking);
  antiphon_engine_free(engine);
}

/* Leaves a thread as no thread should be. */
static void spoil(void) {
  sigset_t all;
  sigfillset(&all);
  errno = ENOMEM;
  fesetround(FE_UPWARD);
  feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
  if (!setlocale(LC_ALL, "de_DE.UTF-8")) setlocale(LC_ALL, "C.UTF-8");
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  HOLDS(chdir("/") == 0);
}
static int spoils;
static int32_t spoil_event(const antiphon_event *event, void *user_data) {
  (void)event, (void)user_data;
  if (spoils) spoil();
  return ANTIPHON_CONTINUE;
}
static int32_t spoiling_parrot(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  if (spoils) spoil();
  return parrot(user_data, asked, sink);
}
static void spoil_log(void *user_data, int32_t level, antiphon_text target, antiphon_text message) {
  (void)user_data, (void)level, (void)target, (void)message;
  if (spoils) spoil();
}
static void spoil_observer(void *user_data, antiphon_text name, antiphon_text json) {
  (void)user_data, (void)name, (void)json;
  if (spoils) spoil();
}
/* What the engine says about a message, with its own model, with the parrot, and as numbers. */
static void say(char *into, size_t size, float *vector) {
  antiphon_reply *reply = NULL;
  antiphon_request *parroted = ask("Where is order 4711?", "parrot");
  antiphon_analysis *analysis = NULL;
  size_t dimension;
  HOLDS(antiphon_stream_each(engine, asking, spoil_event, NULL, &reply, NULL) == ANTIPHON_OK);
  int at = snprintf(into, size, "%s\n", antiphon_reply_response(reply).ptr);
  antiphon_reply_free(reply);
  HOLDS(antiphon_stream_each(engine, parroted, spoil_event, NULL, &reply, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_analyze(engine, "My name is Anna, order 4711", 27, &analysis, NULL) == ANTIPHON_OK);
  snprintf(into + at, size - (size_t)at, "%s\n%s", antiphon_reply_response(reply).ptr, antiphon_analysis_json(analysis).ptr);
  HOLDS(antiphon_embed(engine, "Hello", 5, vector, 4096, &dimension, NULL) == ANTIPHON_OK);
  antiphon_reply_free(reply);
  antiphon_analysis_free(analysis);
  antiphon_request_free(parroted);
}
static void spoiled(void) {
  static char clean[65536], dirty[65536];
  static float vector[4096], other_vector[4096];
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "parrot", .generate = spoiling_parrot};
  antiphon_observer observer = {.struct_size = sizeof observer, .log = spoil_log, .event = spoil_observer};
  antiphon_plugins *plugins = antiphon_plugins_new();
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_plugins_add_observer(plugins, &observer, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(NULL, 0, plugins, &engine, NULL) == ANTIPHON_OK);
  asking = ask("Where is order 4711?", NULL);
  set(asking, "max_tokens", "24");
  say(clean, sizeof clean, vector);
  spoils = 1;
  for (int i = 0; i < 3; i++) {
    say(dirty, sizeof dirty, other_vector);
    if (strcmp(clean, dirty) != 0) printf("%s\n---\n%s\n", clean, dirty);
    HOLDS(strcmp(clean, dirty) == 0 && memcmp(vector, other_vector, sizeof vector) == 0);
  }
  antiphon_request_free(asking);
  antiphon_engine_free(engine);
}

int main(int count, char **arguments) {
  HOLDS(count == 2);
  alarm(60);
  if (strcmp(arguments[1], "inside") == 0) inside();
  else if (strcmp(arguments[1], "block") == 0) blocks();
  else if (strcmp(arguments[1], "slow") == 0) slow();
  else spoiled();
  printf("all held\n");
  return 0;
}
