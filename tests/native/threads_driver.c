/* What a pool of threads promises, a command each: `threads_driver COMMAND NUMBER...` ends with 0
 * where it is kept, and otherwise says which line was not so.
 */
#include "processors.c"
#include "threads.c"

#include <dirent.h>
#include <sys/wait.h>

#define expect(truth) ((truth) ? (void)0 : not_so(__LINE__, #truth))

static void not_so(int line, const char *what) {
  fprintf(stderr, "line %d: not so: %s\n", line, what);
  _exit(1);
}

static pool *opened(int threads, const int *processors, int count) {
  char why[200];
  pool *p = pool_open(threads, processors, count, why, sizeof why);
  if (!p) not_so(__LINE__, why);
  return p;
}

static void wait_microseconds(int count) {
  struct timespec time = {count / 1000000, count % 1000000 * 1000L};
  nanosleep(&time, NULL);
}

static int num_threads(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  while (folder && readdir(folder)) count++;
  if (folder) closedir(folder);
  return count - 2; /* `.` and `..` */
}

/* Whether there are so many threads. The system lists one that has been joined a moment longer. */
static int are_threads(int count) {
  for (int i = 0; num_threads() != count && i < 10000; i++) wait_microseconds(1000);
  return num_threads() == count;
}

/* What tasks of one round are to do, and what each has done since the beginning. None of it is
   atomic: the pool orders it. */
typedef struct {
  int threads, round, failing, late, microseconds;
  struct {
    int rounds;
    pthread_t thread;
    char pad[48];
  } done[64];
} tally;

static int count_round(int task, void *group, void *data) {
  tally *t = data;
  if (((task_group *)group)->num_task != t->threads) return 1;
  if (t->done[task].rounds++ && !pthread_equal(t->done[task].thread, pthread_self())) return 1;
  if (t->done[task].rounds != t->round) return 1;
  t->done[task].thread = pthread_self();
  if (task == t->late) wait_microseconds(t->microseconds);
  return task == t->failing;
}

static int run_round(pool *p, tally *t) {
  t->round++;
  int failed = pool_run(p, count_round, t);
  for (int task = 0; task < t->threads; task++) expect(t->done[task].rounds == t->round);
  return failed;
}

static tally of_threads(int threads) {
  return (tally){.threads = threads, .failing = -1, .late = -1};
}

/* Each task once in each of so many rounds, on a thread of its own. Before each `between`th the
   workers may fall asleep, and in the one after it the caller, as a task takes its time. */
static void rounds(int threads, int count, int between, int microseconds) {
  pool *p = opened(threads, NULL, 0);
  tally t = of_threads(threads);
  t.microseconds = microseconds;
  for (int i = 0; i < count; i++) {
    if (between && i % between == 0) wait_microseconds(microseconds);
    t.late = between && i % between == 1 ? i % threads : -1;
    expect(run_round(p, &t) == 0);
  }
  for (int i = 1; i < threads; i++)
    expect(!pthread_equal(t.done[i].thread, t.done[i - 1].thread));
  expect(pthread_equal(t.done[0].thread, pthread_self()));
  pool_close(p);
}

/* A task that fails makes its round fail, in which all others run, and no later one. */
static void failing(int threads) {
  pool *p = opened(threads, NULL, 0);
  tally t = of_threads(threads);
  for (t.failing = -1; t.failing < threads; t.failing++)
    expect(run_round(p, &t) == (t.failing < 0 ? 0 : -1));
  expect(run_round(p, &t) == 0);
  pool_close(p);
}

/* So many pools, one after another, of which each second one runs nothing. */
static void reopened(int threads, int count) {
  pool_close(opened(2, NULL, 0)); /* ThreadSanitizer has a thread, too, once there is another */
  int before = num_threads();
  for (int i = 0; i < count; i++) {
    pool *p = opened(threads, NULL, 0);
    tally t = of_threads(threads);
    if (i % 2) expect(run_round(p, &t) == 0);
    expect(are_threads(before + threads - 1));
    pool_close(p);
    expect(are_threads(before));
  }
  pool_close(NULL);
}

static void *run_rounds(void *count) {
  rounds(2, *(int *)count, 100, 200);
  return NULL;
}

static void two_pools(int count) {
  pthread_t other;
  expect(!pthread_create(&other, NULL, run_rounds, &count));
  run_rounds(&count);
  pthread_join(other, NULL);
}

static int runs_here(int task, void *group, void *data) {
  (void)group;
  ((int *)data)[task]++;
  return getpid() != gettid();
}

static void in_child(pool *p) {
  int done[3] = {0};
  alarm(60);
  expect(pool_run(p, runs_here, done) == 0);
  expect(done[0] == 1 && done[1] == 1 && done[2] == 1);
  pool_close(p);
  _exit(0);
}

/* A process that is forked runs all tasks on its only thread, and leaves those of the first. */
static void forked(int count) {
  pool *p = opened(3, NULL, 0);
  tally t = of_threads(3);
  for (int i = 0; i < count; i++) {
    expect(run_round(p, &t) == 0);
    pid_t child = fork();
    if (!child) in_child(p);
    int status = -1;
    expect(waitpid(child, &status, 0) == child && status == 0);
  }
  expect(run_round(p, &t) == 0);
  pool_close(p);
}

static int note_processors(int task, void *group, void *data) {
  (void)group;
  return sched_getaffinity(0, sizeof(cpu_set_t), (cpu_set_t *)data + task);
}

/* Task i runs on the processor of that number in the list, which begins anew where it ends; the
   caller is where it was. */
static void pinned(int threads, const int *processors, int count) {
  cpu_set_t before, during[8];
  expect(!sched_getaffinity(0, sizeof before, &before));
  pool *p = opened(threads, processors, count);
  expect(pool_run(p, note_processors, during) == 0);
  expect(CPU_EQUAL(&during[0], &before));
  for (int task = 1; task < threads; task++) {
    expect(CPU_COUNT(&during[task]) == 1);
    expect(CPU_ISSET((size_t)processors[task % count], &during[task]));
  }
  pool_close(p);
}

typedef struct {
  int number;        /* of the round */
  int processors[2]; /* of the caller and of the worker, when they began it */
  cpu_set_t callers; /* the processor that the caller stays on */
  cpu_set_t allowed[2]; /* of the worker in the first rounds */
} crowd;

/* In every other round the worker ends on the caller's processor, and free to leave it. */
static int crowd_together(int task, void *group, void *data) {
  (void)group;
  crowd *c = data;
  c->processors[task] = sched_getcpu();
  if (task == 0 || c->number % 2) return 0;
  cpu_set_t *allowed = &c->allowed[c->number > 0];
  return sched_getaffinity(0, sizeof *allowed, allowed) ||
         sched_setaffinity(0, sizeof c->callers, &c->callers) ||
         sched_setaffinity(0, sizeof *allowed, allowed);
}

/* A worker that wakes up on the caller's processor works on another, and may go where it could. */
static void spread(void) {
  crowd c = {0};
  pool *p = opened(2, NULL, 0);
  CPU_ZERO(&c.callers);
  CPU_SET((size_t)sched_getcpu(), &c.callers);
  expect(!sched_setaffinity(0, sizeof c.callers, &c.callers));
  for (; c.number < 100; c.number++) {
    expect(pool_run(p, crowd_together, &c) == 0);
    if (c.number % 2) expect(c.processors[1] != c.processors[0]);
  }
  expect(CPU_EQUAL(&c.allowed[0], &c.allowed[1]));
  pool_close(p);
}

static int check_signals_and_name(int task, void *group, void *data) {
  (void)group, (void)data;
  sigset_t blocked;
  char name[16], expected[16];
  snprintf(expected, sizeof expected, "vggc-%d", task);
  expect(!pthread_sigmask(SIG_BLOCK, NULL, &blocked));
  expect(!pthread_getname_np(pthread_self(), name, sizeof name));
  int of_process[] = {SIGINT, SIGTERM, SIGCHLD, SIGPROF, SIGUSR1, SIGRTMIN};
  for (int i = 0; i < 6; i++) expect(sigismember(&blocked, of_process[i]) == (task > 0));
  expect(!sigismember(&blocked, SIGSEGV) && !sigismember(&blocked, SIGFPE));
  return task > 0 && strcmp(name, expected);
}

static void apart(void) {
  pool *p = opened(3, NULL, 0);
  expect(pool_run(p, check_signals_and_name, NULL) == 0);
  pool_close(p);
}

static void refused(int threads, const int *processors, int count) {
  char why[200] = "";
  pool_close(opened(2, NULL, 0));
  int before = num_threads();
  expect(!pool_open(threads, processors, count, why, sizeof why));
  expect(are_threads(before));
  puts(why);
}

static void usual(void) {
  pool *p = opened(0, NULL, 0);
  printf("%d\n", p->threads);
  pool_close(p);
}

int main(int count, char **arguments) {
  int numbers[8] = {0}, given = count - 2;
  const char *command = count > 1 ? arguments[1] : "";
  for (int i = 0; i < given && i < 8; i++) numbers[i] = atoi(arguments[i + 2]);
  if (!strcmp(command, "rounds")) rounds(numbers[0], numbers[1], numbers[2], numbers[3]);
  else if (!strcmp(command, "failing")) failing(numbers[0]);
  else if (!strcmp(command, "reopened")) reopened(numbers[0], numbers[1]);
  else if (!strcmp(command, "two_pools")) two_pools(numbers[0]);
  else if (!strcmp(command, "forked")) forked(numbers[0]);
  else if (!strcmp(command, "pinned")) pinned(numbers[0], numbers + 1, given - 1);
  else if (!strcmp(command, "spread")) spread();
  else if (!strcmp(command, "apart")) apart();
  else if (!strcmp(command, "refused")) refused(numbers[0], numbers + 1, given - 1);
  else if (!strcmp(command, "usual")) usual();
  else if (!strcmp(command, "processors") && given == 1)
    printf("%.9g %d %d\n", quota(arguments[2]), num_processors(arguments[2]),
           num_cores(arguments[2]));
  else not_so(__LINE__, "a command is given");
  return 0;
}
