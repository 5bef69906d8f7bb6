/* A host that is linked with the library loads two more copies of it, of which each has its own everything. The arguments are
 * their paths. */
#include "holds.h"
#include <dlfcn.h>

struct copy {
  void *file;
  int32_t (*open)(const char *, size_t, antiphon_plugins *, antiphon_engine **, antiphon_error **);
  int32_t (*analyze)(const antiphon_engine *, const char *, size_t, antiphon_analysis **, antiphon_error **);
  antiphon_text (*json)(const antiphon_analysis *);
  void (*free_analysis)(antiphon_analysis *);
  void (*free_engine)(antiphon_engine *);
  antiphon_engine *engine;
  antiphon_analysis *analysis;
};

/* ISO C has no cast from an object to a function. */
static void find(void *file, const char *name, void *into) {
  void *found = dlsym(file, name);
  HOLDS(found != NULL);
  memcpy(into, &found, sizeof found);
}

int main(int count, char **arguments) {
  struct copy copies[2];
  antiphon_engine *engine = open_parrot();
  antiphon_analysis *analysis = NULL;
  HOLDS(count == 3);
  alarm(60);
  for (int i = 0; i < 2; i++) {
    struct copy *copy = &copies[i];
    memset(copy, 0, sizeof *copy);
    HOLDS((copy->file = dlopen(arguments[1 + i], RTLD_NOW | RTLD_LOCAL)) != NULL);
    find(copy->file, "antiphon_engine_open", &copy->open);
    find(copy->file, "antiphon_analyze", &copy->analyze);
    find(copy->file, "antiphon_analysis_json", &copy->json);
    find(copy->file, "antiphon_analysis_free", &copy->free_analysis);
    find(copy->file, "antiphon_engine_free", &copy->free_engine);
    HOLDS(copy->open(NULL, 0, NULL, &copy->engine, NULL) == ANTIPHON_OK);
  }
  HOLDS(copies[0].open != copies[1].open && copies[0].open != antiphon_engine_open);
  HOLDS(antiphon_analyze(engine, "Where is order 4711?", 20, &analysis, NULL) == ANTIPHON_OK);
  for (int i = 0; i < 2; i++) {
    HOLDS(copies[i].analyze(copies[i].engine, "Where is order 4711?", 20, &copies[i].analysis, NULL) == ANTIPHON_OK);
    HOLDS(strcmp(copies[i].json(copies[i].analysis).ptr, antiphon_analysis_json(analysis).ptr) == 0);
  }
  /* One of them goes, its engine first; the others do not notice. */
  copies[0].free_analysis(copies[0].analysis);
  copies[0].free_engine(copies[0].engine);
  HOLDS(dlclose(copies[0].file) == 0);
  copies[1].free_analysis(copies[1].analysis);
  HOLDS(copies[1].analyze(copies[1].engine, "Hello", 5, &copies[1].analysis, NULL) == ANTIPHON_OK);
  copies[1].free_analysis(copies[1].analysis);
  copies[1].free_engine(copies[1].engine);
  antiphon_analysis_free(analysis);
  antiphon_engine_free(engine);
  printf("all held\n");
  return 0;
}
