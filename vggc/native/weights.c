#include "weights.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pages.h"
#include "sha256.c"

#define WEIGHTS_PIECE ((uint64_t)4 << 20) /* bytes that one hash is of, see plan_weight */
#define WEIGHTS_MOST_THREADS 64
#define WEIGHTS_CUT (-1) /* the file ends before it should; other faults are values of errno */

typedef uint8_t weights_digest[SHA256_DIGEST];

/* Pieces of tensors that are yet to be read and hashed. Threads take them one by one, in order. */
typedef struct {
  const plan_net *net;
  const weights *to;
  int file;
  sha256_function *hash;   /* NULL where contents are trusted */
  weights_digest *digests; /* of each piece of each tensor */
  uint64_t pieces;
  _Atomic uint64_t next;
  _Atomic int fault;
} weights_job;

static uint64_t weights_pieces(const plan_weight *weight) {
  return (weight->bytes + WEIGHTS_PIECE - 1) / WEIGHTS_PIECE;
}

static int weights_in_place(const weights *each, const plan_weight *weight) {
  return each->mapping && weight->offset % ALIGNMENT == 0;
}

static const char *weights_words(int fault) {
  return fault == WEIGHTS_CUT ? "it was cut off while it was read" : strerror(fault);
}

/* Says why weights are refused. Returns -1. */
__attribute__((format(printf, 3, 4))) static int weights_refuse(char *why, size_t size,
                                                                const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(why, size, format, values);
  va_end(values);
  return -1;
}

/* Reads so many bytes from a place in a file. Returns what hinders that, or 0. */
static int weights_read(int file, void *to, uint64_t bytes, uint64_t from) {
  while (bytes) {
    ssize_t count = pread(file, to, bytes, (off_t)from);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count ? errno : WEIGHTS_CUT;
    to = (char *)to + count;
    bytes -= (uint64_t)count;
    from += (uint64_t)count;
  }
  return 0;
}

/* Opens a file if it has the right size. A pipe has no size, and is not waited for. */
static int weights_file(const plan_net *net, const char *path, char *why, size_t size) {
  int file;
  do file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (file < 0 && errno == EINTR);
  struct stat found;
  if (file < 0 || fstat(file, &found)) {
    weights_refuse(why, size, "%s: %s", path, strerror(errno));
  } else if (!S_ISREG(found.st_mode)) {
    weights_refuse(why, size, "%s: it is no regular file", path);
  } else if ((uint64_t)found.st_size != net->file_bytes) {
    weights_refuse(why, size,
                   "%s: it has %llu bytes where the net's weights have %llu: "
                   "it is the weights of another net, or was cut off",
                   path, (unsigned long long)found.st_size, (unsigned long long)net->file_bytes);
  } else {
    return file;
  }
  if (file >= 0) close(file);
  return -1;
}

static int weights_check_header(const plan_net *net, const char *path, int file, char *why,
                                size_t size) {
  uint8_t *header = malloc(net->header_bytes);
  int fault = header ? weights_read(file, header, net->header_bytes, 0) : ENOMEM;
  weights_digest digest;
  if (!fault) sha256(sha256_fastest(), header, net->header_bytes, digest);
  free(header);
  if (fault) return weights_refuse(why, size, "%s: %s", path, weights_words(fault));
  if (memcmp(digest, net->header_sha256, SHA256_DIGEST))
    return weights_refuse(why, size, "%s: it is the weights of another net", path);
  return 0;
}

/* Decides where each tensor lies, and takes the memory for that. Returns what hinders it, or 0. */
static int weights_place(const plan_net *net, int file, int in_pages, weights *out) {
  if (!in_pages) {
    void *mapping = mmap(NULL, net->file_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapping == MAP_FAILED) return errno;
    out->mapping = mapping;
    out->mapping_bytes = net->file_bytes;
  }
  size_t bytes = 0;
  for (uint32_t i = 0; i < net->num_weights; i++)
    if (!weights_in_place(out, &net->weights[i]))
      bytes += rounded_up(net->weights[i].bytes, ALIGNMENT);
  out->memory = allocated(bytes);
  out->tensors = calloc((size_t)net->num_weights + 1, sizeof *out->tensors);
  if (!out->memory || !out->tensors) return ENOMEM;
  char *place = out->memory;
  for (uint32_t i = 0; i < net->num_weights; i++) {
    const plan_weight *weight = &net->weights[i];
    if (weights_in_place(out, weight)) {
      out->tensors[i] = (char *)out->mapping + weight->offset;
    } else {
      out->tensors[i] = place;
      place += rounded_up(weight->bytes, ALIGNMENT);
    }
  }
  return 0;
}

/* Reads and hashes pieces until none is left, or one could not be read. */
static void *weights_work(void *shared) {
  weights_job *job = shared;
  const plan_weight *weight = job->net->weights;
  uint64_t first = 0; /* the number of the weight's first piece */
  for (;;) {
    uint64_t piece = atomic_fetch_add(&job->next, 1);
    if (piece >= job->pieces || atomic_load(&job->fault)) return NULL;
    while (piece - first >= weights_pieces(weight)) first += weights_pieces(weight++);
    uint64_t begin = (piece - first) * WEIGHTS_PIECE, bytes = weight->bytes - begin;
    if (bytes > WEIGHTS_PIECE) bytes = WEIGHTS_PIECE;
    char *place = (char *)job->to->tensors[weight - job->net->weights] + begin;
    int fault = weights_in_place(job->to, weight)
                    ? 0
                    : weights_read(job->file, place, bytes, weight->offset + begin);
    if (fault) {
      atomic_store(&job->fault, fault);
      return NULL;
    }
    if (job->hash) sha256(job->hash, place, bytes, job->digests[piece]);
  }
}

/* Does a job by so many threads, of which the caller's is one. */
static void weights_share(weights_job *job, int threads) {
  pthread_t others[WEIGHTS_MOST_THREADS];
  int count = 0;
  while (count < WEIGHTS_MOST_THREADS && count + 1 < threads &&
         (uint64_t)count + 1 < job->pieces &&
         !pthread_create(&others[count], NULL, weights_work, job))
    count++;
  weights_work(job);
  while (count) pthread_join(others[--count], NULL);
}

/* The first tensor whose pieces have other hashes than when the net was compiled, or NULL. */
static const plan_weight *weights_changed(const weights_job *job) {
  const plan_weight *end = job->net->weights + job->net->num_weights;
  const weights_digest *digests = (const weights_digest *)job->digests;
  for (const plan_weight *weight = job->net->weights; weight != end; weight++) {
    weights_digest digest;
    uint64_t count = weights_pieces(weight);
    sha256(job->hash, digests, count * SHA256_DIGEST, digest);
    if (memcmp(digest, weight->sha256, SHA256_DIGEST)) return weight;
    digests += count;
  }
  return NULL;
}

/* Fills the tensors that are not used in place, and compares all with their hashes. */
static int weights_fill(const plan_net *net, const char *path, int file, int trusted, int threads,
                        const weights *to, char *why, size_t size) {
  weights_job job = {.net = net, .to = to, .file = file};
  for (uint32_t i = 0; i < net->num_weights; i++) job.pieces += weights_pieces(&net->weights[i]);
  if (!trusted) {
    job.hash = sha256_fastest();
    job.digests = calloc(job.pieces + 1, sizeof *job.digests);
    if (!job.digests) return weights_refuse(why, size, "%s: %s", path, strerror(ENOMEM));
  }
  /* What is mapped and trusted is hardly touched: threads would take longer to begin. */
  weights_share(&job, trusted && to->mapping ? 1 : threads);
  int fault = atomic_load(&job.fault);
  const plan_weight *changed = fault || trusted ? NULL : weights_changed(&job);
  free(job.digests);
  if (fault) return weights_refuse(why, size, "%s: %s", path, weights_words(fault));
  if (changed)
    return weights_refuse(why, size,
                          "%s: its tensor %s is not what the net was compiled with: it is damaged",
                          path, changed->name);
  return 0;
}

static int weights_open(const plan_net *net, const char *path, int in_pages, int trusted,
                        int threads, weights *out, char *why, size_t size) {
  *out = (weights){0};
  int file = weights_file(net, path, why, size);
  if (file < 0) return -1;
  int failed = weights_check_header(net, path, file, why, size);
  if (!failed) {
    int fault = weights_place(net, file, in_pages, out);
    if (fault) weights_refuse(why, size, "%s: %s", path, strerror(fault));
    failed = fault || weights_fill(net, path, file, trusted, threads, out, why, size);
  }
  close(file);
  if (failed) weights_close(out);
  return failed ? -1 : 0;
}

static void *weights_at(const weights *from, uint32_t number) { return from->tensors[number]; }

static void weights_close(weights *each) {
  if (each->mapping) munmap(each->mapping, each->mapping_bytes);
  free(each->memory);
  free(each->tensors);
  *each = (weights){0};
}
