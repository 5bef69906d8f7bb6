/* Antiphon: conversational AI inside of your process.
 *
 *     antiphon_engine *engine = NULL;
 *     antiphon_request *request = NULL;
 *     antiphon_reply *reply = NULL;
 *     antiphon_error *error = NULL;
 *     if (antiphon_engine_open(NULL, 0, NULL, &engine, &error) == ANTIPHON_OK &&
 *         antiphon_request_new("Where is order 4711?", 20, &request, &error) == ANTIPHON_OK &&
 *         antiphon_process(engine, request, &reply, &error) == ANTIPHON_OK)
 *       printf("%s\n", antiphon_reply_response(reply).ptr);
 *     else
 *       fprintf(stderr, "%s\n", antiphon_error_message(error).ptr);
 *     antiphon_error_free(error);
 *     antiphon_reply_free(reply);
 *     antiphon_request_free(request);
 *     antiphon_engine_free(engine);
 *
 * Status    A call that can fail returns 0 (ANTIPHON_OK), positive news, or the negative number of an error; its last argument
 *           gets an error object to be freed, or NULL. NULL may be given for it. Where a call fails, its result is NULL.
 * Ownership What a function's `out` gives is freed by the function that its comment names, in any order, NULL included;
 *           what is returned in another way is lent. Using a handle after it was freed is undefined.
 * NULL      A NULL handle is the error -101 (invalid_argument); getters give empty text, 0 or false for it.
 * Threads   A handle that a function takes as `const` may be used by any number of threads at once, another one by one
 *           at a time.
 * Text      UTF-8, always with its length. No error and no log holds the text of a user.
 * Callbacks They return: no longjmp, exception or pthread_exit may leave one, which is undefined. antiphon_stream_next needs none.
 * Process   The library touches no signal, locale, or standard stream. After fork() a child opens an engine of its own:
 *           its parent's gives -108 (forked).
 *
 * Errors, by antiphon_error_kind_name
 *   -101 invalid_argument   -102 invalid_text        -103 input_too_long      -104 context_full
 *   -105 unknown_model      -106 invalid_config      -107 closed              -108 forked
 *   -109 quota_exceeded     -201 model_not_found     -202 model_invalid       -203 integrity_mismatch
 *   -204 unsupported_model  -205 io                  -206 out_of_budget       -207 hub_unavailable
 *   -208 plugin_failed      -301 overloaded          -302 deadline_exceeded   -303 cancelled
 *   -305 backend_unavailable                         -901 internal
 */

#ifndef ANTIPHON_H
#define ANTIPHON_H

/* Made from crates/capi/src by crates/capi/tests/it/header.rs: not to be edited. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// The version of this interface. Within one version names and fields are only added.
#define ANTIPHON_ABI_VERSION 1

// The call did what it says.
#define ANTIPHON_OK 0

// A stream has ended.
#define ANTIPHON_DONE 1

// Nothing came within the time.
#define ANTIPHON_PENDING 2

// What a callback returns to go on,
#define ANTIPHON_CONTINUE 0

// and to stop.
#define ANTIPHON_STOP 1

// What the message means; before the first chunk.
#define ANTIPHON_EVENT_ANALYSIS 1

// A piece of the answer.
#define ANTIPHON_EVENT_CHUNK 2

// The whole reply; the last event.
#define ANTIPHON_EVENT_DONE 3

// What a message means.
typedef struct antiphon_analysis antiphon_analysis;

// Cancels a stream, from any thread at any time. It may live longer than the stream.
typedef struct antiphon_canceller antiphon_canceller;

// A conversation: each answer knows the turns before it. One thread at a time.
typedef struct antiphon_conversation antiphon_conversation;

// An engine with its models. Any number of threads may use it at once.
typedef struct antiphon_engine antiphon_engine;

// Why a call failed. Owned by the caller; it holds no text of a user.
typedef struct antiphon_error antiphon_error;

// What a host puts into an engine. antiphon_engine_open takes it.
typedef struct antiphon_plugins antiphon_plugins;

// An answer with all that is known about it.
typedef struct antiphon_reply antiphon_reply;

// A message with its options. One thread at a time; a call that takes it as `const` copies what it needs.
typedef struct antiphon_request antiphon_request;

// Where a plugin writes its bytes; lent during its call, for its thread alone.
typedef struct antiphon_sink antiphon_sink;

// An answer as it comes. One thread at a time; another one cancels it through its canceller.
typedef struct antiphon_stream antiphon_stream;

// Text that the caller owns: JSON, or what Prometheus reads.
typedef struct antiphon_string antiphon_string;

// Text that is lent: UTF-8, with a NUL behind its end that `len` does not count. Empty text has a `ptr`, too.
// It lives as long as the handle it came from, or as its function says.
typedef struct antiphon_text {
  const char *ptr;
  size_t len;
} antiphon_text;

// Something that a message names. Set `struct_size` to sizeof before a call fills it in.
typedef struct antiphon_entity {
  uint32_t struct_size;
  // What it is ("order_id", "person", ...): `type` in JSON.
  struct antiphon_text type;
  struct antiphon_text value;
  // Where it is in the message, in bytes.
  size_t start;
  size_t end;
  double confidence;
} antiphon_entity;

// One step of a stream. Set `struct_size` to sizeof before a call fills it in. What it points to is lent: until the next call
// on the stream, or until the callback returns.
typedef struct antiphon_event {
  uint32_t struct_size;
  // ANTIPHON_EVENT_ANALYSIS, ANTIPHON_EVENT_CHUNK or ANTIPHON_EVENT_DONE; later versions may have more.
  int32_t kind;
  // Of a chunk, else empty; ends with a whole character.
  struct antiphon_text text;
  // Of a chunk: its number, from 0.
  uint64_t index;
  // Of the analysis event, else NULL.
  const struct antiphon_analysis *analysis;
  // Of the done event, else NULL.
  const struct antiphon_reply *reply;
} antiphon_event;

// Says that a stream can be read. It must not block, nor call this library.
typedef void (*antiphon_wake_fn)(void *user_data);

// Called once, when the library lets go of `user_data`; on any thread. May be NULL.
typedef void (*antiphon_drop_fn)(void *user_data);

// Gets an event: ANTIPHON_CONTINUE or ANTIPHON_STOP.
typedef int32_t (*antiphon_event_fn)(const struct antiphon_event *event, void *user_data);

// A cache tier that engines share. Called from threads of the engine, a few at once, never from one that computes. A request
// waits for `get` at most 20 ms. Set `struct_size` to sizeof; the functions are all needed but `drop`.
typedef struct antiphon_shared_tier {
  uint32_t struct_size;
  void *user_data;
  // Writes the value of a key: 0 found, 1 not there, negative failed.
  int32_t (*get)(void *user_data, const char *key, size_t key_len, struct antiphon_sink *sink);
  // Keeps a value for about `ttl_ms`, in place of an older one: 0, or negative where it failed.
  int32_t (*put)(void *user_data, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t ttl_ms);
  // Forgets a key; one that is not there is no failure: 0, or negative where it failed.
  int32_t (*remove)(void *user_data, const char *key, size_t key_len);
  antiphon_drop_fn drop;
} antiphon_shared_tier;

// A model of the host's own. Called from threads of the engine, as many at once as run; it may block.
typedef struct antiphon_generator {
  uint32_t struct_size;
  void *user_data;
  // What the option `model` calls it; copied.
  const char *name;
  // Writes the answer in UTF-8 pieces as they come: 0, or negative where it failed. antiphon_request_json says what is asked,
  // the last turn being `message`.
  int32_t (*generate)(void *user_data, const struct antiphon_request *request, struct antiphon_sink *sink);
  antiphon_drop_fn drop;
} antiphon_generator;

// Someone who looks at every request before it is answered, and at every answer before it is told: moderation, redaction,
// enrichment. Requests meet stages in the order in which they were added, answers in the opposite one. Either function may be
// NULL. One that fails ends the request with "plugin_failed" (-208), and nothing of the answer is told.
typedef struct antiphon_stage {
  uint32_t struct_size;
  void *user_data;
  // Looks at a request and may set its keys, "message" among them: 0, or negative to refuse it. Of a request to
  // antiphon_generate the message is the last turn. Called on the thread that asks, before its call returns.
  int32_t (*before)(void *user_data, struct antiphon_request *request);
  // Looks at an answer and writes another in its place, in UTF-8, or nothing: 0, or negative where it must not be told.
  // A stage that has this function holds answers back until it has seen them whole. Called from threads of the engine, as
  // many at once as run; it may block, but not ask for an answer.
  int32_t (*after)(void *user_data, const struct antiphon_reply *reply, struct antiphon_sink *sink);
  antiphon_drop_fn drop;
} antiphon_stage;

// Someone who is told what happens. Called on the thread on which it happens: it must not block, nor call the engine. Either
// function may be NULL.
typedef struct antiphon_observer {
  uint32_t struct_size;
  void *user_data;
  // A line for a log; `level` is 1 error, 2 warning, 3 information, 4 debugging.
  void (*log)(void *user_data, int32_t level, struct antiphon_text target, struct antiphon_text message);
  // Something that happened, with its numbers as a JSON object.
  void (*event)(void *user_data, struct antiphon_text name, struct antiphon_text json);
  antiphon_drop_fn drop;
} antiphon_observer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as "0.1.0".
const char *antiphon_version(void);

// The version of the interface that the library has: a host compares it with ANTIPHON_ABI_VERSION.
uint32_t antiphon_abi_version(void);

// The number of the failure, which every call returned, too; 0 for NULL.
int32_t antiphon_error_code(const struct antiphon_error *error);

// What happened: the thing, its value and what was expected. Lent until the error is freed.
struct antiphon_text antiphon_error_message(const struct antiphon_error *error);

// What to do about it. Lent until the error is freed.
struct antiphon_text antiphon_error_hint(const struct antiphon_error *error);

// All of it as a JSON object. Lent until the error is freed.
struct antiphon_text antiphon_error_json(const struct antiphon_error *error);

// Whether the same call can succeed later.
bool antiphon_error_retryable(const struct antiphon_error *error);

// After how many milliseconds to try again; -1 where that is not known.
int64_t antiphon_error_retry_after_ms(const struct antiphon_error *error);

// Frees an error; NULL is fine.
void antiphon_error_free(struct antiphon_error *error);

// The name of an error's number, such as "invalid_text" for -102: for ever, no need to free it. "unknown" for others.
const char *antiphon_error_kind_name(int32_t code);

// The text of an owned string, lent until it is freed.
struct antiphon_text antiphon_string_text(const struct antiphon_string *string);

// Frees an owned string; NULL is fine.
void antiphon_string_free(struct antiphon_string *string);

// Opens an engine. The configuration is a JSON object; NULL and 0 are the defaults, with the models inside of the library.
// `plugins` may be NULL; they are taken, even if this fails. Freed with antiphon_engine_free.
int32_t antiphon_engine_open(const char *config_json,
                             size_t len,
                             struct antiphon_plugins *plugins,
                             struct antiphon_engine **out,
                             struct antiphon_error **error);

// Takes no new requests and waits until those under way have ended, at most so long; then closes.
int32_t antiphon_engine_drain(const struct antiphon_engine *engine, uint64_t timeout_ms, struct antiphon_error **error);

// Ends everything: new calls and running work end with -107. Calling it again does nothing.
int32_t antiphon_engine_close(const struct antiphon_engine *engine, struct antiphon_error **error);

// Closes the engine and frees this handle; NULL is fine. Streams and conversations may be freed later.
void antiphon_engine_free(struct antiphon_engine *engine);

// What a text means. Freed with antiphon_analysis_free.
int32_t antiphon_analyze(const struct antiphon_engine *engine,
                         const char *text,
                         size_t len,
                         struct antiphon_analysis **out,
                         struct antiphon_error **error);

// What `count` texts mean, in as few passes as they fit in, into `count` places. One bad text fails the call, which names its
// index; all places are NULL then.
int32_t antiphon_analyze_batch(const struct antiphon_engine *engine,
                               const struct antiphon_text *texts,
                               size_t count,
                               struct antiphon_analysis **out,
                               struct antiphon_error **error);

// Understands and answers a message. Freed with antiphon_reply_free.
int32_t antiphon_process(const struct antiphon_engine *engine,
                         const struct antiphon_request *request,
                         struct antiphon_reply **out,
                         struct antiphon_error **error);

// Continues the turns of a request, without analysis. Freed with antiphon_reply_free.
int32_t antiphon_generate(const struct antiphon_engine *engine,
                          const struct antiphon_request *request,
                          struct antiphon_reply **out,
                          struct antiphon_error **error);

// A summary of a text or a dialogue of any length. The options are a JSON object; NULL and 0 are the defaults. Freed with
// antiphon_string_free.
int32_t antiphon_summarize(const struct antiphon_engine *engine,
                           const char *text,
                           size_t len,
                           const char *options_json,
                           size_t options_len,
                           struct antiphon_string **out,
                           struct antiphon_error **error);

// The vector of a text: unit length, near in meaning is near in angle. `*dimension` says how many numbers it has, also where
// `capacity` is 0 and only that is asked.
int32_t antiphon_embed(const struct antiphon_engine *engine,
                       const char *text,
                       size_t len,
                       float *out,
                       size_t capacity,
                       size_t *dimension,
                       struct antiphon_error **error);

// Whether the engine takes requests.
bool antiphon_engine_ready(const struct antiphon_engine *engine);

// How the engine is, as a JSON object. Freed with antiphon_string_free, like all that follow.
int32_t antiphon_engine_health(const struct antiphon_engine *engine, struct antiphon_string **out, struct antiphon_error **error);

// Tests every part and says what to do about what failed, as a JSON object. Each responder writes a few tokens.
int32_t antiphon_engine_diagnose(const struct antiphon_engine *engine,
                                 struct antiphon_string **out,
                                 struct antiphon_error **error);

// The models that are loaded, as a JSON list.
int32_t antiphon_engine_models(const struct antiphon_engine *engine, struct antiphon_string **out, struct antiphon_error **error);

// What the engine counted and what it holds, as the text that Prometheus reads.
int32_t antiphon_engine_metrics(const struct antiphon_engine *engine,
                                struct antiphon_string **out,
                                struct antiphon_error **error);

// What the response cache holds and how it has served, as a JSON object.
int32_t antiphon_cache_stats(const struct antiphon_engine *engine, struct antiphon_string **out, struct antiphon_error **error);

// Forgets the answers of a tenant; of all where `tenant` is NULL.
int32_t antiphon_cache_clear(const struct antiphon_engine *engine, const char *tenant, size_t len, struct antiphon_error **error);

// Sets the bound on the bytes of the response cache; 0 switches it off.
int32_t antiphon_cache_resize(const struct antiphon_engine *engine, uint64_t max_bytes, struct antiphon_error **error);

// Answers a request ahead of its time, so that an equal one is a hit: at low priority, and not at all when the answer is there.
int32_t antiphon_cache_warm(const struct antiphon_engine *engine,
                            const struct antiphon_request *request,
                            struct antiphon_error **error);

// A request: for `antiphon_generate`, which can do without a message, it may be empty. Freed with antiphon_request_free.
int32_t antiphon_request_new(const char *message, size_t len, struct antiphon_request **out, struct antiphon_error **error);

// Sets one key of the request or of its options. Text as it stands for `tenant_id`, `user_id`, `conversation_id`, `priority`
// ("low", "normal", "high"), `cache` ("use", "refresh", "bypass"), `overflow` ("error", "truncate_oldest") and `model`; JSON
// for all others: `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`, `seed`, `stop`, `deadline_ms`, `context`,
// `message` (for a stage that changes it), ...
int32_t antiphon_request_set(struct antiphon_request *request,
                             const char *key,
                             const char *value,
                             size_t len,
                             struct antiphon_error **error);

// Adds a turn, `role` being "system", "user" or "assistant": an earlier one for `antiphon_process`; for `antiphon_generate`
// one to continue, the request's message, if there is one, being the last of the user's.
int32_t antiphon_request_add_message(struct antiphon_request *request,
                                     const char *role,
                                     const char *content,
                                     size_t len,
                                     struct antiphon_error **error);

// The request as a JSON object: what a generator reads. Lent until the request is changed or freed.
struct antiphon_text antiphon_request_json(const struct antiphon_request *request);

// Frees a request; NULL is fine. Answers that were asked for with it go on.
void antiphon_request_free(struct antiphon_request *request);

// What the user wants: a label, or "out_of_scope". Lent like all texts of an analysis: until it is freed.
struct antiphon_text antiphon_analysis_intent(const struct antiphon_analysis *analysis);

// How sure that is, from 0 to 1, calibrated.
double antiphon_analysis_intent_confidence(const struct antiphon_analysis *analysis);

// Whether no known intent is likely enough.
bool antiphon_analysis_out_of_scope(const struct antiphon_analysis *analysis);

// "negative", "neutral" or "positive".
struct antiphon_text antiphon_analysis_sentiment(const struct antiphon_analysis *analysis);

// How likely that is, from 0 to 1.
double antiphon_analysis_sentiment_confidence(const struct antiphon_analysis *analysis);

// How many things the message names.
size_t antiphon_analysis_entity_count(const struct antiphon_analysis *analysis);

// One of them, from 0, in the order of the message. False where there is no such one, or `out->struct_size` is too small.
bool antiphon_analysis_entity(const struct antiphon_analysis *analysis, size_t index, struct antiphon_entity *out);

// All of it as a JSON object; places of entities are code points there.
struct antiphon_text antiphon_analysis_json(const struct antiphon_analysis *analysis);

// Frees an analysis that was handed out for good; NULL is fine. One that an event or a reply lends is not freed.
void antiphon_analysis_free(struct antiphon_analysis *analysis);

// The answer. Lent like all texts of a reply: until it is freed.
struct antiphon_text antiphon_reply_response(const struct antiphon_reply *reply);

// Why it ended: "stop", "length", "cancelled" or "deadline".
struct antiphon_text antiphon_reply_finish_reason(const struct antiphon_reply *reply);

// How sure the intent is, from 0 to 1; 0 for `antiphon_generate`, which analyses nothing.
double antiphon_reply_confidence(const struct antiphon_reply *reply);

// What the message means, lent until the reply is freed; NULL for `antiphon_generate`.
const struct antiphon_analysis *antiphon_reply_analysis(const struct antiphon_reply *reply);

// All of it as a JSON object, in the shape that hosts of the chat platform serve.
struct antiphon_text antiphon_reply_json(const struct antiphon_reply *reply);

// Frees a reply that was handed out for good; NULL is fine. One that an event lends is not freed.
void antiphon_reply_free(struct antiphon_reply *reply);

// Understands and answers a message, as it comes. Returns at once. Freed with antiphon_stream_free.
int32_t antiphon_stream_open(const struct antiphon_engine *engine,
                             const struct antiphon_request *request,
                             struct antiphon_stream **out,
                             struct antiphon_error **error);

// Waits for the next event: -1 without limit, 0 not at all. ANTIPHON_OK with an event, ANTIPHON_PENDING when none came in time,
// ANTIPHON_DONE after the last one; a failure is the last event, too.
int32_t antiphon_stream_next(struct antiphon_stream *stream,
                             int64_t timeout_ms,
                             struct antiphon_event *event,
                             struct antiphon_error **error);

// Has `wake` called when the stream can be read, for event loops: once from here, and then once for each time that
// antiphon_stream_next returned ANTIPHON_PENDING, on a thread of the engine. `drop` is called when the stream is freed or gets another waker; neither is called after that.
int32_t antiphon_stream_set_waker(struct antiphon_stream *stream,
                                  antiphon_wake_fn wake,
                                  void *user_data,
                                  antiphon_drop_fn drop,
                                  struct antiphon_error **error);

// A handle that cancels the stream; NULL for NULL. Freed with antiphon_canceller_free.
struct antiphon_canceller *antiphon_stream_canceller(const struct antiphon_stream *stream);

// Ends the stream with the error -303: when this returns, the next read is that error.
void antiphon_canceller_cancel(const struct antiphon_canceller *canceller);

// Frees a canceller; NULL is fine. It cancels nothing.
void antiphon_canceller_free(struct antiphon_canceller *canceller);

// Frees a stream, and cancels what still runs; NULL is fine.
void antiphon_stream_free(struct antiphon_stream *stream);

// Understands and answers a message, calling `fn` with every event on this thread. If it returns ANTIPHON_STOP the work ends,
// it is not called again, and the reply has what there was, its finish reason being "cancelled". `out` may be NULL.
int32_t antiphon_stream_each(const struct antiphon_engine *engine,
                             const struct antiphon_request *request,
                             antiphon_event_fn fn,
                             void *user_data,
                             struct antiphon_reply **out,
                             struct antiphon_error **error);

// A conversation. The options are a JSON object (`tenant_id`, `user_id`, `conversation_id`, `history`); NULL and 0 are the
// defaults. Freed with antiphon_conversation_free.
int32_t antiphon_conversation_new(const struct antiphon_engine *engine,
                                  const char *options_json,
                                  size_t len,
                                  struct antiphon_conversation **out,
                                  struct antiphon_error **error);

// Says something; the answer comes as a stream. The answer before has to be read to its end, or its stream be freed.
int32_t antiphon_conversation_say(struct antiphon_conversation *conversation,
                                  const struct antiphon_request *request,
                                  struct antiphon_stream **out,
                                  struct antiphon_error **error);

// Frees a conversation; NULL is fine. Its streams go on.
void antiphon_conversation_free(struct antiphon_conversation *conversation);

// Writes bytes: ANTIPHON_CONTINUE, or ANTIPHON_STOP when no more are wanted.
int32_t antiphon_sink_write(struct antiphon_sink *sink, const char *bytes, size_t len);

// No plugins yet. Freed with antiphon_plugins_free, unless an engine takes them.
struct antiphon_plugins *antiphon_plugins_new(void);

// Frees plugins that no engine took; NULL is fine.
void antiphon_plugins_free(struct antiphon_plugins *plugins);

// Sets the cache tier that engines share. The struct is copied; its `drop` is called in the end, even if this call
// fails for another reason than its size.
int32_t antiphon_plugins_set_shared_tier(struct antiphon_plugins *plugins,
                                         const struct antiphon_shared_tier *tier,
                                         struct antiphon_error **error);

// Adds a model of the host's own; else as antiphon_plugins_set_shared_tier.
int32_t antiphon_plugins_add_generator(struct antiphon_plugins *plugins,
                                       const struct antiphon_generator *generator,
                                       struct antiphon_error **error);

// Adds someone who looks at requests and answers; else as antiphon_plugins_set_shared_tier.
int32_t antiphon_plugins_add_stage(struct antiphon_plugins *plugins,
                                   const struct antiphon_stage *stage,
                                   struct antiphon_error **error);

// Adds someone who is told what happens; else as antiphon_plugins_set_shared_tier.
int32_t antiphon_plugins_add_observer(struct antiphon_plugins *plugins,
                                      const struct antiphon_observer *observer,
                                      struct antiphon_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ANTIPHON_H */
