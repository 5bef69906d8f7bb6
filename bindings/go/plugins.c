#include "shim.h"

#include "_cgo_export.h"

/* The library knows a plugin by a pointer, Go by a number: it never lends C a pointer of its own. */
static uintptr_t number(void *user_data) { return (uintptr_t)user_data; }

static void drop(void *user_data) { antiphonGoDrop(number(user_data)); }

static int32_t tier_get(void *user_data, const char *key, size_t key_len, antiphon_sink *sink) {
  return antiphonGoTierGet(number(user_data), (char *)key, key_len, sink);
}

static int32_t tier_put(void *user_data, const char *key, size_t key_len, const char *value, size_t value_len,
                        uint64_t ttl_ms) {
  return antiphonGoTierPut(number(user_data), (char *)key, key_len, (char *)value, value_len, ttl_ms);
}

static int32_t tier_remove(void *user_data, const char *key, size_t key_len) {
  return antiphonGoTierRemove(number(user_data), (char *)key, key_len);
}

static int32_t generate(void *user_data, const antiphon_request *request, antiphon_sink *sink) {
  return antiphonGoGenerate(number(user_data), (antiphon_request *)request, sink);
}

static int32_t before(void *user_data, antiphon_request *request) {
  return antiphonGoBefore(number(user_data), request);
}

static int32_t after(void *user_data, const antiphon_reply *reply, antiphon_sink *sink) {
  return antiphonGoAfter(number(user_data), (antiphon_reply *)reply, sink);
}

static void observer_log(void *user_data, int32_t level, antiphon_text target, antiphon_text message) {
  antiphonGoLog(number(user_data), level, target, message);
}

static void observer_event(void *user_data, antiphon_text name, antiphon_text json) {
  antiphonGoEvent(number(user_data), name, json);
}

antiphon_go_result antiphon_go_set_shared_tier(antiphon_plugins *plugins, uintptr_t plugin) {
  antiphon_go_result result = {0};
  antiphon_shared_tier tier = {.struct_size = sizeof tier, .user_data = (void *)plugin, .drop = drop};
  tier.get = tier_get;
  tier.put = tier_put;
  tier.remove = tier_remove;
  result.status = antiphon_plugins_set_shared_tier(plugins, &tier, &result.error);
  return result;
}

antiphon_go_result antiphon_go_add_generator(antiphon_plugins *plugins, const char *name, uintptr_t plugin) {
  antiphon_go_result result = {0};
  antiphon_generator generator = {.struct_size = sizeof generator, .user_data = (void *)plugin, .drop = drop};
  generator.name = name;
  generator.generate = generate;
  result.status = antiphon_plugins_add_generator(plugins, &generator, &result.error);
  return result;
}

antiphon_go_result antiphon_go_add_stage(antiphon_plugins *plugins, bool holds_back, uintptr_t plugin) {
  antiphon_go_result result = {0};
  antiphon_stage stage = {.struct_size = sizeof stage, .user_data = (void *)plugin, .drop = drop};
  stage.before = before;
  stage.after = holds_back ? after : NULL;
  result.status = antiphon_plugins_add_stage(plugins, &stage, &result.error);
  return result;
}

antiphon_go_result antiphon_go_add_observer(antiphon_plugins *plugins, uintptr_t plugin) {
  antiphon_go_result result = {0};
  antiphon_observer observer = {.struct_size = sizeof observer, .user_data = (void *)plugin, .drop = drop};
  observer.log = observer_log;
  observer.event = observer_event;
  result.status = antiphon_plugins_add_observer(plugins, &observer, &result.error);
  return result;
}
