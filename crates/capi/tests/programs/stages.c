/* Stages of the host: what they see of a request and of an answer, what becomes of it, and how they fail. */
#include "holds.h"
#include <stdatomic.h>

static atomic_int seen, reviewed, dropped;

/* Refuses one word, hides another, and asks for short answers. */
static int32_t before(void *user_data, antiphon_request *request) {
  seen++;
  const char *json = antiphon_request_json(request).ptr;
  if (strstr(json, "lawyer")) return -1;
  if (strstr(json, "4711")) set(request, "message", "\"order ####\"");
  set(request, "max_tokens", "16");
  HOLDS(antiphon_request_set(request, "max_tokens", "many", 4, NULL) == -101);
  return strcmp(user_data, "spoils") == 0 ? antiphon_request_set(request, "message", "\"\"", 2, NULL) : 0;
}

/* Puts brackets around an answer, in pieces that cut a character. */
static int32_t after(void *user_data, const antiphon_reply *reply, antiphon_sink *sink) {
  reviewed++;
  if (strcmp(user_data, "keeps") == 0) return -1;
  if (strcmp(user_data, "leaves") == 0) return 0;
  antiphon_text text = antiphon_reply_response(reply);
  antiphon_sink_write(sink, "\xe2\x82", 2);
  antiphon_sink_write(sink, "\xac ", 2);
  if (strcmp(user_data, "garbles") == 0) antiphon_sink_write(sink, "\xff", 1);
  return antiphon_sink_write(sink, text.ptr, text.len) == ANTIPHON_CONTINUE ? 0 : -1;
}

static void drop(void *user_data) { (void)user_data, dropped++; }

static antiphon_engine *open_staged(const char *mood, int with_before, int with_after) {
  const char *config = "{\"responder\": null, \"threads\": 1}";
  antiphon_engine *engine = NULL;
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "parrot", .generate = parrot};
  antiphon_stage stage = {.struct_size = sizeof stage,
                          .user_data = (void *)mood,
                          .before = with_before ? before : NULL,
                          .after = with_after ? after : NULL,
                          .drop = drop};
  antiphon_plugins *plugins = antiphon_plugins_new();
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_plugins_add_stage(plugins, &stage, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(config, strlen(config), plugins, &engine, NULL) == ANTIPHON_OK);
  return engine;
}

/* The answer's text, which the caller frees; NULL and the error where there is none. */
static char *answer(const antiphon_engine *engine, const char *message, antiphon_error **error) {
  antiphon_request *request = ask(message, NULL);
  antiphon_reply *reply = NULL;
  antiphon_process(engine, request, &reply, error);
  char *text = reply ? strdup(antiphon_reply_response(reply).ptr) : NULL;
  antiphon_reply_free(reply);
  antiphon_request_free(request);
  return text;
}

static int chunks_of(const antiphon_engine *engine, const char *message) {
  antiphon_request *request = ask(message, NULL);
  antiphon_stream *stream = NULL;
  antiphon_event event = {.struct_size = sizeof event};
  int chunks = 0;
  HOLDS(antiphon_stream_open(engine, request, &stream, NULL) == ANTIPHON_OK);
  while (antiphon_stream_next(stream, -1, &event, NULL) == ANTIPHON_OK) chunks += event.kind == ANTIPHON_EVENT_CHUNK;
  antiphon_stream_free(stream);
  antiphon_request_free(request);
  return chunks;
}

int main(void) {
  antiphon_error *error = NULL;
  antiphon_engine *engine = open_staged("well", 1, 1);
  char *text = answer(engine, "Where is order 4711?", &error);
  HOLDS(text && strncmp(text, "\xe2\x82\xac ", 4) == 0);
  HOLDS(strstr(text, "\"message\":\"order ####\"") && strstr(text, "\"max_tokens\":16") && !strstr(text, "4711"));
  free(text);
  HOLDS(chunks_of(engine, "Hello") == 1);
  HOLDS(!answer(engine, "My lawyer will write", &error) && is_error(&error, -208, "refused"));
  HOLDS(seen == 3 && reviewed == 2);
  antiphon_engine_free(engine);

  engine = open_staged("spoils", 1, 0);
  HOLDS(!answer(engine, "Hello", &error) && is_error(&error, -102, "after a stage"));
  antiphon_engine_free(engine);

  const char *unfit[] = {"keeps", "garbles"};
  for (int mood = 0; mood < 2; mood++) {
    engine = open_staged(unfit[mood], 0, 1);
    HOLDS(!answer(engine, "Hello", &error) && is_error(&error, -208, "kept"));
    HOLDS(chunks_of(engine, "Hello") == 0);
    antiphon_engine_free(engine);
  }

  engine = open_staged("leaves", 0, 1);
  text = answer(engine, "Hello", &error);
  HOLDS(text && strstr(text, "\"message\":\"Hello\""));
  free(text);
  antiphon_engine_free(engine);
  HOLDS(dropped == 5);
  return 0;
}
