/* An open net: its weights, and for each run at once a workspace with memory and threads.
 *
 * The file that includes this one has the public header, in which the net is called `net`, and
 * defines `plan`, and `preprocessing`, which is NULL where C does not know how pictures become the
 * net's input. The public functions get the net's own name when all is compiled.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pages.h"
#include "pictures.h"
#include "plan.h"
#include "processors.h"
#include "threads.h"
#include "weights.h"

#define PUBLIC __attribute__((visibility("default")))
#define DL_CPU 1          /* DLPack's number of this kind of device */
#define ANY_DL_TENSOR 7   /* TVM's number of this kind of argument */
#define MOST_ARGUMENTS 64
#define MOST_BLOCKS 16    /* that a kernel works in at once, on one thread */
#define MOST_THREADS 1024

static _Thread_local char reason[512];

__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(reason, sizeof reason, format, values);
  va_end(values);
  return -1;
}

/* ---- What kernels call: memory to work in, threads, and a place for the reason of a failure. */

typedef struct {
  void *memory;
  size_t bytes;
  int busy;
} block;

typedef struct {
  block blocks[MOST_BLOCKS];
} blocks;

typedef struct workspace { /* what one run has for itself */
  struct workspace *next;
  pool *threads;
  char *arena, *input;
  dl_tensor *tensors; /* those of all entries */
  blocks scratch;     /* of the thread that runs */
} workspace;

static _Thread_local workspace *running; /* in the thread that called run */
static _Thread_local blocks *worker_scratch;
static pthread_key_t worker_key; /* frees worker_scratch when its thread ends */

static void free_blocks(blocks *each) {
  for (int i = 0; i < MOST_BLOCKS; i++) free(each->blocks[i].memory);
}

static void free_worker_scratch(void *scratch) {
  free_blocks(scratch);
  free(scratch);
}

static blocks *scratch_here(void) {
  if (running) return &running->scratch;
  if (!worker_scratch) {
    blocks *made = calloc(1, sizeof *made);
    if (made && pthread_setspecific(worker_key, made)) {
      free(made);
      made = NULL;
    }
    worker_scratch = made;
  }
  return worker_scratch;
}

/* Of two free blocks the one for so many bytes: the smaller one of two that fit, else the larger. */
static block *better_block(block *a, block *b, uint64_t bytes) {
  if (!a) return b;
  int a_fits = a->bytes >= bytes, b_fits = b->bytes >= bytes;
  if (a_fits != b_fits) return a_fits ? a : b;
  return (a->bytes < b->bytes) == a_fits ? a : b;
}

static void *block_for_kernel(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  blocks *here = scratch_here();
  block *found = NULL;
  for (int i = 0; here && i < MOST_BLOCKS; i++)
    if (!here->blocks[i].busy) found = better_block(found, &here->blocks[i], bytes);
  if (!found) return NULL;
  if (found->bytes < bytes) {
    free(found->memory);
    found->memory = allocated(bytes);
    found->bytes = found->memory ? bytes : 0;
  }
  found->busy = found->memory != NULL;
  return found->memory;
}

static int block_from_kernel(int device, int id, void *memory) {
  (void)device, (void)id;
  blocks *here = scratch_here();
  for (int i = 0; here && i < MOST_BLOCKS; i++) {
    if (here->blocks[i].memory != memory) continue;
    here->blocks[i].busy = 0;
    return 0;
  }
  return -1;
}

static int launch(int (*work)(int, void *, void *), void *data, int tasks) {
  (void)tasks; /* 0: as many as there are threads, which is all that kernels ask for */
  return pool_run(running->threads, work, data);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fail("%s: ", kind);
  size_t end = strlen(reason);
  for (int32_t i = 0; i < count && end < sizeof reason; i++)
    if (parts[i]) end += (size_t)snprintf(reason + end, sizeof reason - end, "%s", parts[i]);
}

/* Variables of the kernels' code; a net whose kernels do not need one is without it. */
#define OF_KERNELS __attribute__((weak, visibility("hidden")))
extern int (*__TVMBackendParallelLaunch)(int (*)(int, void *, void *), void *, int) OF_KERNELS;
extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) OF_KERNELS;
extern int (*__TVMBackendFreeWorkspace)(int, int, void *) OF_KERNELS;

static int has_worker_key;

__attribute__((constructor)) static void when_loaded(void) {
  has_worker_key = !pthread_key_create(&worker_key, free_worker_scratch);
  if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = launch;
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = block_for_kernel;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = block_from_kernel;
}

__attribute__((destructor)) static void when_unloaded(void) {
  if (has_worker_key) pthread_key_delete(worker_key);
}

/* ---- The net. */

struct net_net {
  pid_t process; /* that opened it, and has its threads */
  weights weights;
  int threads;
  int *processors;
  int num_processors;
  pthread_mutex_t lock;
  workspace *idle;
};

static size_t count_of(int ndim, const int64_t *shape) {
  size_t count = 1;
  for (int i = 0; i < ndim; i++) count *= (size_t)shape[i];
  return count;
}

static const plan_entry *largest_entry(const plan_size *size) {
  return &size->entries[size->num_entries - 1];
}

/* The entry that comes next where so many images are left: the largest taken for as many. */
static const plan_entry *entry_for(const plan_size *size, int64_t images) {
  const plan_entry *entry = largest_entry(size);
  while (entry != size->entries && entry->fewest > images) entry--;
  return entry;
}

static size_t input_count(const plan_size *size) { return count_of(3, size->input); }

/* A size by its number; NULL where there is none, with the reason. */
static const plan_size *size_at(int number) {
  if (number >= 0 && (uint32_t)number < plan.num_sizes) return &plan.sizes[number];
  fail("there is no size %d: the net takes %u, from 0 on", number, plan.num_sizes);
  return NULL;
}

/* The tensors of an entry in a workspace. */
static dl_tensor *tensors_of(const workspace *space, const plan_entry *entry) {
  dl_tensor *found = space->tensors;
  for (const plan_entry *each = plan.entries; each != entry; each++) found += each->num_tensors;
  return found;
}

static void close_workspace(workspace *space, int with_threads) {
  if (with_threads && space->threads) pool_close(space->threads);
  free_blocks(&space->scratch);
  free(space->arena);
  free(space->input);
  free(space->tensors);
  free(space);
}

static void place_tensors(const net_net *net, workspace *space, const plan_entry *entry) {
  dl_tensor *tensors = tensors_of(space, entry);
  for (uint32_t i = 0; i < entry->num_tensors; i++) {
    const plan_tensor *each = &entry->tensors[i];
    void *data = space->input;
    if (each->place == IN_ARENA) data = space->arena + each->offset;
    if (each->place == IN_WEIGHTS) data = weights_at(&net->weights, each->weight);
    tensors[i] = (dl_tensor){.data = data,
                             .device = {DL_CPU, 0},
                             .ndim = each->ndim,
                             .dtype = each->dtype,
                             .shape = (int64_t *)(uintptr_t)each->shape};
  }
}

static workspace *open_workspace(const net_net *net) {
  size_t num_tensors = 0, arena = 0, input = 0;
  for (uint32_t i = 0; i < plan.num_sizes; i++) {
    const plan_size *size = &plan.sizes[i];
    size_t bytes = (size_t)largest_entry(size)->batch * input_count(size) * sizeof(float);
    if (bytes > input) input = bytes;
  }
  for (uint32_t i = 0; i < plan.num_entries; i++) {
    num_tensors += plan.entries[i].num_tensors;
    if (plan.entries[i].arena_bytes > arena) arena = plan.entries[i].arena_bytes;
  }
  workspace *made = calloc(1, sizeof *made);
  if (!made) {
    fail("there is no memory for a run");
    return NULL;
  }
  made->arena = allocated(arena);
  made->input = allocated(input);
  made->tensors = calloc(num_tensors, sizeof *made->tensors);
  if (!made->arena || !made->input || !made->tensors) {
    fail("there is no memory for a run, which takes %zu bytes", arena + input);
    close_workspace(made, 1);
    return NULL;
  }
  made->threads =
      pool_open(net->threads, net->processors, net->num_processors, reason, sizeof reason);
  if (!made->threads) {
    close_workspace(made, 1);
    return NULL;
  }
  for (uint32_t i = 0; i < plan.num_entries; i++) place_tensors(net, made, &plan.entries[i]);
  return made;
}

static workspace *take_workspace(net_net *net) {
  pthread_mutex_lock(&net->lock);
  workspace *found = net->idle;
  if (found) net->idle = found->next;
  pthread_mutex_unlock(&net->lock);
  return found ? found : open_workspace(net);
}

static void leave_workspace(net_net *net, workspace *space) {
  pthread_mutex_lock(&net->lock);
  space->next = net->idle;
  net->idle = space;
  pthread_mutex_unlock(&net->lock);
}

static int run_call(const plan_call *call, dl_tensor *tensors) {
  ffi_any arguments[MOST_ARGUMENTS], result = {0};
  if (call->count > MOST_ARGUMENTS) return fail("the step %s has too many arguments", call->step);
  for (uint32_t i = 0; i < call->count; i++)
    arguments[i] = (ffi_any){ANY_DL_TENSOR, 0, {.p = &tensors[call->arguments[i]]}};
  reason[0] = 0;
  if (!call->run(NULL, arguments, (int32_t)call->count, &result)) return 0;
  char why[sizeof reason];
  memcpy(why, reason, sizeof why);
  return fail("the step %s failed: %.300s", call->step, why[0] ? why : "memory is short");
}

typedef struct { /* who is shown the steps of a run; NULL: nobody */
  net_watcher *show;
  void *data;
} watching;

static int64_t nanoseconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int run_shown(const plan_call *call, dl_tensor *tensors, watching watcher) {
  int64_t begun = nanoseconds_now();
  if (run_call(call, tensors)) return -1;
  net_step step = {.name = call->step, .nanoseconds = nanoseconds_now() - begun};
  for (uint32_t i = 0; i < call->count; i++) {
    const dl_tensor *each = &tensors[call->arguments[i]];
    step.moved += count_of(each->ndim, each->shape) * each->dtype.bits / 8;
  }
  const dl_tensor *given = &tensors[call->arguments[call->count - 1]];
  step.values = given->data;
  step.ndim = given->ndim;
  step.shape = given->shape;
  step.kind = given->dtype.code;
  step.bits = given->dtype.bits;
  watcher.show(watcher.data, &step);
  return 0;
}

/* Computes at most as many images of a size as an entry takes, beside which it gets zeros. */
static int run_entry(workspace *space, const plan_size *size, const plan_entry *entry,
                     size_t images, const float *input, float *const outputs[], size_t first,
                     watching watcher) {
  size_t count = input_count(size), bytes = images * count * sizeof(float);
  dl_tensor *tensors = tensors_of(space, entry);
  const float *start = input + first * count;
  int lent = images == (size_t)entry->batch && (uintptr_t)start % ALIGNMENT == 0;
  if (!lent) {
    memcpy(space->input, start, bytes);
    memset(space->input + bytes, 0, ((size_t)entry->batch - images) * count * sizeof(float));
  }
  for (uint32_t i = 0; i < entry->num_tensors; i++)
    if (entry->tensors[i].place == IN_INPUT)
      tensors[i].data = lent ? (void *)(uintptr_t)start : space->input;
  for (uint32_t i = 0; i < entry->num_calls; i++)
    if (watcher.show ? run_shown(&entry->calls[i], tensors, watcher)
                     : run_call(&entry->calls[i], tensors))
      return -1;
  for (uint32_t i = 0; i < plan.num_heads; i++) {
    size_t given = count_of(size->heads[i].ndim, size->heads[i].shape);
    const void *values = tensors[entry->outputs[i]].data;
    if (outputs[i]) memcpy(outputs[i] + first * given, values, images * given * sizeof(float));
  }
  return 0;
}

PUBLIC const char *net_error(void) { return reason; }

PUBLIC int net_size(int64_t height, int64_t width) {
  for (uint32_t i = 0; i < plan.num_sizes; i++)
    if (plan.sizes[i].input[1] == height && plan.sizes[i].input[2] == width) return (int)i;
  char sizes[256] = "";
  for (uint32_t i = 0; i < plan.num_sizes; i++)
    snprintf(sizes + strlen(sizes), sizeof sizes - strlen(sizes), "%s%lldx%lld", i ? ", " : "",
             (long long)plan.sizes[i].input[1], (long long)plan.sizes[i].input[2]);
  return fail("the net is not compiled for images of %lldx%lld, height by width: it takes %s",
              (long long)height, (long long)width, sizes);
}

PUBLIC net_value net_input_at(int number) {
  const plan_size *size = size_at(number);
  if (!size) return (net_value){0};
  return (net_value){"input", 3, size->input, input_count(size)};
}

PUBLIC net_value net_input(void) { return net_input_at(0); }

PUBLIC net_value net_output_at(int number, int head_number) {
  const plan_size *size = size_at(number);
  if (!size || head_number < 0 || (uint32_t)head_number >= plan.num_heads) return (net_value){0};
  const plan_head *head = &size->heads[head_number];
  return (net_value){head->name, head->ndim, head->shape, count_of(head->ndim, head->shape)};
}

PUBLIC net_value net_output(int head) { return net_output_at(0, head); }

PUBLIC int net_prepare_at(int number, const uint8_t *rgb, int64_t width, int64_t height,
                          int64_t row_bytes, float *image) {
  const plan_size *size = size_at(number);
  if (!size) return -1;
  if (!rgb || !image) return fail("the picture or the place for its floats is NULL");
  if (!preprocessing)
    return fail("C does not make pictures this net's input as vggc does in Python (it takes "
                "neither 1 nor 3 channels, or they are resized by lanczos): give it floats");
  plan_preprocessing how = *preprocessing;
  how.height = (int32_t)size->input[1];
  how.width = (int32_t)size->input[2];
  how.scale = size->scale;
  return prepare(&how, rgb, width, height, row_bytes, image, reason, sizeof reason);
}

PUBLIC int net_prepare(const uint8_t *rgb, int64_t width, int64_t height, int64_t row_bytes,
                       float *image) {
  return net_prepare_at(0, rgb, width, height, row_bytes, image);
}

static int open_net(net_net *net, const char *path, const net_options *options) {
  net->process = getpid();
  net->threads = options->threads ? options->threads : num_cores("");
  if (net->threads > MOST_THREADS) net->threads = MOST_THREADS;
  if (options->processors && options->num_processors > 0) {
    size_t bytes = (size_t)options->num_processors * sizeof *net->processors;
    if (!(net->processors = malloc(bytes))) return fail("there is no memory for a net");
    memcpy(net->processors, options->processors, bytes);
    net->num_processors = options->num_processors;
  }
  if (weights_open(&plan, path, !options->map, options->trusted, net->threads, &net->weights,
                   reason, sizeof reason))
    return -1;
  pthread_mutex_init(&net->lock, NULL);
  if ((net->idle = open_workspace(net))) return 0;
  pthread_mutex_destroy(&net->lock);
  weights_close(&net->weights);
  return -1;
}

PUBLIC int net_open(const char *path, const net_options *options, net_net **net) {
  static const net_options usual = {0};
  if (!net) return fail("there is no place for the net: the last argument is NULL");
  *net = NULL;
  if (!path) return fail("no file of weights is named");
  if (!options) options = &usual;
  if (options->threads < 0) return fail("a net cannot run on %d threads", options->threads);
  const char *lacking = cpu_lacks(&plan);
  if (lacking) return fail("the net is compiled for %s, and this CPU lacks %s", plan.cpu, lacking);
  if (!has_worker_key) return fail("this process has no thread-specific data left");
  net_net *made = calloc(1, sizeof *made);
  if (!made) return fail("there is no memory for a net");
  if (!open_net(made, path, options)) {
    *net = made;
    return 0;
  }
  free(made->processors);
  free(made);
  return -1;
}

static int run_images(net_net *net, int number, int images, const float *input,
                      float *const outputs[], watching watcher) {
  const plan_size *size = size_at(number);
  if (!size) return -1;
  if (!net || !input || !outputs) return fail("the net, its input or its outputs are NULL");
  if (images < 1) return fail("%d images were given, and a run takes one at least", images);
  if (getpid() != net->process)
    return fail("the net was opened before this process was forked: open it here, too");
  workspace *space = take_workspace(net);
  if (!space) return -1;
  workspace *outer = running; /* of the run whose watcher has called this one */
  running = space;
  int failed = 0;
  for (int first = 0; !failed && first < images;) {
    const plan_entry *entry = entry_for(size, images - first);
    int some = images - first < entry->batch ? images - first : (int)entry->batch;
    failed = run_entry(space, size, entry, (size_t)some, input, outputs, (size_t)first, watcher);
    first += some;
  }
  running = outer;
  if (failed) close_workspace(space, 1); /* what its kernels work in may be left as taken */
  else leave_workspace(net, space);
  return failed;
}

PUBLIC int net_run(net_net *net, int images, const float *input, float *const outputs[]) {
  return net_run_at(net, 0, images, input, outputs);
}

PUBLIC int net_run_at(net_net *net, int size, int images, const float *input,
                      float *const outputs[]) {
  return run_images(net, size, images, input, outputs, (watching){NULL, NULL});
}

PUBLIC int net_watch(net_net *net, int size, int images, const float *input,
                     float *const outputs[], net_watcher *watcher, void *data) {
  if (!watcher) return fail("nobody watches: the watcher is NULL");
  return run_images(net, size, images, input, outputs, (watching){watcher, data});
}

PUBLIC void net_close(net_net *net) {
  if (!net) return;
  int ours = getpid() == net->process; /* a forked process has none of the threads */
  while (net->idle) {
    workspace *space = net->idle;
    net->idle = space->next;
    close_workspace(space, ours);
  }
  weights_close(&net->weights);
  if (ours) pthread_mutex_destroy(&net->lock);
  free(net->processors);
  free(net);
}
