#include "shim.h"

/* Whether this thread is in a call of Go's, and what a callback threw in it. A panic must not unwind frames of the library, so
 * it waits here until the call has returned. */
static _Thread_local int depth;
static _Thread_local uintptr_t kept;

static uintptr_t leave(void) {
  uintptr_t thrown = 0;
  if (--depth == 0) {
    thrown = kept;
    kept = 0;
  }
  return thrown;
}

bool antiphon_go_throw(uintptr_t thrown) {
  if (depth == 0 || kept != 0) return false;
  kept = thrown;
  return true;
}

#define CALL(kind, call)            \
  antiphon_go_result result = {0};  \
  kind *out = NULL;                 \
  antiphon_error *error = NULL;     \
  depth++;                          \
  result.status = call;             \
  result.thrown = leave();          \
  result.out = out;                 \
  result.error = error;             \
  return result

antiphon_go_result antiphon_go_engine_open(const char *config, size_t len, antiphon_plugins *plugins) {
  CALL(antiphon_engine, antiphon_engine_open(config, len, plugins, &out, &error));
}

antiphon_go_result antiphon_go_engine_drain(const antiphon_engine *engine, uint64_t timeout_ms) {
  CALL(void, antiphon_engine_drain(engine, timeout_ms, &error));
}

antiphon_go_result antiphon_go_engine_close(const antiphon_engine *engine) {
  CALL(void, antiphon_engine_close(engine, &error));
}

antiphon_go_result antiphon_go_analyze(const antiphon_engine *engine, const char *text, size_t len) {
  CALL(antiphon_analysis, antiphon_analyze(engine, text, len, &out, &error));
}

antiphon_go_result antiphon_go_analyze_batch(const antiphon_engine *engine, const antiphon_text *texts, size_t count,
                                             antiphon_analysis **analyses) {
  CALL(void, antiphon_analyze_batch(engine, texts, count, analyses, &error));
}

antiphon_go_result antiphon_go_generate(const antiphon_engine *engine, const antiphon_request *request) {
  CALL(antiphon_reply, antiphon_generate(engine, request, &out, &error));
}

antiphon_go_result antiphon_go_summarize(const antiphon_engine *engine, const char *text, size_t len, const char *options,
                                         size_t options_len) {
  CALL(antiphon_string, antiphon_summarize(engine, text, len, options, options_len, &out, &error));
}

antiphon_go_result antiphon_go_embed(const antiphon_engine *engine, const char *text, size_t len, float *vector,
                                     size_t capacity, size_t *dimension) {
  CALL(void, antiphon_embed(engine, text, len, vector, capacity, dimension, &error));
}

antiphon_go_result antiphon_go_health(const antiphon_engine *engine) {
  CALL(antiphon_string, antiphon_engine_health(engine, &out, &error));
}

antiphon_go_result antiphon_go_diagnose(const antiphon_engine *engine) {
  CALL(antiphon_string, antiphon_engine_diagnose(engine, &out, &error));
}

antiphon_go_result antiphon_go_models(const antiphon_engine *engine) {
  CALL(antiphon_string, antiphon_engine_models(engine, &out, &error));
}

antiphon_go_result antiphon_go_metrics(const antiphon_engine *engine) {
  CALL(antiphon_string, antiphon_engine_metrics(engine, &out, &error));
}

antiphon_go_result antiphon_go_cache_stats(const antiphon_engine *engine) {
  CALL(antiphon_string, antiphon_cache_stats(engine, &out, &error));
}

antiphon_go_result antiphon_go_cache_clear(const antiphon_engine *engine, const char *tenant, size_t len) {
  CALL(void, antiphon_cache_clear(engine, tenant, len, &error));
}

antiphon_go_result antiphon_go_cache_resize(const antiphon_engine *engine, uint64_t max_bytes) {
  CALL(void, antiphon_cache_resize(engine, max_bytes, &error));
}

antiphon_go_result antiphon_go_cache_warm(const antiphon_engine *engine, const antiphon_request *request) {
  CALL(void, antiphon_cache_warm(engine, request, &error));
}

antiphon_go_result antiphon_go_request_new(const char *message, size_t len) {
  CALL(antiphon_request, antiphon_request_new(message, len, &out, &error));
}

antiphon_go_result antiphon_go_request_set(antiphon_request *request, const char *key, const char *value, size_t len) {
  CALL(void, antiphon_request_set(request, key, value, len, &error));
}

antiphon_go_result antiphon_go_request_add_message(antiphon_request *request, const char *role, const char *content,
                                                   size_t len) {
  CALL(void, antiphon_request_add_message(request, role, content, len, &error));
}

antiphon_go_result antiphon_go_stream_open(const antiphon_engine *engine, const antiphon_request *request) {
  CALL(antiphon_stream, antiphon_stream_open(engine, request, &out, &error));
}

antiphon_go_result antiphon_go_conversation_new(const antiphon_engine *engine, const char *options, size_t len) {
  CALL(antiphon_conversation, antiphon_conversation_new(engine, options, len, &out, &error));
}

antiphon_go_result antiphon_go_conversation_say(antiphon_conversation *conversation, const antiphon_request *request) {
  CALL(antiphon_stream, antiphon_conversation_say(conversation, request, &out, &error));
}

antiphon_go_step antiphon_go_stream_next(antiphon_stream *stream) {
  antiphon_go_step step = {0};
  antiphon_event event = {.struct_size = sizeof event};
  depth++;
  step.result.status = antiphon_stream_next(stream, 0, &event, &step.result.error);
  step.result.thrown = leave();
  if (step.result.status == ANTIPHON_OK) {
    step.kind = event.kind;
    step.text = event.text;
    step.index = event.index;
    step.analysis = event.analysis;
    step.reply = event.reply;
  }
  return step;
}

void antiphon_go_spans(const antiphon_analysis *analysis, size_t *spans, size_t count) {
  for (size_t i = 0; i < count; i++) {
    antiphon_entity entity = {.struct_size = sizeof entity};
    if (!antiphon_analysis_entity(analysis, i, &entity)) break;
    spans[2 * i] = entity.start;
    spans[2 * i + 1] = entity.end;
  }
}
