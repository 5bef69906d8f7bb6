/* Every pointer of every export in turn is NULL, all else being good: an error that names it, or nothing happens. */
#include "exports.inc"

static int refusals;

static void check(const char *export, const char *parameter, int fallible, int32_t code) {
  if (fallible && code < 0 && strcmp(parameter, "error") != 0) {
    const char *message = antiphon_error_message(error).ptr;
    int named = code == -101 && strncmp(message, parameter, strlen(parameter)) == 0 && strstr(message, " is NULL") != NULL;
    if (!named) printf("%s, %s: %d, %s\n", export, parameter, code, message);
    HOLDS(named && !gave());
    refusals++;
  }
  gave();
  antiphon_error_free(error);
  error = NULL;
}

#include "nulls.inc"

int main(void) {
  (void)EXPORTS; /* those calls are good ones */
  each_null();
  HOLDS(refusals > 60);
  free_handles();
  printf("all held\n");
  return 0;
}
