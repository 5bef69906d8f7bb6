/* A short conversation: what a message means, and the answer.
 *
 *     cc ask.c -I ../../../include -L ../../../target/release -lantiphon -o ask && ./ask */
#include <antiphon.h>
#include <stdio.h>
#include <string.h>

static int failed(antiphon_error *error) {
  fprintf(stderr, "%s\n", antiphon_error_message(error).ptr);
  antiphon_error_free(error);
  return 1;
}

int main(void) {
  const char *messages[] = {"Hello", "I need help with my account", "I forgot my password"};
  antiphon_engine *engine = NULL;
  antiphon_conversation *conversation = NULL;
  antiphon_error *error = NULL;
  int status = antiphon_engine_open(NULL, 0, NULL, &engine, &error);
  if (status == ANTIPHON_OK) status = antiphon_conversation_new(engine, NULL, 0, &conversation, &error);

  for (size_t i = 0; status == ANTIPHON_OK && i < sizeof messages / sizeof *messages; i++) {
    antiphon_request *request = NULL;
    antiphon_stream *stream = NULL;
    antiphon_event event = {.struct_size = sizeof event};
    status = antiphon_request_new(messages[i], strlen(messages[i]), &request, &error);
    if (status == ANTIPHON_OK) status = antiphon_conversation_say(conversation, request, &stream, &error);
    printf("> %s\n", messages[i]);
    while (status == ANTIPHON_OK && (status = antiphon_stream_next(stream, -1, &event, &error)) == ANTIPHON_OK) {
      if (event.kind == ANTIPHON_EVENT_ANALYSIS)
        printf("[%s, %s] ", antiphon_analysis_intent(event.analysis).ptr, antiphon_analysis_sentiment(event.analysis).ptr);
      fwrite(event.text.ptr, 1, event.text.len, stdout);
    }
    if (status == ANTIPHON_DONE) status = ANTIPHON_OK;
    printf("\n");
    antiphon_stream_free(stream);
    antiphon_request_free(request);
  }
  antiphon_conversation_free(conversation);
  antiphon_engine_free(engine);
  return status == ANTIPHON_OK ? 0 : failed(error);
}
