/* Memory that tensors lie in. */
#ifndef VGGC_PAGES_H
#define VGGC_PAGES_H

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "plan.h"

#define LARGE_PAGE ((size_t)2 << 20) /* on x86-64, and on aarch64 with small pages of 4 KiB */

static size_t rounded_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

/* Memory on large pages, where it is large and the system lets one; free() gives it back. */
static void *allocated(size_t bytes) {
  size_t page = bytes >= LARGE_PAGE ? LARGE_PAGE : ALIGNMENT;
  size_t whole = rounded_up(bytes ? bytes : 1, page);
  void *made = aligned_alloc(page, whole);
#ifdef MADV_HUGEPAGE
  if (made && page == LARGE_PAGE) madvise(made, whole, MADV_HUGEPAGE);
#endif
  return made;
}

#endif
