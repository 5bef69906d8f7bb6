/* Makes the calls that conformance.rs asks for, and says how each ended: a line `gives JSON` or `fails JSON`.
 *
 * A line of the input is a call and its arguments; a text is hexadecimal digits behind an `x`, and `-` stands for none.
 * What a request holds comes in lines before the call: `request MESSAGE`, `set KEY VALUE`, `turn ROLE CONTENT`. */
#include <antiphon.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_WORDS = 16, MOST_LEFT = 8, MOST_NUMBERS = 4096 };

/* What was opened. */
static antiphon_engine *engine;
static antiphon_request *request;
static antiphon_conversation *conversation;
static antiphon_stream *left[MOST_LEFT];
static size_t left_count;
/* Why the request cannot be made, if it cannot. */
static antiphon_error *refused;
/* Why the last call failed, if it did. */
static antiphon_error *error;
/* Generators that wait return at the end. */
static atomic_bool is_over;

/* ---- the script ---- */

static int value_of(char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; }

/* Decodes a text in its place. */
static antiphon_text text_of(char *word) {
  if (word[0] != 'x') return (antiphon_text){NULL, 0};
  size_t len = strlen(word + 1) / 2;
  for (size_t i = 0; i < len; i++) word[i] = (char)(value_of(word[1 + 2 * i]) << 4 | value_of(word[2 + 2 * i]));
  word[len] = 0;
  return (antiphon_text){word, len};
}

static long number_of(const char *word) { return strtol(word, NULL, 10); }

/* ---- the outcome ---- */

static void write_text(antiphon_text text) { fwrite(text.ptr, 1, text.len, stdout); }

static void write_quoted(antiphon_text text) {
  putchar('"');
  for (size_t i = 0; i < text.len; i++) {
    unsigned char byte = (unsigned char)text.ptr[i];
    if (byte == '"' || byte == '\\') printf("\\%c", byte);
    else if (byte < 0x20) printf("\\u%04x", byte);
    else putchar(byte);
  }
  putchar('"');
}

static void write_error(void) {
  write_text(antiphon_error_json(error));
  antiphon_error_free(error);
  error = NULL;
}

static bool failed(int32_t status) {
  if (status >= 0) return false;
  printf("fails ");
  write_error();
  putchar('\n');
  return true;
}

static void end(int32_t status, const char *gives) {
  if (!failed(status)) printf("gives %s\n", gives);
}

static void end_with_json(int32_t status, antiphon_text json) {
  if (failed(status)) return;
  printf("gives ");
  write_text(json);
  putchar('\n');
}

static void end_with_string(int32_t status, antiphon_string *string, void (*write)(antiphon_text)) {
  if (failed(status)) return;
  printf("gives ");
  write(antiphon_string_text(string));
  putchar('\n');
  antiphon_string_free(string);
}

static void write_done(const antiphon_reply *reply) {
  printf("{\"type\":\"done\",\"reply\":");
  write_text(antiphon_reply_json(reply));
  putchar('}');
}

static void write_event(const antiphon_event *event) {
  if (event->kind == ANTIPHON_EVENT_ANALYSIS) {
    printf("{\"type\":\"analysis\",\"analysis\":");
    write_text(antiphon_analysis_json(event->analysis));
    putchar('}');
  } else if (event->kind == ANTIPHON_EVENT_CHUNK) {
    printf("{\"type\":\"chunk\",\"content\":");
    write_quoted(event->text);
    printf(",\"index\":%llu}", (unsigned long long)event->index);
  } else {
    write_done(event->reply);
  }
}

static void write_error_event(void) {
  printf("{\"type\":\"error\",\"error\":");
  write_error();
  putchar('}');
}

/* ---- streams ---- */

/* Writes up to `most` events, all of them for -1. */
static void write_events(antiphon_stream *stream, long most, bool *is_first) {
  antiphon_event event = {.struct_size = sizeof event};
  for (; most != 0; most--) {
    int32_t status = antiphon_stream_next(stream, -1, &event, &error);
    if (status == ANTIPHON_DONE) return;
    if (!*is_first) putchar(',');
    *is_first = false;
    if (status < 0) {
      write_error_event();
      return;
    }
    write_event(&event);
  }
}

/* Reads a stream to its end (`-`), or leaves or cancels it after some events. */
static void read_stream(int32_t status, antiphon_stream *stream, const char *how, long after) {
  bool is_first = true;
  printf("gives [");
  if (status < 0) {
    write_error_event();
  } else if (strcmp(how, "leave_after") == 0) {
    write_events(stream, after, &is_first);
    left[left_count++] = stream;
    stream = NULL;
  } else {
    if (strcmp(how, "cancel_after") == 0) {
      write_events(stream, after, &is_first);
      antiphon_canceller *canceller = antiphon_stream_canceller(stream);
      antiphon_canceller_cancel(canceller);
      antiphon_canceller_free(canceller);
    }
    write_events(stream, -1, &is_first);
  }
  printf("]\n");
  antiphon_stream_free(stream);
}

static int32_t count_down(const antiphon_event *event, void *user_data) {
  (void)event;
  return --*(long *)user_data == 0 ? ANTIPHON_STOP : ANTIPHON_CONTINUE;
}

static void push_stream(long stop_after) {
  antiphon_reply *reply = NULL;
  int32_t status = antiphon_stream_each(engine, request, count_down, &stop_after, &reply, &error);
  printf("gives [");
  if (status < 0) write_error_event();
  else write_done(reply);
  printf("]\n");
  antiphon_reply_free(reply);
}

/* ---- generators ---- */

/* Unescapes the JSON string at the beginning of `json`, its quotation mark left out. */
static size_t unescape(const char *json, char *out) {
  size_t len = 0;
  for (; *json != '"'; json++) {
    char byte = *json;
    if (byte == '\\') {
      const char *names = "\"\\/bfnrt", *bytes = "\"\\/\b\f\n\r\t", *name = strchr(names, *++json);
      if (name != NULL) byte = bytes[name - names];
      else byte = (char)(value_of(json[3]) << 4 | value_of(json[4])), json += 4; /* u00XX: all else stands as it is */
    }
    out[len++] = byte;
  }
  return len;
}

static int32_t parrot_generate(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  static const char head[] = "{\"message\":\"";
  (void)user_data;
  antiphon_text json = antiphon_request_json(asked);
  char *message = malloc(json.len);
  size_t len = unescape(json.ptr + sizeof head - 1, message), start = 0;
  for (size_t at = 0; at < len; at++) {
    if (message[at] != ' ' && at + 1 < len) continue;
    if (antiphon_sink_write(sink, message + start, at + 1 - start) == ANTIPHON_STOP) break;
    start = at + 1;
  }
  free(message);
  return 0;
}

static int32_t mute_generate(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked, (void)sink;
  return -1;
}

static int32_t breaks_off_generate(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked;
  antiphon_sink_write(sink, "one ", 4);
  return -1;
}

static int32_t broods_generate(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  (void)user_data, (void)asked, (void)sink;
  while (!is_over) usleep(5000);
  return 0;
}

static int32_t stalls_generate(void *user_data, const antiphon_request *asked, antiphon_sink *sink) {
  antiphon_sink_write(sink, "one ", 4);
  return broods_generate(user_data, asked, sink);
}

static const antiphon_generator generators[] = {
    {.struct_size = sizeof(antiphon_generator), .name = "parrot", .generate = parrot_generate},
    {.struct_size = sizeof(antiphon_generator), .name = "mute", .generate = mute_generate},
    {.struct_size = sizeof(antiphon_generator), .name = "breaks_off", .generate = breaks_off_generate},
    {.struct_size = sizeof(antiphon_generator), .name = "stalls", .generate = stalls_generate},
    {.struct_size = sizeof(antiphon_generator), .name = "broods", .generate = broods_generate},
};

/* ---- requests ---- */

/* The first refusal counts. */
static void refuse(int32_t status) {
  if (status < 0 && refused == NULL) refused = error;
  else antiphon_error_free(error);
  error = NULL;
}

/* Takes a line that is part of a request; false for any other. */
static bool build(char **words) {
  if (strcmp(words[0], "request") == 0) {
    antiphon_text message = text_of(words[1]);
    antiphon_request_free(request);
    antiphon_error_free(refused);
    request = NULL, refused = NULL;
    refuse(antiphon_request_new(message.ptr, message.len, &request, &error));
  } else if (strcmp(words[0], "set") == 0) {
    antiphon_text value = text_of(words[2]);
    refuse(antiphon_request_set(request, words[1], value.ptr, value.len, &error));
  } else if (strcmp(words[0], "turn") == 0) {
    antiphon_text content = text_of(words[2]);
    refuse(antiphon_request_add_message(request, words[1], content.ptr, content.len, &error));
  } else {
    return false;
  }
  return true;
}

/* ---- calls, each with the words behind its name ---- */

static void open_engine(char **words) {
  antiphon_plugins *plugins = antiphon_plugins_new();
  for (char **name = words + 1; strcmp(*name, "-") != 0; name++)
    for (size_t i = 0; i < sizeof generators / sizeof *generators; i++)
      if (strcmp(*name, generators[i].name) == 0) antiphon_plugins_add_generator(plugins, &generators[i], NULL);
  antiphon_text config = text_of(words[0]);
  end(antiphon_engine_open(config.ptr, config.len, plugins, &engine, &error), "null");
}

static void analyze(char **words) {
  antiphon_text text = text_of(words[0]);
  antiphon_analysis *analysis = NULL;
  int32_t status = antiphon_analyze(engine, text.ptr, text.len, &analysis, &error);
  end_with_json(status, antiphon_analysis_json(analysis));
  antiphon_analysis_free(analysis);
}

static void analyze_batch(char **words) {
  antiphon_text texts[MOST_WORDS];
  antiphon_analysis *analyses[MOST_WORDS] = {NULL};
  size_t count = 0;
  for (; strcmp(words[count], "-") != 0; count++) texts[count] = text_of(words[count]);
  if (failed(antiphon_analyze_batch(engine, texts, count, analyses, &error))) return;
  printf("gives [");
  for (size_t i = 0; i < count; i++) {
    if (i > 0) putchar(',');
    write_text(antiphon_analysis_json(analyses[i]));
    antiphon_analysis_free(analyses[i]);
  }
  printf("]\n");
}

static void process(char **words) {
  (void)words;
  antiphon_reply *reply = NULL;
  int32_t status = antiphon_process(engine, request, &reply, &error);
  end_with_json(status, antiphon_reply_json(reply));
  antiphon_reply_free(reply);
}

static void generate(char **words) {
  (void)words;
  antiphon_reply *reply = NULL;
  int32_t status = antiphon_generate(engine, request, &reply, &error);
  end_with_json(status, antiphon_reply_json(reply));
  antiphon_reply_free(reply);
}

static void stream(char **words) {
  antiphon_stream *stream = NULL;
  if (strcmp(words[0], "stop_after") == 0) {
    push_stream(number_of(words[1]));
    return;
  }
  int32_t status = antiphon_stream_open(engine, request, &stream, &error);
  read_stream(status, stream, words[0], number_of(words[1]));
}

static void say(char **words) {
  antiphon_stream *stream = NULL;
  int32_t status = antiphon_conversation_say(conversation, request, &stream, &error);
  read_stream(status, stream, words[0], number_of(words[1]));
}

static void read_on(char **words) { read_stream(ANTIPHON_OK, left[--left_count], words[0], 0); }

static void summarize(char **words) {
  antiphon_text text = text_of(words[0]), options = text_of(words[1]);
  antiphon_string *summary = NULL;
  int32_t status = antiphon_summarize(engine, text.ptr, text.len, options.ptr, options.len, &summary, &error);
  end_with_string(status, summary, write_quoted);
}

static void embed(char **words) {
  static float vector[MOST_NUMBERS];
  antiphon_text text = text_of(words[0]);
  size_t dimension = 0;
  if (failed(antiphon_embed(engine, text.ptr, text.len, vector, MOST_NUMBERS, &dimension, &error))) return;
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < dimension; i++) {
    uint32_t bits;
    memcpy(&bits, &vector[i], sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (bits >> shift & 0xff)) * 0x100000001b3;
  }
  printf("gives {\"dimension\":%zu,\"fnv1a\":\"%016llx\"}\n", dimension, (unsigned long long)hash);
}

static void converse(char **words) {
  antiphon_text options = text_of(words[0]);
  antiphon_conversation_free(conversation);
  end(antiphon_conversation_new(engine, options.ptr, options.len, &conversation, &error), "null");
}

static void cache_clear(char **words) {
  antiphon_text tenant = text_of(words[0]);
  end(antiphon_cache_clear(engine, tenant.ptr, tenant.len, &error), "null");
}

static void cache_resize(char **words) {
  end(antiphon_cache_resize(engine, (uint64_t)number_of(words[0]), &error), "null");
}

static void cache_warm(char **words) {
  (void)words;
  end(antiphon_cache_warm(engine, request, &error), "null");
}

static void describe(int32_t (*how)(const antiphon_engine *, antiphon_string **, antiphon_error **)) {
  antiphon_string *json = NULL;
  int32_t status = how(engine, &json, &error);
  end_with_string(status, json, write_text);
}

static void cache_stats(char **words) { (void)words, describe(antiphon_cache_stats); }
static void models(char **words) { (void)words, describe(antiphon_engine_models); }
static void health(char **words) { (void)words, describe(antiphon_engine_health); }

static void ready(char **words) {
  (void)words;
  end(ANTIPHON_OK, antiphon_engine_ready(engine) ? "true" : "false");
}

static void drain(char **words) {
  end(antiphon_engine_drain(engine, (uint64_t)number_of(words[0]), &error), "null");
}

static void close_engine(char **words) {
  (void)words;
  end(antiphon_engine_close(engine, &error), "null");
}

/* What is asked for, and whether a request or a stream is part of it. */
static const struct call {
  const char *name;
  void (*make)(char **words);
  bool takes_request, is_stream;
} calls[] = {
    {"open", open_engine, false, false},
    {"analyze", analyze, false, false},
    {"analyze_batch", analyze_batch, false, false},
    {"process", process, true, false},
    {"generate", generate, true, false},
    {"stream", stream, true, true},
    {"say", say, true, true},
    {"read", read_on, false, true},
    {"summarize", summarize, false, false},
    {"embed", embed, false, false},
    {"conversation", converse, false, false},
    {"cache_stats", cache_stats, false, false},
    {"cache_clear", cache_clear, false, false},
    {"cache_resize", cache_resize, false, false},
    {"cache_warm", cache_warm, true, false},
    {"models", models, false, false},
    {"health", health, false, false},
    {"ready", ready, false, false},
    {"drain", drain, false, false},
    {"close", close_engine, false, false},
};

static void make(char **words) {
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    const struct call *call = &calls[i];
    if (strcmp(words[0], call->name) != 0) continue;
    if (!call->takes_request || refused == NULL) {
      call->make(words + 1);
      return;
    }
    error = refused, refused = NULL;
    if (call->is_stream) read_stream(antiphon_error_code(error), NULL, "-", 0);
    else failed(antiphon_error_code(error));
    return;
  }
  printf("no such call\n");
}

int main(void) {
  char *line = NULL, none[] = "-";
  size_t capacity = 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  while (getline(&line, &capacity, stdin) > 0) {
    char *words[MOST_WORDS + 2], *word = strtok(line, " \n");
    for (int i = 0; i < MOST_WORDS + 2; i++, word = word == NULL ? NULL : strtok(NULL, " \n"))
      words[i] = word == NULL ? none : word;
    if (!build(words)) make(words);
  }
  free(line);
  is_over = true;
  while (left_count > 0) antiphon_stream_free(left[--left_count]);
  antiphon_conversation_free(conversation);
  antiphon_request_free(request);
  antiphon_error_free(refused);
  antiphon_engine_free(engine);
  return 0;
}
