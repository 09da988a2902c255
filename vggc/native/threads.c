/* A pool is two words that threads wait for: `round` says that there is work, `unfinished` that
 * some of it has not ended. The lowest bit of each says that somebody sleeps on it.
 *
 * No wake-up is lost, since whether somebody sleeps is part of the word that is waited for. Whoever
 * is about to sleep sets the bit by an atomic operation that gives the word as it was, and sleeps
 * only if that was not what it waits for. Whoever changes the word does so by an atomic operation
 * that gives the bit as it was. All operations on a word have one order. If the sleeper's is first,
 * whoever then makes the word what is waited for sees the bit and wakes the sleeper; if it is
 * second, the sleeper sees that and does not sleep. Between its operation and its sleep the system
 * compares the word once more, in one step with falling asleep, so that a word that has changed by
 * then lets nobody sleep.
 *
 * Memory needs no more than that changes release and looks acquire. What the caller writes before
 * it begins a round (work, data, unfinished) comes before all that the threads do in it. What they
 * write in a round comes before the end of pool_run: each subtracts from `unfinished`, a
 * subtraction continues the release sequences of those before it, and the caller acquires the last.
 *
 * A thread misses no round, as the caller begins none before all threads have ended the one before:
 * each waits for the number after its last. Numbers wrap around.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "threads.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "processors.h"

#define FUTEX_WAIT_PRIVATE 128 /* of Linux's linux/futex.h, which not all C compilers have */
#define FUTEX_WAKE_PRIVATE 129
#define CACHE_LINE 64
#define MOST_THREADS_OF_POOL 1024
#define SLEEPER 1u /* the bit of a word that says that somebody sleeps on it */
#define ONE 2u     /* what counts one in a word */

/* Nanoseconds for which a thread looks for something new before it sleeps: about as long as it
   takes to wake one, so that looking in vain costs no more than it may spare. Yielding meanwhile
   would give a whole slice of the processor to another process. */
#define SPIN_TIME 20000
#define LOOKS_PER_TIME 16 /* as asking for the time takes as long as some looks */

typedef struct {
  pthread_t thread;
  pool *pool;
  int task;
  _Atomic int processor; /* where it last was, as it notes before and after its work */
} pool_worker;

struct pool {
  int threads;       /* with the caller */
  int started;       /* of the workers */
  pid_t process;     /* that has the threads */
  int64_t spin_time; /* 0 where there are more threads than processors */
  int spread;        /* whether workers leave a processor that another thread runs on */
  int (*work)(int task, void *group, void *data); /* NULL: the threads are to end */
  void *data;
  _Atomic int processor; /* where the caller last was */
  alignas(CACHE_LINE) _Atomic uint32_t round;      /* ONE for each since pool_open */
  alignas(CACHE_LINE) _Atomic uint32_t unfinished; /* ONE for each worker that has not ended */
  _Atomic int failed;
  alignas(CACHE_LINE) pool_worker workers[]; /* of tasks 1 and on */
};

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Lets the other thread of this core have it for a moment. */
static void pause_core(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

static void sleep_on(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Whether a word, but for its lowest bit, becomes a value while this thread looks at it. */
static int comes_while_looking(_Atomic uint32_t *word, uint32_t value, int64_t time) {
  for (int64_t end = 0;;) {
    for (int i = 0; i < LOOKS_PER_TIME; i++) {
      if ((atomic_load_explicit(word, memory_order_acquire) & ~SLEEPER) == value) return 1;
      pause_core();
    }
    int64_t now = nanoseconds();
    if (!end) end = now + time;
    if (now >= end) return 0;
  }
}

static void wait_for(_Atomic uint32_t *word, uint32_t value, int64_t spin_time) {
  if (comes_while_looking(word, value, spin_time)) return;
  for (;;) {
    uint32_t found = atomic_fetch_or_explicit(word, SLEEPER, memory_order_acquire);
    if ((found & ~SLEEPER) == value) return;
    sleep_on(word, found | SLEEPER);
  }
}

/* Gives the processor that this thread runs on, and notes it where it has changed. */
static int note_processor(_Atomic int *note) {
  int here = sched_getcpu();
  if (atomic_load_explicit(note, memory_order_relaxed) != here)
    atomic_store_explicit(note, here, memory_order_relaxed);
  return here;
}

/* Moves a worker that was woken on the processor of a thread of a smaller task to one that no other
   thread of the pool runs on: for a system that finds both idle most of the time, one processor may
   do for two threads, and a round then takes twice as long. The worker stays free to be moved. */
static void leave_others(pool_worker *self) {
  const pool *p = self->pool;
  int here = note_processor(&self->processor);
  int crowded = here == atomic_load_explicit(&p->processor, memory_order_relaxed);
  for (int i = 0; i < self->task - 1 && !crowded; i++)
    crowded = here == atomic_load_explicit(&p->workers[i].processor, memory_order_relaxed);
  processor_set allowed, free_ones;
  if (!crowded || !allowed_processors(&allowed)) return;
  free_ones = allowed;
  remove_processor(&free_ones, atomic_load_explicit(&p->processor, memory_order_relaxed));
  for (int i = 0; i < p->threads - 1; i++)
    remove_processor(&free_ones,
                     atomic_load_explicit(&p->workers[i].processor, memory_order_relaxed));
  if (sched_setaffinity(0, sizeof free_ones, free_ones.sets)) return; /* there is none free */
  sched_setaffinity(0, sizeof allowed, allowed.sets);
  note_processor(&self->processor);
}

/* How long a worker looks for the next round: on the caller's processor not at all, as it would
   look in vain while the caller cannot run. The system puts threads together at times. */
static int64_t time_of_worker(pool_worker *self) {
  const pool *p = self->pool;
  int here = note_processor(&self->processor);
  return here == atomic_load_explicit(&p->processor, memory_order_relaxed) ? 0 : p->spin_time;
}

/* How long the caller looks for the end of a round: likewise. */
static int64_t time_of_caller(pool *p) {
  int here = note_processor(&p->processor);
  for (int i = 0; i < p->started; i++)
    if (atomic_load_explicit(&p->workers[i].processor, memory_order_relaxed) == here) return 0;
  return p->spin_time;
}

/* Lets the workers begin; without work, end. */
static void begin_round(pool *p, int (*work)(int, void *, void *), void *data) {
  p->work = work;
  p->data = data;
  uint32_t number = atomic_load_explicit(&p->round, memory_order_relaxed) & ~SLEEPER;
  uint32_t found = atomic_exchange_explicit(&p->round, number + ONE, memory_order_release);
  if (found & SLEEPER) wake_all(&p->round);
}

static void *run_worker(void *argument) {
  pool_worker *self = argument;
  pool *p = self->pool;
  task_group group = {NULL, p->threads};
  char name[16];
  snprintf(name, sizeof name, "vggc-%d", self->task);
  pthread_setname_np(pthread_self(), name);
  for (uint32_t round = ONE;; round += ONE) {
    wait_for(&p->round, round, time_of_worker(self));
    if (!p->work) return NULL;
    if (p->spread) leave_others(self);
    if (p->work(self->task, &group, p->data))
      atomic_store_explicit(&p->failed, 1, memory_order_relaxed);
    uint32_t found = atomic_fetch_sub_explicit(&p->unfinished, ONE, memory_order_release);
    if (found == (ONE | SLEEPER)) wake_all(&p->unfinished);
  }
}

static int run_alone(const pool *p, int (*work)(int, void *, void *), void *data) {
  task_group group = {NULL, p->threads};
  int failed = 0;
  for (int task = 0; task < p->threads; task++) failed |= work(task, &group, data) != 0;
  return failed ? -1 : 0;
}

static int pool_run(pool *p, int (*work)(int task, void *group, void *data), void *data) {
  if (p->threads == 1 || p->process != getpid()) return run_alone(p, work, data);
  task_group group = {NULL, p->threads};
  note_processor(&p->processor);
  atomic_store_explicit(&p->failed, 0, memory_order_relaxed);
  atomic_store_explicit(&p->unfinished, ONE * (uint32_t)(p->threads - 1), memory_order_relaxed);
  begin_round(p, work, data);
  int failed = work(0, &group, data) != 0;
  wait_for(&p->unfinished, 0, time_of_caller(p));
  return failed || atomic_load_explicit(&p->failed, memory_order_relaxed) ? -1 : 0;
}

/* Starts a thread that takes no signals of the process: those are for the threads that are its
   own. A fault of its own it takes, as whoever reports crashes wants to know of it. */
static int start_without_signals(pthread_t *thread, void *(*run)(void *), void *argument) {
  const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  int error = pthread_create(thread, NULL, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error;
}

static int pin(pthread_t thread, int processor) {
  if (processor < 0 || processor >= MOST_PROCESSORS) return EINVAL;
  processor_set set = {0};
  CPU_SET_S((size_t)processor, sizeof set, set.sets);
  return pthread_setaffinity_np(thread, sizeof set, set.sets);
}

static int num_different(const int *numbers, int count) {
  int different = 0;
  for (int i = 0; i < count; i++) {
    int j = 0;
    while (numbers[j] != numbers[i]) j++;
    different += j == i;
  }
  return different;
}

/* A pool whose threads have not been started, on so many processors. */
static pool *pool_made(int threads, int processors, int pinned) {
  size_t bytes = sizeof(pool) + (size_t)threads * sizeof(pool_worker);
  pool *p = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
  if (!p) return NULL;
  p->threads = threads;
  p->started = 0;
  p->process = getpid();
  p->spin_time = threads <= processors ? SPIN_TIME : 0;
  p->spread = threads <= processors && !pinned;
  p->work = NULL;
  p->data = NULL;
  atomic_init(&p->processor, -1);
  atomic_init(&p->round, 0);
  atomic_init(&p->unfinished, 0);
  atomic_init(&p->failed, 0);
  return p;
}

/* Starts the thread of a task; -1, and in `why` the reason, where it cannot be had. */
static int start_worker(pool *p, int task, const int *processor, char *why, size_t size) {
  pool_worker *worker = &p->workers[task - 1];
  *worker = (pool_worker){.pool = p, .task = task, .processor = -1};
  int error = start_without_signals(&worker->thread, run_worker, worker);
  if (error) {
    snprintf(why, size, "thread %d of %d cannot be started: %s", task + 1, p->threads,
             strerror(error));
    return -1;
  }
  p->started++;
  if (!processor || !pin(worker->thread, *processor)) return 0;
  snprintf(why, size, "processor %d is not one that this process may use", *processor);
  return -1;
}

static pool *pool_open(int threads, const int *processors, int count, char *why, size_t size) {
  if (threads < 0 || threads > MOST_THREADS_OF_POOL) {
    snprintf(why, size, "%d threads were asked for, and 1 to %d can be had", threads,
             MOST_THREADS_OF_POOL);
    return NULL;
  }
  if (!threads) threads = num_cores("");
  if (threads > MOST_THREADS_OF_POOL) threads = MOST_THREADS_OF_POOL;
  int different = count ? num_different(processors, count) : num_processors("");
  pool *p = pool_made(threads, different, count > 0);
  if (!p) {
    snprintf(why, size, "there is no memory for %d threads", threads);
    return NULL;
  }
  for (int task = 1; task < threads; task++) {
    if (!start_worker(p, task, count ? &processors[task % count] : NULL, why, size)) continue;
    pool_close(p);
    return NULL;
  }
  return p;
}

static void pool_close(pool *p) {
  if (!p) return;
  if (p->started && p->process == getpid()) {
    begin_round(p, NULL, NULL);
    for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
  }
  free(p);
}
