/* A cache tier of one's own, which two engines share: what the first one answered, the second one need not compute.
 *
 *     cc own_cache.c -I ../../../include -L ../../../target/release -lantiphon -lpthread -o own_cache && ./own_cache */
#include <antiphon.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A real one would talk to a server; this one is a list. */
struct entry {
  struct entry *next;
  char *key, *value;
  size_t key_len, value_len;
};
static struct entry *entries;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int puts_seen;

static struct entry **find(const char *key, size_t len) {
  struct entry **at = &entries;
  while (*at && ((*at)->key_len != len || memcmp((*at)->key, key, len) != 0)) at = &(*at)->next;
  return at;
}

static char *copy(const char *bytes, size_t len) {
  char *copied = malloc(len + 1);
  if (copied) memcpy(copied, bytes, len);
  return copied;
}

static int32_t forget(void *user_data, const char *key, size_t len) {
  (void)user_data;
  pthread_mutex_lock(&lock);
  struct entry **at = find(key, len), *gone = *at;
  if (gone) {
    *at = gone->next;
    free(gone->key);
    free(gone->value);
    free(gone);
  }
  pthread_mutex_unlock(&lock);
  return 0;
}

static int32_t put(void *user_data, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t ttl_ms) {
  (void)ttl_ms;
  forget(user_data, key, key_len);
  struct entry *entry = malloc(sizeof *entry);
  if (!entry) return -1;
  *entry = (struct entry){.key = copy(key, key_len), .value = copy(value, value_len), .key_len = key_len, .value_len = value_len};
  pthread_mutex_lock(&lock);
  entry->next = entries;
  entries = entry;
  puts_seen++;
  pthread_mutex_unlock(&lock);
  return 0;
}

static int32_t get(void *user_data, const char *key, size_t len, antiphon_sink *sink) {
  (void)user_data;
  pthread_mutex_lock(&lock);
  struct entry *found = *find(key, len);
  if (found) antiphon_sink_write(sink, found->value, found->value_len);
  pthread_mutex_unlock(&lock);
  return found ? 0 : 1;
}

static int kept(void) {
  pthread_mutex_lock(&lock);
  int count = puts_seen;
  pthread_mutex_unlock(&lock);
  return count;
}

/* Asks with an engine of its own, and says where the answer came from. */
static int ask(antiphon_error **error) {
  const char *message = "What are your opening hours?";
  antiphon_shared_tier tier = {.struct_size = sizeof tier, .get = get, .put = put, .remove = forget};
  antiphon_plugins *plugins = antiphon_plugins_new();
  antiphon_engine *engine = NULL;
  antiphon_request *request = NULL;
  antiphon_reply *reply = NULL;
  int before = kept();
  int status = antiphon_plugins_set_shared_tier(plugins, &tier, error);
  if (status == ANTIPHON_OK)
    status = antiphon_engine_open(NULL, 0, plugins, &engine, error);
  else
    antiphon_plugins_free(plugins);
  if (status == ANTIPHON_OK) status = antiphon_request_new(message, strlen(message), &request, error);
  if (status == ANTIPHON_OK) status = antiphon_process(engine, request, &reply, error);
  if (status == ANTIPHON_OK) {
    const char *cache = strstr(antiphon_reply_json(reply).ptr, "\"cache\":\"");
    printf("%.*s: %s\n", cache ? (int)strcspn(cache + 9, "\"") : 0, cache ? cache + 9 : "", antiphon_reply_response(reply).ptr);
    /* It is kept after it was answered. */
    for (int i = 0; i < 500 && before == 0 && kept() == 0; i++) usleep(10000);
  }
  antiphon_reply_free(reply);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  return status;
}

int main(void) {
  antiphon_error *error = NULL;
  int status = ask(&error);
  if (status == ANTIPHON_OK) status = ask(&error);
  if (status != ANTIPHON_OK) fprintf(stderr, "%s\n", antiphon_error_message(error).ptr);
  antiphon_error_free(error);
  while (entries) forget(NULL, entries->key, entries->key_len);
  return status == ANTIPHON_OK ? 0 : 1;
}
