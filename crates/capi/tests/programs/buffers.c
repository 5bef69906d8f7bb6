/* Calls before, between and after; buffers of every size; structs of other versions of the header. */
#include "holds.h"

static antiphon_error *error;

/* Two engines at once, one closed, one freed with its request still there. */
static void lives(void) {
  antiphon_engine *one = open_parrot(), *two = open_parrot();
  antiphon_request *request = ask("Hello", "parrot");
  antiphon_reply *reply = NULL;
  antiphon_stream *stream = NULL;
  HOLDS(antiphon_engine_close(one, NULL) == ANTIPHON_OK && antiphon_engine_close(one, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_process(one, request, &reply, &error) == -107 && reply == NULL && is_error(&error, -107, "closed"));
  HOLDS(antiphon_stream_open(one, request, &stream, &error) == -107 && stream == NULL && is_error(&error, -107, "closed"));
  HOLDS(!antiphon_engine_ready(one) && antiphon_engine_ready(two));
  antiphon_engine_free(one);
  HOLDS(antiphon_process(two, request, &reply, NULL) == ANTIPHON_OK);
  antiphon_reply_free(reply);
  HOLDS(antiphon_engine_drain(two, 1000, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_process(two, request, &reply, &error) == -107 && reply == NULL && is_error(&error, -107, "closed"));
  antiphon_engine_free(two);
  antiphon_request_free(request);
}

/* A place that is too small is left alone, and so is what is behind one that is large enough. */
static void buffers(void) {
  enum { CANARY = 0x5a };
  antiphon_engine *engine = open_parrot();
  size_t dimension = 0;
  HOLDS(antiphon_embed(engine, "Hello", 5, NULL, 0, &dimension, NULL) == ANTIPHON_OK && dimension > 8);
  size_t bytes = (dimension + 8) * sizeof(float);
  unsigned char *place = malloc(bytes);
  for (size_t capacity = 0; capacity <= dimension + 8; capacity += capacity < dimension - 1 ? dimension - 1 : 1) {
    size_t told = 0;
    memset(place, CANARY, bytes);
    int32_t status = antiphon_embed(engine, "Hello", 5, (float *)(void *)place, capacity, &told, &error);
    size_t written = status == ANTIPHON_OK && capacity ? dimension * sizeof(float) : 0;
    HOLDS(told == dimension && (capacity == 0 || (status == ANTIPHON_OK) == (capacity >= dimension)));
    if (status != ANTIPHON_OK) HOLDS(is_error(&error, -101, "capacity is "));
    for (size_t i = written; i < bytes; i++) HOLDS(place[i] == CANARY);
  }
  HOLDS(antiphon_embed(engine, "Hello", 5, NULL, dimension, &dimension, &error) == -101 && is_error(&error, -101, "out is NULL"));
  free(place);
  antiphon_engine_free(engine);
}

static int drops;
static void dropped(void *user_data) { (void)user_data, drops++; }

/* Structs of a header that has fewer fields, none, more, or nonsense in the place of the size. */
static void sizes(void) {
  struct { antiphon_generator known; void *added[2]; } generator = {.known = {.name = "parrot", .generate = parrot, .drop = dropped}};
  struct { antiphon_event known; uint64_t added[2]; } event = {.added = {0}};
  struct { antiphon_entity known; uint64_t added; } entity = {.added = 0};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_engine *engine = open_parrot();
  antiphon_request *request = ask("Hello", "parrot");
  antiphon_stream *stream = NULL;
  antiphon_analysis *analysis = NULL;
  uint32_t known = sizeof generator.known, wrong[] = {0, 4, sizeof generator.known - 1, 5000, UINT32_MAX};

  for (int i = 0; i < 5; i++) {
    generator.known.struct_size = wrong[i];
    HOLDS(antiphon_plugins_add_generator(plugins, &generator.known, &error) == -101 && is_error(&error, -101, "struct_size is "));
    HOLDS(drops == 0); /* it was not read */
  }
  generator.known.struct_size = sizeof generator;
  generator.added[1] = &generator; /* wants something that this library cannot do */
  HOLDS(antiphon_plugins_add_generator(plugins, &generator.known, &error) == -101 && is_error(&error, -101, "does not know"));
  generator.added[1] = NULL;
  HOLDS(antiphon_plugins_add_generator(plugins, &generator.known, NULL) == ANTIPHON_OK);
  generator.known.struct_size = known;
  antiphon_plugins_free(plugins);
  HOLDS(drops == 1);

  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  for (int i = 0; i < 3; i++) {
    event.known.struct_size = i == 2 ? UINT32_MAX : wrong[i];
    HOLDS(antiphon_stream_next(stream, -1, &event.known, &error) == -101 && is_error(&error, -101, "struct_size is "));
  }
  event.known.struct_size = sizeof event;
  memset(event.added, 0xff, sizeof event.added);
  HOLDS(antiphon_stream_next(stream, -1, &event.known, NULL) == ANTIPHON_OK && event.known.struct_size == sizeof event);
  HOLDS(event.added[0] == 0 && event.added[1] == 0); /* later fields are unset, not left over */
  antiphon_stream_free(stream);

  HOLDS(antiphon_analyze(engine, "Where is order 4711?", 20, &analysis, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_analysis_entity_count(analysis) > 0 && !antiphon_analysis_entity(analysis, 0, &entity.known));
  entity.known.struct_size = sizeof entity;
  entity.added = 7;
  HOLDS(antiphon_analysis_entity(analysis, 0, &entity.known) && entity.added == 0 && entity.known.value.len > 0);
  antiphon_analysis_free(analysis);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
}

int main(int count, char **arguments) {
  HOLDS(count == 2);
  alarm(60);
  if (strcmp(arguments[1], "lives") == 0) lives();
  else if (strcmp(arguments[1], "buffers") == 0) buffers();
  else sizes();
  printf("all held\n");
  return 0;
}
