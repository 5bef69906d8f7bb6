/* Signals in their thousands while answers are written: they reach the host's threads alone, break no wait, and change nothing.
 * The library's threads block all of them. */
#define _GNU_SOURCE
#include "holds.h"
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>

static atomic_int handled, strangers, ended;
static _Atomic pid_t ours[2];

static void handler(int signal) {
  pid_t thread = (pid_t)syscall(SYS_gettid);
  (void)signal;
  atomic_fetch_add(&handled, 1);
  if (thread != ours[0] && thread != ours[1]) atomic_fetch_add(&strangers, 1);
}

static void *storm(void *unused) {
  ours[1] = (pid_t)syscall(SYS_gettid);
  while (!atomic_load(&ended)) kill(getpid(), SIGINT), kill(getpid(), SIGPIPE), usleep(200);
  return unused;
}

/* All of 1 to 31 but the two that nobody can block. */
static int blocks_all(const char *thread) {
  char path[64], line[256];
  unsigned long long mask = 0, all = 0x7ffbfeff;
  snprintf(path, sizeof path, "/proc/self/task/%.16s/status", thread);
  FILE *file = fopen(path, "r");
  HOLDS(file != NULL);
  while (fgets(line, sizeof line, file)) sscanf(line, "SigBlk: %llx", &mask);
  fclose(file);
  return (mask & all) == all;
}

int main(void) {
  struct sigaction action = {.sa_handler = handler}, kept; /* no SA_RESTART: system calls break off */
  int signals[] = {SIGALRM, SIGINT, SIGPIPE};
  struct itimerval every_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
  antiphon_engine *engine = NULL;
  antiphon_reply *reply = NULL;
  antiphon_error *error = NULL;
  char *expected = NULL;
  pthread_t thread;
  antiphon_request *request = ask("Where is order 4711?", NULL);
  set(request, "max_tokens", "48");
  ours[0] = (pid_t)syscall(SYS_gettid);
  HOLDS(antiphon_engine_open(NULL, 0, NULL, &engine, NULL) == ANTIPHON_OK);
  HOLDS(antiphon_process(engine, request, &reply, NULL) == ANTIPHON_OK);
  expected = strdup(antiphon_reply_response(reply).ptr);
  antiphon_reply_free(reply);

  int others = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *task; (task = readdir(tasks));)
    if (task->d_name[0] != '.' && atoi(task->d_name) != ours[0]) {
      others++;
      HOLDS(blocks_all(task->d_name));
    }
  closedir(tasks);
  HOLDS(others > 0);

  for (int i = 0; i < 3; i++) HOLDS(sigaction(signals[i], &action, NULL) == 0);
  HOLDS(pthread_create(&thread, NULL, storm, NULL) == 0);
  while (!atomic_load(&ours[1])) usleep(100);
  setitimer(ITIMER_REAL, &every_ms, NULL);
  for (int i = 0; i < 10 || atomic_load(&handled) < 1000; i++) {
    HOLDS(antiphon_process(engine, request, &reply, &error) == ANTIPHON_OK);
    HOLDS(strcmp(antiphon_reply_response(reply).ptr, expected) == 0);
    antiphon_reply_free(reply);
    HOLDS(antiphon_engine_ready(engine));
  }
  setitimer(ITIMER_REAL, &never, NULL);
  atomic_store(&ended, 1);
  pthread_join(thread, NULL);
  for (int i = 0; i < 3; i++) HOLDS(sigaction(signals[i], NULL, &kept) == 0 && kept.sa_handler == handler);
  HOLDS(atomic_load(&strangers) == 0);
  antiphon_request_free(request);
  antiphon_engine_free(engine);
  free(expected);
  printf("all held\n");
  return 0;
}
