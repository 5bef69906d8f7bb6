/* An event loop: one thread, one pipe, eight answers at once. The engine writes a byte into the pipe when a stream can be read.
 *
 *     cc stream.c -I ../../../include -L ../../../target/release -lantiphon -o stream && ./stream */
#include <antiphon.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { STREAMS = 8 };

struct job {
  antiphon_stream *stream;
  int pipe, index, tokens, done;
};

/* On a thread of the engine: no more than to say which one. */
static void wake(void *user_data) {
  struct job *job = user_data;
  char index = (char)job->index;
  if (write(job->pipe, &index, 1) != 1) perror("write");
}

/* Reads what there is; 0, or the status of an error. */
static int read_on(struct job *job, antiphon_error **error) {
  antiphon_event event = {.struct_size = sizeof event};
  int status;
  while ((status = antiphon_stream_next(job->stream, 0, &event, error)) == ANTIPHON_OK)
    job->tokens += event.kind == ANTIPHON_EVENT_CHUNK;
  job->done = status == ANTIPHON_DONE;
  return status < 0 ? status : 0;
}

int main(void) {
  antiphon_engine *engine = NULL;
  antiphon_error *error = NULL;
  struct job jobs[STREAMS] = {{0}};
  int ends[2], running = 0;
  int status = antiphon_engine_open(NULL, 0, NULL, &engine, &error);
  if (pipe(ends) != 0) return 1;

  for (int i = 0; status == ANTIPHON_OK && i < STREAMS; i++) {
    char text[64];
    antiphon_request *request = NULL;
    int length = snprintf(text, sizeof text, "Where is order %d?", 4711 + i);
    jobs[i] = (struct job){.pipe = ends[1], .index = i};
    status = antiphon_request_new(text, (size_t)length, &request, &error);
    if (status == ANTIPHON_OK) status = antiphon_request_set(request, "max_tokens", "48", 2, &error);
    if (status == ANTIPHON_OK) status = antiphon_stream_open(engine, request, &jobs[i].stream, &error);
    if (status == ANTIPHON_OK) status = antiphon_stream_set_waker(jobs[i].stream, wake, &jobs[i], NULL, &error);
    running += status == ANTIPHON_OK;
    antiphon_request_free(request);
  }
  while (status == ANTIPHON_OK && running > 0) {
    struct pollfd wait = {.fd = ends[0], .events = POLLIN};
    char index;
    if (poll(&wait, 1, 60000) != 1 || read(ends[0], &index, 1) != 1) return 1;
    if (jobs[(int)index].done) continue;
    status = read_on(&jobs[(int)index], &error);
    running -= jobs[(int)index].done;
  }
  for (int i = 0; i < STREAMS; i++) {
    printf("answer %d came in %d pieces\n", i, jobs[i].tokens);
    antiphon_stream_free(jobs[i].stream);
  }
  antiphon_engine_free(engine);
  if (status != ANTIPHON_OK) fprintf(stderr, "%s\n", antiphon_error_message(error).ptr);
  antiphon_error_free(error);
  return status == ANTIPHON_OK ? 0 : 1;
}
