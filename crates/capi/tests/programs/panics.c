/* A bug at every moment of every export, again and again: each is an error, or nothing where a function has none; what it was to
 * give stays NULL, what it was to free is free, and the next request is answered. The argument is how many bugs. */
#include "exports.inc"

/* Calls an export and has it panic at its n-th moment; 0 if it has fewer. */
static int panicked(const struct export *export, uint32_t moment) {
  refresh();
  antiphon_probe_panic_at(moment);
  int32_t code = export->call();
  int fired = antiphon_probe_panic_at(0) == 0;
  if (fired && export->fallible) {
    /* Where the panic was in making the error of a call that failed anyhow, that error is missing. */
    HOLDS(code == -901 ? antiphon_error_code(error) == -901 : code < 0 && error == NULL);
    HOLDS(!gave());
  }
  gave();
  antiphon_error_free(error);
  error = NULL;
  return fired;
}

int main(int count, char **arguments) {
  static uint32_t moments[COUNT];
  int wanted = count > 1 ? atoi(arguments[1]) : 1000, bugs = 0;
  antiphon_reply *reply = NULL;
  for (int round = 0; bugs < wanted; round++)
    for (int i = 0; i < COUNT; i++) {
      /* Opening takes its time. */
      int opens = strcmp(EXPORTS[i].name, "antiphon_engine_open") == 0 || strcmp(EXPORTS[i].name, "antiphon_engine_free") == 0;
      if (opens && round % 10 != 0) continue;
      if (round == 0)
        while (panicked(&EXPORTS[i], moments[i] + 1)) moments[i]++;
      else
        for (uint32_t moment = 1; moment <= moments[i]; moment++) HOLDS(panicked(&EXPORTS[i], moment));
      bugs += (int)moments[i];
      refresh();
      HOLDS(antiphon_generate(h.engine, h.request, &reply, NULL) == ANTIPHON_OK);
      antiphon_reply_free(reply);
    }
  /* Two functions return a constant. */
  for (int i = 0; i < COUNT; i++)
    HOLDS(moments[i] > 0 || strstr(EXPORTS[i].name, "version") != NULL);
  free_handles();
  printf("all held\n");
  return 0;
}
