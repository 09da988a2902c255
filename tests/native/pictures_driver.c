/* Prepares pictures for test_pictures.py, which writes `plans.c`: `plans`, a plan_preprocessing for
 * each of its preprocessings. A case is 5 numbers of 64 bits and the picture's bytes; the answer is
 * 0 and floats, or 1 and the reason in 128 bytes. Memory has just the size that is needed, so that
 * a sanitizer sees what reads or writes beyond it.
 *
 * With `time COUNT`, it tells instead how many nanoseconds each of so many runs of the first case
 * takes; with `starve`, what is said of the first case while memory ends after 0, 1, 2 pieces. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <time.h>

static int pieces = 1 << 30; /* of memory that there still are */

static void *piece(size_t size) { return pieces-- > 0 ? malloc(size) : NULL; }

#define malloc piece
#include "pictures.c"
#undef malloc
#include "plans.c"

typedef struct { int64_t plan, width, height, row_bytes, bytes; } numbers;

static int prepare_case(const numbers *is, const uint8_t *rgb, float *out, char *why, size_t size) {
  return prepare(&plans[is->plan], rgb, is->width, is->height, is->row_bytes, out, why, size);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void tell_times(const numbers *is, const uint8_t *rgb, float *out, int count) {
  for (; count > 0; count--) {
    char why[1];
    int64_t began = now();
    prepare_case(is, rgb, out, why, sizeof why);
    began = now() - began;
    fwrite(&began, sizeof began, 1, stdout);
  }
}

static void starve(const numbers *is, const uint8_t *rgb, float *out) {
  char why[128];
  for (int left = 0; pieces = left, prepare_case(is, rgb, out, why, sizeof why); left++) puts(why);
}

int main(int count, char **words) {
  numbers is;
  while (fread(&is, sizeof is, 1, stdin) == 1) {
    const plan_preprocessing *how = &plans[is.plan];
    size_t floats = (size_t)how->channels * (size_t)how->height * (size_t)how->width;
    uint8_t *rgb = malloc(is.bytes ? (size_t)is.bytes : 1);
    float *out = malloc(floats * sizeof *out);
    if (!rgb || !out || fread(rgb, 1, (size_t)is.bytes, stdin) != (size_t)is.bytes) return 2;
    char why[128] = {0};
    if (count > 2) {
      tell_times(&is, rgb, out, atoi(words[2]));
    } else if (count > 1) {
      starve(&is, rgb, out);
    } else if (prepare_case(&is, rgb, out, why, sizeof why)) {
      putchar(1);
      fwrite(why, 1, sizeof why, stdout);
    } else {
      putchar(0);
      fwrite(out, sizeof *out, floats, stdout);
    }
    free(rgb);
    free(out);
  }
  return 0;
}
