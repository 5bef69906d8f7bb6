/* What stands between Go and antiphon.h: results by value, so that nothing of Go's escapes; a queue of streams that can be
 * read; callbacks that know their plugin by a number. */
#ifndef ANTIPHON_GO_SHIM_H
#define ANTIPHON_GO_SHIM_H

#include <antiphon.h>

/* How a call ended. `thrown` is what a callback on this thread threw, or 0. */
typedef struct antiphon_go_result {
  int32_t status;
  void *out;
  antiphon_error *error;
  uintptr_t thrown;
} antiphon_go_result;

/* One step of a stream. What it points to is lent until the next one. */
typedef struct antiphon_go_step {
  antiphon_go_result result;
  int32_t kind;
  antiphon_text text;
  uint64_t index;
  const antiphon_analysis *analysis;
  const antiphon_reply *reply;
} antiphon_go_step;

/* calls.c */
antiphon_go_result antiphon_go_engine_open(const char *config, size_t len, antiphon_plugins *plugins);
antiphon_go_result antiphon_go_engine_drain(const antiphon_engine *engine, uint64_t timeout_ms);
antiphon_go_result antiphon_go_engine_close(const antiphon_engine *engine);
antiphon_go_result antiphon_go_analyze(const antiphon_engine *engine, const char *text, size_t len);
antiphon_go_result antiphon_go_analyze_batch(const antiphon_engine *engine, const antiphon_text *texts, size_t count,
                                             antiphon_analysis **out);
antiphon_go_result antiphon_go_generate(const antiphon_engine *engine, const antiphon_request *request);
antiphon_go_result antiphon_go_summarize(const antiphon_engine *engine, const char *text, size_t len, const char *options,
                                         size_t options_len);
antiphon_go_result antiphon_go_embed(const antiphon_engine *engine, const char *text, size_t len, float *out,
                                     size_t capacity, size_t *dimension);
antiphon_go_result antiphon_go_health(const antiphon_engine *engine);
antiphon_go_result antiphon_go_diagnose(const antiphon_engine *engine);
antiphon_go_result antiphon_go_models(const antiphon_engine *engine);
antiphon_go_result antiphon_go_metrics(const antiphon_engine *engine);
antiphon_go_result antiphon_go_cache_stats(const antiphon_engine *engine);
antiphon_go_result antiphon_go_cache_clear(const antiphon_engine *engine, const char *tenant, size_t len);
antiphon_go_result antiphon_go_cache_resize(const antiphon_engine *engine, uint64_t max_bytes);
antiphon_go_result antiphon_go_cache_warm(const antiphon_engine *engine, const antiphon_request *request);
antiphon_go_result antiphon_go_request_new(const char *message, size_t len);
antiphon_go_result antiphon_go_request_set(antiphon_request *request, const char *key, const char *value, size_t len);
antiphon_go_result antiphon_go_request_add_message(antiphon_request *request, const char *role, const char *content,
                                                   size_t len);
antiphon_go_result antiphon_go_stream_open(const antiphon_engine *engine, const antiphon_request *request);
antiphon_go_result antiphon_go_conversation_new(const antiphon_engine *engine, const char *options, size_t len);
antiphon_go_result antiphon_go_conversation_say(antiphon_conversation *conversation, const antiphon_request *request);
antiphon_go_step antiphon_go_stream_next(antiphon_stream *stream);
/* Where the things are that an analysis names: start and end of each, in bytes. */
void antiphon_go_spans(const antiphon_analysis *analysis, size_t *spans, size_t count);
/* Keeps what a callback threw for the call that it runs in; false where that is none of Go's. */
bool antiphon_go_throw(uintptr_t thrown);

/* queue.c */
typedef struct antiphon_go_queue antiphon_go_queue;
/* The streams that can be read, for one reader. */
antiphon_go_queue *antiphon_go_queue_new(void);
/* Has the stream come into the queue, as `id`, whenever it can be read. */
antiphon_go_result antiphon_go_queue_watch(antiphon_go_queue *queue, antiphon_stream *stream, uint64_t id);
/* Waits until there are some, and takes at most `capacity` of them. */
size_t antiphon_go_queue_take(antiphon_go_queue *queue, uint64_t *ids, size_t capacity);
/* Once no stream is watched any more. */
void antiphon_go_queue_free(antiphon_go_queue *queue);

/* plugins.c: `plugin` is a cgo.Handle, which the last callback deletes. */
antiphon_go_result antiphon_go_set_shared_tier(antiphon_plugins *plugins, uintptr_t plugin);
antiphon_go_result antiphon_go_add_generator(antiphon_plugins *plugins, const char *name, uintptr_t plugin);
/* One that does not hold answers back is not asked about them. */
antiphon_go_result antiphon_go_add_stage(antiphon_plugins *plugins, bool holds_back, uintptr_t plugin);
antiphon_go_result antiphon_go_add_observer(antiphon_plugins *plugins, uintptr_t plugin);

#endif
