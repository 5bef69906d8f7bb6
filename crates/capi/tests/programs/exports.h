/* One of everything, for calls that `tests/it/exports.rs` writes. */
#include "holds.h"

extern uint32_t antiphon_probe_panic_at(uint32_t moment);

static struct handles {
  antiphon_engine *engine;
  antiphon_request *request;
  antiphon_plugins *plugins;
  antiphon_stream *stream;
  antiphon_canceller *canceller;
  antiphon_conversation *conversation;
  antiphon_analysis *analysis;
  antiphon_reply *reply;
  antiphon_string *string;
  antiphon_error *error;
  antiphon_sink *sink; /* lent to plugins alone */
} h, gone;

/* Places for results, as many as the largest export fills. */
static struct results {
  antiphon_engine *engine[2];
  antiphon_request *request[2];
  antiphon_stream *stream[2];
  antiphon_conversation *conversation[2];
  antiphon_analysis *analysis[2];
  antiphon_reply *reply[2];
  antiphon_string *string[2];
} out;

static float vector[4096];
static size_t dimension;
static antiphon_text texts[2] = {{"Hello", 5}, {"Where is order 4711?", 20}};
static antiphon_error *error;

static int32_t get(void *user_data, const char *key, size_t len, antiphon_sink *sink) {
  return (void)user_data, (void)key, (void)len, (void)sink, 1;
}
static int32_t put(void *user_data, const char *key, size_t len, const char *value, size_t value_len, uint64_t ttl_ms) {
  return (void)user_data, (void)key, (void)len, (void)value, (void)value_len, (void)ttl_ms, 0;
}
static int32_t forget(void *user_data, const char *key, size_t len) { return (void)user_data, (void)key, (void)len, 0; }
static antiphon_shared_tier plain_shared_tier = {.struct_size = sizeof plain_shared_tier, .get = get, .put = put, .remove = forget};
static antiphon_generator plain_generator = {.struct_size = sizeof plain_generator, .name = "other", .generate = parrot};

static void wake(void *user_data) { (void)user_data; }
static int32_t each(const antiphon_event *event, void *user_data) { return (void)event, (void)user_data, ANTIPHON_CONTINUE; }

/* Makes what is missing. What calls use alone is always new, because a panic may have been inside of it. */
static void refresh(void) {
  if (h.engine && !antiphon_engine_ready(h.engine)) antiphon_engine_free(h.engine), h.engine = NULL;
  if (!h.engine) h.engine = open_parrot();
  antiphon_request_free(h.request);
  antiphon_plugins_free(h.plugins);
  antiphon_stream_free(h.stream);
  antiphon_conversation_free(h.conversation);
  h.request = ask("Hello", "parrot");
  h.plugins = antiphon_plugins_new();
  HOLDS(antiphon_stream_open(h.engine, h.request, &h.stream, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_conversation_new(h.engine, NULL, 0, &h.conversation, NULL) == ANTIPHON_OK);
  if (!h.canceller) h.canceller = antiphon_stream_canceller(h.stream);
  if (!h.analysis) HOLDS(antiphon_analyze(h.engine, "Hello", 5, &h.analysis, NULL) == ANTIPHON_OK);
  if (!h.reply) HOLDS(antiphon_process(h.engine, h.request, &h.reply, NULL) == ANTIPHON_OK);
  if (!h.string) HOLDS(antiphon_engine_models(h.engine, &h.string, NULL) == ANTIPHON_OK);
  if (!h.error) HOLDS(antiphon_analyze(h.engine, "\xff", 1, &out.analysis[0], &h.error) == -102);
}

static void free_handles(void) {
  antiphon_request_free(h.request);
  antiphon_plugins_free(h.plugins);
  antiphon_engine_free(h.engine);
  antiphon_stream_free(h.stream);
  antiphon_conversation_free(h.conversation);
  antiphon_canceller_free(h.canceller);
  antiphon_analysis_free(h.analysis);
  antiphon_reply_free(h.reply);
  antiphon_string_free(h.string);
  antiphon_error_free(h.error);
  h = (struct handles){NULL};
}

/* Whether a call gave anything; frees it. */
static int gave(void) {
  int any = 0;
  for (int i = 0; i < 2; i++) {
    any |= out.engine[i] || out.request[i] || out.stream[i] || out.conversation[i] || out.analysis[i] || out.reply[i] || out.string[i];
    antiphon_engine_free(out.engine[i]);
    antiphon_request_free(out.request[i]);
    antiphon_stream_free(out.stream[i]);
    antiphon_conversation_free(out.conversation[i]);
    antiphon_analysis_free(out.analysis[i]);
    antiphon_reply_free(out.reply[i]);
    antiphon_string_free(out.string[i]);
  }
  memset(&out, 0, sizeof out);
  return any;
}
static inline void touch(antiphon_text text) { HOLDS(text.ptr != NULL && text.ptr[text.len] == 0); }
