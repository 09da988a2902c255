/* Runs a net from several threads at once, as its user might: WEIGHTS IMAGES THREADS RUNNERS MAP.
 *
 * The images' floats come on stdin, and what each head gives of them goes to stdout if all runs have
 * given the same. With MAP 1 the weights are mapped. With 0 RUNNERS a forked process runs the net,
 * and then opens it for itself. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include HEADER

#define MOST_HEADS 16
#define ROUNDS 3

typedef struct {
  NET(net) *net;
  int images;
  const float *input;
  float *outputs[MOST_HEADS];
} job;

static void check(int good, const char *why) {
  if (good) return;
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static void *run(void *data) {
  job *mine = data;
  for (int i = 0; i < ROUNDS; i++)
    check(!NET(run)(mine->net, mine->images, mine->input, mine->outputs), NET(error)());
  return NULL;
}

static job job_for(NET(net) *net, int images, const float *input) {
  job made = {.net = net, .images = images, .input = input};
  for (int i = 0; NET(output)(i).name; i++)
    made.outputs[i] = calloc((size_t)images * NET(output)(i).count, sizeof(float));
  return made;
}

static void free_job(job *mine) {
  for (int i = 0; i < MOST_HEADS; i++) free(mine->outputs[i]);
}

/* In a forked process: the net is refused, and opened again. */
static void run_forked(job mine, const char *weights, const NET(options) *options) {
  check(NET(run)(mine.net, mine.images, mine.input, mine.outputs), "a forked process runs");
  fprintf(stderr, "%s\n", NET(error)());
  NET(close)(mine.net);
  check(!NET(open)(weights, options, &mine.net), NET(error)());
  run(&mine);
  NET(close)(mine.net);
}

int main(int count, char **words) {
  check(count == 6, "usage: WEIGHTS IMAGES THREADS RUNNERS MAP");
  int images = atoi(words[2]), runners = atoi(words[4]);
  NET(options) options = {.threads = atoi(words[3]), .map = atoi(words[5])};
  NET(net) *net;
  check(!NET(open)(words[1], &options, &net), NET(error)());
  size_t floats = (size_t)images * NET(input)().count;
  float *input = malloc(floats * sizeof *input);
  check(fread(input, sizeof *input, floats, stdin) == floats, "stdin does not hold the images");
  job jobs[16] = {job_for(net, images, input)};
  run(&jobs[0]);
  pthread_t threads[16];
  for (int i = 1; i <= runners; i++) {
    jobs[i] = job_for(net, images, input);
    check(!pthread_create(&threads[i], NULL, run, &jobs[i]), "no thread");
  }
  for (int i = 1; i <= runners; i++) pthread_join(threads[i], NULL);
  for (int i = 0; NET(output)(i).name; i++) {
    size_t bytes = (size_t)images * NET(output)(i).count * sizeof(float);
    for (int j = 1; j <= runners; j++)
      check(!memcmp(jobs[0].outputs[i], jobs[j].outputs[i], bytes), "runs differ");
    fwrite(jobs[0].outputs[i], 1, bytes, stdout);
  }
  fflush(stdout);
  if (!runners) {
    int status = 1;
    pid_t child = fork();
    if (!child) {
      run_forked(jobs[0], words[1], &options);
      _exit(0);
    }
    check(waitpid(child, &status, 0) == child && !status, "the forked process failed");
  }
  for (int i = 0; i <= runners; i++) free_job(&jobs[i]);
  NET(close)(net);
  free(input);
  return 0;
}
