/* What the test programs share: a line that has to hold, and an engine that answers at once. */
#ifndef HOLDS_H
#define HOLDS_H
#include <antiphon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOLDS(condition)                             \
  do                                                 \
    if (!(condition)) {                              \
      printf("line %d: %s\n", __LINE__, #condition); \
      fflush(stdout);                                \
      _exit(1);                                      \
    }                                                \
  while (0)

/* A model that says what it hears. */
static inline int32_t parrot(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data;
  antiphon_text json = antiphon_request_json(asked);
  for (size_t at = 0; at < json.len; at += 16)
    if (antiphon_sink_write(sink, json.ptr + at, json.len - at < 16 ? json.len - at : 16) != ANTIPHON_CONTINUE) break;
  return 0;
}

/* An engine that needs no decoder: its model is the parrot. */
static inline antiphon_engine *open_parrot(void) {
  const char *config = "{\"responder\": null, \"threads\": 1}";
  antiphon_engine *engine = NULL;
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "parrot", .generate = parrot};
  antiphon_plugins *plugins = antiphon_plugins_new();
  HOLDS(antiphon_plugins_add_generator(plugins, &generator, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_engine_open(config, strlen(config), plugins, &engine, NULL) == ANTIPHON_OK);
  return engine;
}

static inline void set(antiphon_request *request, const char *key, const char *value) {
  HOLDS(antiphon_request_set(request, key, value, strlen(value), NULL) == ANTIPHON_OK);
}

/* A request that no cache answers. */
static inline antiphon_request *ask(const char *text, const char *model) {
  antiphon_request *request = NULL;
  HOLDS(antiphon_request_new(text, strlen(text), &request, NULL) == ANTIPHON_OK);
  set(request, "cache", "bypass");
  if (model) set(request, "model", model);
  return request;
}

/* Whether an error has this number and says this; frees it. */
static inline int is_error(antiphon_error **error, int32_t code, const char *says) {
  int is = antiphon_error_code(*error) == code && strstr(antiphon_error_message(*error).ptr, says) != NULL;
  if (!is) printf("%d: %s\n", antiphon_error_code(*error), antiphon_error_message(*error).ptr);
  antiphon_error_free(*error);
  *error = NULL;
  return is;
}
#endif
