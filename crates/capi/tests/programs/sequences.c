/* Calls in random order with random arguments: good ones, NULL, empty, not UTF-8, of the wrong size, of an engine that is closed
 * or freed. What has to hold is that nothing is read or written that is not ours, that nothing is lost, and that a status is one
 * of those in the header. The arguments are a seed and how many sequences of calls there are. */
#include "holds.h"

enum { SLOTS = 4, CALLS = 8 };

/* xorshift64*: the same sequences everywhere. */
static uint64_t state;
static uint32_t any(uint32_t below) {
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return (uint32_t)((state * 2685821657736338717u) >> 33) % below;
}

/* Handles, some of them NULL. Each slot is freed before it is filled again. */
static antiphon_engine *engines[SLOTS];
static antiphon_request *requests[SLOTS];
static antiphon_stream *streams[SLOTS];
static antiphon_canceller *cancellers[SLOTS];
static antiphon_conversation *conversations[SLOTS];
static antiphon_analysis *analyses[SLOTS];
static antiphon_reply *replies[SLOTS];
static antiphon_string *strings[SLOTS];
static antiphon_error *error;
static long drops, kept;

static const antiphon_text TEXTS[] = {
    {"Hello", 5}, {"Where is order 4711?", 20}, {"", 0}, {NULL, 0}, {NULL, 3}, {"\xff\xfe", 2}, {"\xe2\x82", 2},
    {"a\0b", 3}, {"{}", 2}, {"{", 1}, {"parrot", 6}, {"7", 1}, {"-1", 2}, {"null", 4}, {"user", 4}, {"Hello", SIZE_MAX},
};
static antiphon_text text(void) { return TEXTS[any(sizeof TEXTS / sizeof *TEXTS)]; }

static const char *KEYS[] = {"max_tokens", "cache", "model", "deadline_ms", "seed", "tenant_id", "history", "colour", "", "\xff", NULL};
static const char *key(void) { return KEYS[any(sizeof KEYS / sizeof *KEYS)]; }

static void dropped(void *user_data) { (void)user_data, __atomic_fetch_add(&drops, 1, __ATOMIC_RELAXED); }
static void wake(void *user_data) { (void)user_data; }
static int32_t each(const antiphon_event *event, void *user_data) {
  (void)user_data;
  return event->kind == ANTIPHON_EVENT_CHUNK && any(3) == 0 ? ANTIPHON_STOP : ANTIPHON_CONTINUE;
}

/* Every status is one that the header knows, and goes with an error where it has to. */
static int32_t checked(int32_t status) {
  HOLDS(status >= 0 ? status <= ANTIPHON_PENDING && error == NULL : antiphon_error_code(error) == status);
  HOLDS(status >= 0 || strcmp(antiphon_error_kind_name(status), "unknown") != 0);
  HOLDS(status != -901);
  if (any(4) == 0) HOLDS(antiphon_error_json(error).ptr != NULL && antiphon_error_hint(error).ptr != NULL);
  antiphon_error_free(error);
  error = NULL;
  return status;
}
static antiphon_error **place(void) { return &error; }

static void read_analysis(const antiphon_analysis *analysis) {
  antiphon_entity entity = {.struct_size = any(4) ? sizeof entity : any(sizeof entity)};
  HOLDS(antiphon_analysis_intent(analysis).ptr && antiphon_analysis_sentiment(analysis).ptr);
  HOLDS(antiphon_analysis_intent_confidence(analysis) <= 1 && antiphon_analysis_sentiment_confidence(analysis) <= 1);
  (void)antiphon_analysis_out_of_scope(analysis);
  (void)antiphon_analysis_entity(analysis, any(3) ? any(4) : SIZE_MAX, any(8) ? &entity : NULL);
  antiphon_text json = antiphon_analysis_json(analysis);
  HOLDS(antiphon_analysis_entity_count(analysis) < 100 && strlen(json.ptr) == json.len);
}

static void read_reply(const antiphon_reply *reply) {
  HOLDS(antiphon_reply_response(reply).ptr && antiphon_reply_finish_reason(reply).ptr);
  HOLDS(antiphon_reply_confidence(reply) <= 1 && antiphon_reply_json(reply).ptr);
  read_analysis(antiphon_reply_analysis(reply));
}

static void add_plugins(antiphon_plugins *plugins) {
  antiphon_generator generator = {.struct_size = sizeof generator, .name = "parrot", .generate = parrot, .drop = dropped};
  antiphon_observer observer = {.struct_size = any(8) ? sizeof observer : any(sizeof observer), .drop = dropped};
  antiphon_shared_tier tier = {.struct_size = sizeof tier, .drop = dropped}; /* its functions are missing */
  /* `drop` is called whatever comes of it, unless the size is wrong. */
  kept += 2 + (observer.struct_size == sizeof observer);
  HOLDS(checked(antiphon_plugins_add_generator(plugins, &generator, place())) == ANTIPHON_OK);
  checked(antiphon_plugins_add_observer(plugins, &observer, place()));
  HOLDS(checked(antiphon_plugins_set_shared_tier(plugins, &tier, place())) == -101);
}

static void change_engine(int at) {
  const char *config = any(4) ? "{\"responder\": null, \"threads\": 1}" : "{\"thread\": 1}";
  antiphon_plugins *plugins = any(4) ? antiphon_plugins_new() : NULL;
  if (plugins) add_plugins(plugins);
  if (any(8) == 0) {
    antiphon_plugins_free(plugins);
    return;
  }
  antiphon_engine_free(engines[at]);
  checked(antiphon_engine_open(config, strlen(config), plugins, &engines[at], place()));
}

static void change_request(int at) {
  antiphon_text chosen = text();
  switch (any(6)) {
    case 0:
      antiphon_request_free(requests[at]);
      checked(antiphon_request_new(chosen.ptr, chosen.len, &requests[at], place()));
      break;
    case 1:
      antiphon_request_free(requests[at]);
      requests[at] = ask("Where is order 4711?", "parrot");
      break;
    case 2:
      checked(antiphon_request_add_message(requests[at], any(4) ? "user" : key(), chosen.ptr, chosen.len, place()));
      break;
    case 3:
      HOLDS(antiphon_request_json(requests[at]).ptr != NULL);
      break;
    default:
      checked(antiphon_request_set(requests[at], key(), chosen.ptr, chosen.len, place()));
  }
}

static void ask_engine(int at, int with, int into) {
  antiphon_engine *engine = engines[at];
  antiphon_text chosen = text(), batch[3] = {text(), text(), text()}, options = any(2) ? (antiphon_text){NULL, 0} : text();
  antiphon_analysis *several[3];
  float vector[8];
  size_t dimension = 0;
  uint32_t choice = any(64);
  if (choice < 2) {
    antiphon_analysis_free(analyses[into]);
    checked(antiphon_analyze(engine, chosen.ptr, chosen.len, &analyses[into], place()));
  } else if (choice < 3) {
    size_t count = any(4);
    if (checked(antiphon_analyze_batch(engine, batch, count, several, place())) == ANTIPHON_OK)
      for (size_t i = 0; i < count; i++) antiphon_analysis_free(several[i]);
  } else if (choice < 4) {
    antiphon_reply_free(replies[into]);
    checked(antiphon_process(engine, requests[with], &replies[into], place()));
  } else if (choice < 5) {
    antiphon_string_free(strings[into]);
    checked(antiphon_summarize(engine, chosen.ptr, chosen.len, options.ptr, options.len, &strings[into], place()));
  } else if (choice < 6) {
    checked(antiphon_embed(engine, chosen.ptr, chosen.len, any(4) ? vector : NULL, any(8), any(8) ? &dimension : NULL, place()));
  } else if (choice < 7) {
    antiphon_reply_free(replies[into]);
    replies[into] = NULL;
    checked(antiphon_stream_each(engine, requests[with], any(8) ? each : NULL, NULL, any(2) ? &replies[into] : NULL, place()));
  } else if (choice < 24) {
    antiphon_reply_free(replies[into]);
    checked(antiphon_generate(engine, requests[with], &replies[into], place()));
  } else if (choice < 26) {
    checked(antiphon_cache_warm(engine, requests[with], place()));
  } else if (choice < 28) {
    checked(antiphon_cache_resize(engine, any(2) ? any(1 << 20) : UINT64_MAX >> any(64), place()));
  } else if (choice < 32) {
    checked(antiphon_cache_clear(engine, chosen.ptr, chosen.len, place()));
  } else if (choice < 52) {
    int32_t (*ask[])(const antiphon_engine *, antiphon_string **, antiphon_error **) = {
        antiphon_engine_health, antiphon_engine_models, antiphon_cache_stats, antiphon_engine_metrics};
    antiphon_string_free(strings[into]);
    checked(ask[any(4)](engine, &strings[into], place()));
  } else {
    read_analysis(analyses[into]);
    read_reply(replies[into]);
    HOLDS(antiphon_string_text(strings[into]).ptr != NULL);
    (void)antiphon_engine_ready(engine);
  }
}

static void stream(int at, int with, int into) {
  antiphon_event event = {.struct_size = any(16) ? sizeof event : any(sizeof event)};
  switch (any(12)) {
    case 0:
    case 1:
      antiphon_stream_free(streams[into]);
      checked(antiphon_stream_open(engines[at], requests[with], &streams[into], place()));
      break;
    case 2:
      antiphon_conversation_free(conversations[into]);
      checked(antiphon_conversation_new(engines[at], NULL, 0, &conversations[into], place()));
      break;
    case 3:
      antiphon_stream_free(streams[into]);
      checked(antiphon_conversation_say(conversations[at], requests[with], &streams[into], place()));
      break;
    case 4:
      antiphon_canceller_free(cancellers[into]);
      cancellers[into] = antiphon_stream_canceller(streams[at]);
      break;
    case 5:
      antiphon_canceller_cancel(cancellers[at]);
      break;
    case 6:
      kept += streams[into] != NULL;
      checked(antiphon_stream_set_waker(streams[into], wake, NULL, dropped, place()));
      break;
    default:
      if (checked(antiphon_stream_next(streams[into], any(4) ? -1 : (int)any(3), any(16) ? &event : NULL, place())) == ANTIPHON_OK) {
        HOLDS(event.text.ptr != NULL);
        read_analysis(event.analysis);
        if (event.reply) read_reply(event.reply);
      }
  }
}

/* A result of a call that failed is NULL, so every slot holds what may be freed. */
static void let_go(int at) {
  switch (any(9)) {
    case 0: antiphon_request_free(requests[at]), requests[at] = NULL; break;
    case 1: antiphon_stream_free(streams[at]), streams[at] = NULL; break;
    case 2: antiphon_canceller_free(cancellers[at]), cancellers[at] = NULL; break;
    case 3: antiphon_conversation_free(conversations[at]), conversations[at] = NULL; break;
    case 4: antiphon_analysis_free(analyses[at]), analyses[at] = NULL; break;
    case 5: antiphon_reply_free(replies[at]), replies[at] = NULL; break;
    case 6: antiphon_string_free(strings[at]), strings[at] = NULL; break;
    /* Of an engine that ends, streams and conversations are still there. */
    default:
      if (any(64)) break;
      if (any(2)) checked(antiphon_engine_close(engines[at], place()));
      else checked(antiphon_engine_drain(engines[at], any(20), place()));
  }
}

int main(int count, char **arguments) {
  HOLDS(count == 3);
  uint64_t seed = strtoull(arguments[1], NULL, 10);
  long sequences = atol(arguments[2]);
  alarm((unsigned)(sequences / 100 + 120)); /* a watchdog */
  for (long sequence = 0; sequence < sequences; sequence++) {
    state = (seed + (uint64_t)sequence) * 0x9e3779b97f4a7c15u + 1;
    if (sequence % 1024 == 0) change_engine((int)any(SLOTS));
    for (int call = 0; call < CALLS; call++) {
      int at = (int)any(SLOTS), with = (int)any(SLOTS), into = (int)any(SLOTS);
      uint32_t kind = any(16);
      if (kind < 4) change_request(with);
      else if (kind < 8) ask_engine(at, with, into);
      else if (kind < 14) stream(at, with, into);
      else let_go(at);
    }
  }
  for (int i = 0; i < SLOTS; i++) {
    antiphon_engine_free(engines[i]);
    antiphon_stream_free(streams[i]);
    antiphon_request_free(requests[i]);
    antiphon_canceller_free(cancellers[i]);
    antiphon_conversation_free(conversations[i]);
    antiphon_analysis_free(analyses[i]);
    antiphon_reply_free(replies[i]);
    antiphon_string_free(strings[i]);
  }
  for (int i = 0; i < 500 && __atomic_load_n(&drops, __ATOMIC_RELAXED) != kept; i++) usleep(10000);
  HOLDS(__atomic_load_n(&drops, __ATOMIC_RELAXED) == kept);
  printf("all held\n");
  return 0;
}
