/* Every handle of every export in turn is of another type, was freed, or never was one: an error that names it, and where a
 * function has none, nothing. */
#include "exports.inc"

static void refuses(const struct export *export, int which, void *stranger, const char *says) {
  refresh();
  void *kept = *export->handles[which].place, **place = export->handles[which].place;
  *place = stranger;
  int32_t code = export->call();
  *place = kept;
  if (export->fallible) {
    const char *message = antiphon_error_message(error).ptr;
    if (code != -101 || strstr(message, says) == NULL) printf("%s, %s: %d, %s\n", export->name, export->handles[which].name, code, message);
    HOLDS(code == -101 && strstr(message, says) != NULL && strncmp(message, export->handles[which].name, strlen(export->handles[which].name)) == 0);
  }
  HOLDS(!gave());
  antiphon_error_free(error);
  error = NULL;
}

int main(void) {
  refresh();
  gone = h;
  free_handles();
  for (int i = 0; i < COUNT; i++)
    for (int which = 0; EXPORTS[i].handles[which].name; which++) {
      int is_string = strcmp(EXPORTS[i].handles[which].name, "string") == 0;
      refresh();
      refuses(&EXPORTS[i], which, is_string ? (void *)h.error : (void *)h.string, is_string ? "is an antiphon_error" : "is an antiphon_string");
      refuses(&EXPORTS[i], which, *EXPORTS[i].handles[which].gone, "was freed");
      refuses(&EXPORTS[i], which, (void *)0x1235, "points to nothing");
    }
  free_handles();
  printf("all held\n");
  return 0;
}
