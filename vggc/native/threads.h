/* Threads that share the loops of a net's kernels: one pool for each run at a time. */
#ifndef VGGC_THREADS_H
#define VGGC_THREADS_H

#include <stddef.h>
#include <stdint.h>

typedef struct pool pool;

/* What a kernel's loop is told beside the number of its task: TVM's TVMParallelGroupEnv. */
typedef struct {
  void *sync; /* TVM's barrier, which no kernel uses */
  int32_t num_task;
} task_group;

/* Starts a pool of so many threads, of which the caller of pool_run is one. 0 is one for each core
   that this process may keep busy.

   Where `count` is not 0, task i is to run on processors[i % count]. The pool moves its own threads
   there and never the caller, whose task is 0: processors[0] is kept free for it, and whoever
   wants it to stay there moves it. Otherwise the threads may run where the calling thread may, and
   with no more threads than processors one that wakes up where another runs moves away.

   The threads take no signals but those of their own faults. Without a pool (NULL) `why` has the
   reason, of `size` bytes at most. */
static pool *pool_open(int threads, const int *processors, int count, char *why, size_t size);

/* Runs work(task, group, data) for each task from 0 up to group->num_task, which is the number of
   the pool's threads, and returns when all have ended: 0, or -1 where one has not returned 0. Task
   0 runs on the caller, and each other one on the same thread each time. All tasks see what the
   caller has written before, and it sees what they have written.

   One thread at a time may call it, and none of the tasks. After a fork the other process has none
   of the threads: there the caller runs all tasks, one after another. */
static int pool_run(pool *, int (*work)(int task, void *group, void *data), void *data);

/* Ends the threads and frees the pool, when pool_run has returned; no thread is left afterwards.
   In another process than that of pool_open there are none, and the memory is freed. NULL is
   nothing to close. */
static void pool_close(pool *);

#endif
