/* Opens weights as told, line by line: `in_pages trusted threads fault cut path`. For each it prints
 * `refused` and the reason, or `open`, a hash of all tensors, and the seconds that opening took.
 *
 * The plan is read from the file that is the argument: the bytes of the file and of its header, the
 * header's hash, the number of tensors; then of each its name, offset, bytes and hash.
 *
 * With FAULTS reads are short and interrupted; the system call or allocation of number `fault` fails,
 * and the read of number `cut` finds the end of the file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int fault_at, cut_at;
static _Atomic int calls, reads; /* that there were since weights began to be opened */

#ifdef FAULTS
#define AT_ONCE 5000 /* bytes that are read at most */

static int fails(int error) {
  if (atomic_fetch_add(&calls, 1) + 1 != fault_at) return 0;
  errno = error;
  return 1;
}

static ssize_t faulty_pread(int file, void *to, size_t size, off_t from) {
  int number = atomic_fetch_add(&reads, 1) + 1;
  if (number == cut_at) return 0;
  if (fails(EIO)) return -1;
  if (number % 3 == 0) {
    errno = EINTR;
    return -1;
  }
  return pread(file, to, size < AT_ONCE ? size : AT_ONCE, from);
}

#define open(path, flags) (fails(EMFILE) ? -1 : open(path, flags))
#define fstat(file, found) (fails(EIO) ? -1 : fstat(file, found))
#define mmap(place, size, how, kind, file, from) \
  (fails(ENODEV) ? MAP_FAILED : mmap(place, size, how, kind, file, from))
#define malloc(size) (fails(ENOMEM) ? NULL : malloc(size))
#define calloc(count, size) (fails(ENOMEM) ? NULL : calloc(count, size))
#define aligned_alloc(to, size) (fails(ENOMEM) ? NULL : aligned_alloc(to, size))
#define pthread_create(thread, how, work, with) \
  (fails(EAGAIN) ? EAGAIN : pthread_create(thread, how, work, with))
#define pread(file, to, size, from) faulty_pread(file, to, size, from)
#endif

#include "weights.c"

#undef malloc
#undef calloc

static void require(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what);
  exit(3);
}

static void read_hash(FILE *file, uint8_t *hash) {
  for (unsigned i = 0; i < SHA256_DIGEST; i++)
    require(fscanf(file, "%2" SCNx8, &hash[i]) == 1, "plan: hash");
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Prints the hash of the hashes of all tensors. */
static void print_contents(const plan_net *net, const weights *found) {
  weights_digest *digests = calloc(net->num_weights + 1u, sizeof *digests), all;
  for (uint32_t i = 0; i < net->num_weights; i++) {
    const void *place = weights_at(found, i);
    require((uintptr_t)place % ALIGNMENT == 0, "a tensor is not aligned");
    sha256(sha256_fastest(), place, net->weights[i].bytes, digests[i]);
  }
  sha256(sha256_fastest(), digests, net->num_weights * sizeof *digests, all);
  free(digests);
  for (unsigned i = 0; i < SHA256_DIGEST; i++) printf("%02x", all[i]);
}

static int next_file(void) {
  int next = dup(0);
  close(next);
  return next;
}

static int is_mapped(const char *path) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[5000];
  int found = 0;
  while (maps && fgets(line, sizeof line, maps)) found |= strstr(line, path) != NULL;
  if (maps) fclose(maps);
  return found;
}

int main(int argc, char **argv) {
  FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;
  require(file != NULL, "plan: no such file");
  plan_net net = {0};
  require(fscanf(file, "%" SCNu64 " %" SCNu64 " ", &net.file_bytes, &net.header_bytes) == 2, "plan");
  read_hash(file, net.header_sha256);
  require(fscanf(file, "%" SCNu32, &net.num_weights) == 1, "plan: tensors");
  plan_weight *tensors = calloc(net.num_weights + 1u, sizeof *tensors);
  char(*names)[100] = calloc(net.num_weights + 1u, sizeof *names);
  for (uint32_t i = 0; i < net.num_weights; i++) {
    plan_weight *each = &tensors[i];
    require(fscanf(file, "%99s %" SCNu64 " %" SCNu64 " ", names[i], &each->offset, &each->bytes) == 3,
            "plan: tensor");
    each->name = names[i];
    read_hash(file, each->sha256);
  }
  net.weights = tensors;
  fclose(file);

  int next = next_file(), in_pages, trusted, threads;
  char path[4096], why[512];
  while (scanf("%d %d %d %d %d %4095[^\n]", &in_pages, &trusted, &threads, &fault_at, &cut_at, path) == 6) {
    weights found;
    atomic_store(&calls, 0);
    atomic_store(&reads, 0);
    double start = seconds();
    int refused = weights_open(&net, path, in_pages, trusted, threads, &found, why, sizeof why);
    double took = seconds() - start;
    if (refused) {
      require(!found.mapping && !found.memory && !found.tensors, "something was kept");
      printf("refused %s\n", why);
    } else {
      printf("open ");
      print_contents(&net, &found);
      printf(" %.6f\n", took);
    }
    weights_close(&found);
    require(next_file() == next, "a file was left open");
  }
  require(!is_mapped(path), "a file was left mapped");
  free(tensors);
  free(names);
  return 0;
}
