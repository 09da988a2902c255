/* The weights of a net in memory, mapped from their file or read from it.
 *
 * Mapped, they take no memory of their own: what the system has of the file is used where it lies,
 * by all processes that map it, and a trusted file is open in no time. Read, they lie on pages of
 * 2 MiB where the system lets one, and kernels read them faster (vggc/runtime/huge_pages.py).
 *
 * Who cuts a file while it is mapped ends the program: beyond the new end every access raises
 * SIGBUS. What is written into a mapped file may or may not be seen, after it was verified, too; put
 * another file in its place instead. Weights that were read are a copy that neither can reach.
 *
 * All names are static: the file that includes weights.c has them for itself. It defines
 * _GNU_SOURCE before it includes anything.
 */
#ifndef VGGC_WEIGHTS_H
#define VGGC_WEIGHTS_H

#include "plan.h"

typedef struct {
  void *mapping; /* the whole file, or NULL */
  size_t mapping_bytes;
  char *memory;   /* for tensors that are not used where the mapping has them */
  void **tensors; /* where each lies, at a multiple of ALIGNMENT; one that is mapped is not written */
} weights;

/* Takes the weights of a net from a file: reads them onto large pages if `in_pages`, or else maps
 * them. The file's size and the hash of its header are always compared with what the net was
 * compiled with, the contents of all tensors unless the file is `trusted`. So many threads, with
 * the caller's, read and compare; where the system refuses one the others do its work.
 *
 * Returns 0, or -1 with the reason in `why`, which has room for `size` bytes; nothing is kept then.
 */
static int weights_open(const plan_net *net, const char *path, int in_pages, int trusted,
                        int threads, weights *out, char *why, size_t size);

static void *weights_at(const weights *from, uint32_t number);

/* Gives back what weights_open took. May be called again, and with zeros. */
static void weights_close(weights *each);

#endif
