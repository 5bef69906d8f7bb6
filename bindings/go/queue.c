#include "shim.h"

#include <pthread.h>
#include <stdlib.h>

/* A stream that is watched. It is in the queue at most once, so that waking never allocates. */
typedef struct watch {
  antiphon_go_queue *queue;
  struct watch *before, *after;
  uint64_t id;
  bool queued;
} watch;

struct antiphon_go_queue {
  pthread_mutex_t lock;
  pthread_cond_t filled;
  watch *first, *last;
};

antiphon_go_queue *antiphon_go_queue_new(void) {
  antiphon_go_queue *queue = calloc(1, sizeof *queue);
  if (!queue) abort();
  pthread_mutex_init(&queue->lock, NULL);
  pthread_cond_init(&queue->filled, NULL);
  return queue;
}

void antiphon_go_queue_free(antiphon_go_queue *queue) {
  pthread_cond_destroy(&queue->filled);
  pthread_mutex_destroy(&queue->lock);
  free(queue);
}

static void unlink_watch(watch *gone) {
  antiphon_go_queue *queue = gone->queue;
  *(gone->before ? &gone->before->after : &queue->first) = gone->after;
  *(gone->after ? &gone->after->before : &queue->last) = gone->before;
  gone->before = gone->after = NULL;
  gone->queued = false;
}

/* On a thread of the engine. The lock is held for a few instructions by everyone. */
static void wake(void *user_data) {
  watch *awake = user_data;
  antiphon_go_queue *queue = awake->queue;
  pthread_mutex_lock(&queue->lock);
  if (!awake->queued) {
    awake->queued = true;
    awake->before = queue->last;
    *(queue->last ? &queue->last->after : &queue->first) = awake;
    queue->last = awake;
  }
  pthread_mutex_unlock(&queue->lock);
  pthread_cond_signal(&queue->filled);
}

static void forget(void *user_data) {
  watch *gone = user_data;
  pthread_mutex_lock(&gone->queue->lock);
  if (gone->queued) unlink_watch(gone);
  pthread_mutex_unlock(&gone->queue->lock);
  free(gone);
}

antiphon_go_result antiphon_go_queue_watch(antiphon_go_queue *queue, antiphon_stream *stream, uint64_t id) {
  antiphon_go_result result = {0};
  watch *watched = calloc(1, sizeof *watched);
  if (!watched) abort();
  watched->queue = queue;
  watched->id = id;
  result.status = antiphon_stream_set_waker(stream, wake, watched, forget, &result.error);
  return result;
}

size_t antiphon_go_queue_take(antiphon_go_queue *queue, uint64_t *ids, size_t capacity) {
  size_t count = 0;
  pthread_mutex_lock(&queue->lock);
  while (!queue->first) pthread_cond_wait(&queue->filled, &queue->lock);
  while (count < capacity && queue->first) {
    ids[count++] = queue->first->id;
    unlink_watch(queue->first);
  }
  pthread_mutex_unlock(&queue->lock);
  return count;
}
