/* Resizes, cuts, pads and normalises pictures with Pillow's and numpy's numbers.
 *
 * Source of the resampling: Pillow, src/libImaging/Resample.c; Geometry.c for the nearest pixel. A
 * side's new pixel is a weighted mean of old ones. Weights are a filter's, as wide as the ratio of
 * the sides makes it, and at least as wide as for sides that are alike; they are computed in double
 * precision and rounded to SHARE_BITS bits. Rows are resized first, then columns; both results are
 * rounded to 8 bits. Only what is cut out is computed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "pictures.h"

#define MOST_PIXELS 89478485 /* in a picture, as in Python, which takes them from Pillow */
#define MOST_ASPECT 32       /* of a picture's longer side to its shorter one */
#define SHARE_BITS 22        /* 8 bits of a value and 2 of room make up 32 with these */
#define SUMS_AT_ONCE 1024    /* values whose sums stay in the nearest cache */

/* How the pixels come about that are cut out of the middle of a resized side. */
typedef struct {
  int64_t cut;        /* how many they are */
  int64_t begin, end; /* the part of the side before, that they are made of */
  int64_t most;       /* old pixels that one is made of, at most */
  int64_t *first;     /* for each the first old pixel, counted from `begin` */
  int64_t *count;     /* and how many they are */
  int32_t *shares;    /* `most` for each: what the old ones count, 1 << SHARE_BITS in all */
} resampling;

/* Pixels of 8 bits a channel, in rows that begin `row_bytes` apart. */
typedef struct {
  const uint8_t *rows;
  int64_t row_bytes;
} raster;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* A product rounded by itself, which no compiler joins with the sum that it is part of. */
static double rounded_product(double a, double b) {
  volatile double product = a * b;
  return product;
}

/* The nearest whole number; of two, the even one, as Python rounds. */
static int64_t rounded(double value) {
  int64_t whole = (int64_t)value;
  double rest = value - (double)whole;
  return whole + (rest > 0.5 || (rest == 0.5 && whole % 2));
}

/* Width and height of the whole picture once it is resized. */
static void resized(const plan_preprocessing *how, int64_t width, int64_t height,
                    int64_t *new_width, int64_t *new_height) {
  *new_width = how->width;
  *new_height = how->height;
  if (how->fit == FIT_SQUASH) return;
  double high = (double)how->height / (double)height, wide = (double)how->width / (double)width;
  int pads = how->fit == FIT_PAD;
  double factor = how->scale ? (double)how->scale / (double)smaller(width, height)
                             : (high > wide) != pads ? high : wide;
  int64_t across = rounded(rounded_product((double)width, factor));
  int64_t down = rounded(rounded_product((double)height, factor));
  *new_width = pads ? smaller(how->width, larger(across, 1)) : larger(how->width, across);
  *new_height = pads ? smaller(how->height, larger(down, 1)) : larger(how->height, down);
}

static const double reach[] = {[BY_BOX] = 0.5, [BY_BILINEAR] = 1, [BY_BICUBIC] = 2};

/* The weight of an old pixel at a distance from a new one, counted in pixels of the smaller of both
   sides. Cubes follow Keys (1981) with a = -1/2. */
static double weight_at(int interpolation, double x) {
  if (interpolation == BY_BOX) return x > -0.5 && x <= 0.5;
  if (x < 0) x = -x;
  if (interpolation == BY_BILINEAR) return x < 1 ? 1 - x : 0;
  if (x < 1) {
    double inner = rounded_product(1.5, x) - 2.5;
    return rounded_product(rounded_product(inner, x), x) + 1;
  }
  if (x >= 2) return 0;
  double inner = rounded_product(x - 5, x) + 8;
  return rounded_product(rounded_product(inner, x) - 4, -0.5);
}

/* Memory for so many rows of so many bytes; NULL where there is none. */
static uint8_t *some_rows(int64_t rows, int64_t bytes) {
  return (uint64_t)rows > SIZE_MAX / (uint64_t)bytes ? NULL : malloc((size_t)(rows * bytes));
}

/* The old pixels that are the nearest to each of those that are cut out. */
static void take_nearest(resampling *made, double scale, int64_t skipped) {
  double place = scale * 0.5;
  for (int64_t i = -skipped; i < made->cut; i++, place += scale) { /* added up, as Pillow does */
    if (i < 0) continue;
    if (i == 0) made->begin = (int64_t)place;
    made->end = (int64_t)place + 1;
    made->first[i] = (int64_t)place - made->begin;
    made->count[i] = 1;
    made->shares[i * made->most] = 1 << SHARE_BITS;
  }
}

/* How `cut` pixels from the middle of a side come about, which is resized from `length` to
   `new_length`. Gives 0, or -1 where there is no memory; forget() gives it back in either case. */
static int resample(resampling *made, int interpolation, int64_t length, int64_t new_length,
                    int64_t cut) {
  /* No resizing leaves every pixel as it is, whatever the filter. */
  int nearest = interpolation == BY_NEAREST || length == new_length;
  double scale = (double)length / (double)new_length, stretch = scale > 1 ? scale : 1;
  double support = nearest ? 0 : rounded_product(reach[interpolation], stretch);
  double slope = 1 / stretch;
  made->cut = cut;
  made->most = 2 * ((int64_t)support + 1) + 1;
  made->first = malloc((size_t)cut * sizeof *made->first);
  made->count = malloc((size_t)cut * sizeof *made->count);
  made->shares = malloc((size_t)cut * (size_t)made->most * sizeof *made->shares);
  double *weights = malloc((size_t)made->most * sizeof *weights);
  int failed = !made->first || !made->count || !made->shares || !weights;
  if (nearest && !failed) take_nearest(made, scale, (new_length - cut) / 2);
  for (int64_t i = 0; i < cut && !nearest && !failed; i++) {
    double centre = rounded_product((double)((new_length - cut) / 2 + i) + 0.5, scale), sum = 0;
    int64_t first = larger((int64_t)(centre - support + 0.5), 0);
    int64_t count = smaller((int64_t)(centre + support + 0.5), length) - first;
    for (int64_t each = 0; each < count; each++) {
      double distance = rounded_product((double)(first + each) - centre + 0.5, slope);
      sum += weights[each] = weight_at(interpolation, distance);
    }
    int32_t *shares = made->shares + i * made->most;
    for (int64_t each = 0; each < count; each++) {
      double share = rounded_product(sum != 0 ? weights[each] / sum : 0, 1 << SHARE_BITS);
      shares[each] = (int32_t)(share + (share < 0 ? -0.5 : 0.5));
    }
    if (i == 0) made->begin = first;
    made->end = first + count;
    made->first[i] = first - made->begin;
    made->count[i] = count;
  }
  free(weights);
  return failed ? -1 : 0;
}

static void forget(resampling *made) {
  free(made->first);
  free(made->count);
  free(made->shares);
}

#define HALF_LEVEL (1 << (SHARE_BITS - 1)) /* what sums begin with, so that they are rounded */

static uint8_t level(int32_t sum) { /* shares may be below nothing, and more than a whole in all */
  int32_t value = sum >> SHARE_BITS;
  return (uint8_t)(value < 0 ? 0 : value < 255 ? value : 255);
}

/* Resizes a row of pixels. It is inlined for each number of channels. */
static inline void resize_row(const resampling *side, const uint8_t *row, int channels,
                              uint8_t *out) {
  for (int64_t x = 0; x < side->cut; x++) {
    const uint8_t *from = row + side->first[x] * channels;
    const int32_t *shares = side->shares + x * side->most;
    int32_t sums[3] = {HALF_LEVEL, HALF_LEVEL, HALF_LEVEL};
    for (int64_t i = 0; i < side->count[x]; i++)
      for (int c = 0; c < channels; c++) sums[c] += shares[i] * from[i * channels + c];
    for (int c = 0; c < channels; c++) *out++ = level(sums[c]);
  }
}

static void resize_rows(const resampling *side, raster from, int64_t rows, int channels,
                        uint8_t *out) {
  for (int64_t y = 0; y < rows; y++, out += side->cut * channels) {
    const uint8_t *row = from.rows + y * from.row_bytes;
    if (channels == 3)
      resize_row(side, row, 3, out);
    else
      resize_row(side, row, 1, out);
  }
}

/* Resizes columns of single bytes, `bytes` of them beside each other. */
static void resize_columns(const resampling *side, raster from, int64_t bytes, uint8_t *out) {
  for (int64_t y = 0; y < side->cut; y++, out += bytes) {
    const uint8_t *rows = from.rows + side->first[y] * from.row_bytes;
    const int32_t *shares = side->shares + y * side->most;
    for (int64_t begin = 0; begin < bytes; begin += SUMS_AT_ONCE) {
      int64_t count = smaller(bytes - begin, SUMS_AT_ONCE);
      int32_t sums[SUMS_AT_ONCE];
      for (int64_t x = 0; x < count; x++) sums[x] = HALF_LEVEL;
      for (int64_t i = 0; i < side->count[y]; i++) {
        const uint8_t *row = rows + i * from.row_bytes + begin;
        for (int64_t x = 0; x < count; x++) sums[x] += shares[i] * row[x];
      }
      for (int64_t x = 0; x < count; x++) out[begin + x] = level(sums[x]);
    }
  }
}

/* Source: Pillow, src/libImaging/Convert.c, of ITU-R BT.601. */
static void make_grey(raster rgb, int64_t width, int64_t height, uint8_t *out) {
  for (int64_t y = 0; y < height; y++) {
    const uint8_t *from = rgb.rows + y * rgb.row_bytes;
    for (int64_t x = 0; x < width; x++, from += 3)
      *out++ = (uint8_t)((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >> 16);
  }
}

/* Pixels, `height` rows of `width`, in the middle of the net's input. */
static void normalise(const plan_preprocessing *how, const uint8_t *pixels, int64_t width,
                      int64_t height, float *out) {
  int64_t left = (how->width - width) / 2, top = (how->height - height) / 2;
  int64_t area = (int64_t)how->height * how->width;
  for (int c = 0; c < how->channels; c++, out += area) {
    const float *values = how->values[c];
    const uint8_t *from = pixels + how->from[c];
    float ground = values[how->background[how->from[c]]];
    for (int64_t i = 0; i < area && how->fit == FIT_PAD; i++) out[i] = ground;
    for (int64_t y = 0; y < height; y++) {
      float *row = out + (top + y) * how->width + left;
      for (int64_t x = 0; x < width; x++, from += how->channels) row[x] = values[*from];
    }
  }
}

/* Prepares a picture that is resized by `columns`, which makes its width, and `lines`, which makes
   its height. Gives 0, or -1 where there is no memory. */
static int prepare_by(const plan_preprocessing *how, const resampling *columns,
                      const resampling *lines, raster rgb, float *out) {
  int channels = how->channels;
  int64_t width = columns->end - columns->begin, height = lines->end - lines->begin;
  int64_t new_bytes = columns->cut * channels; /* of a row */
  uint8_t *grey = some_rows(channels == 1 ? height : 1, width);
  uint8_t *half = some_rows(height, new_bytes);
  uint8_t *whole = some_rows(lines->cut, new_bytes);
  int failed = !grey || !half || !whole;
  if (!failed) {
    raster from = {rgb.rows + lines->begin * rgb.row_bytes + columns->begin * 3, rgb.row_bytes};
    if (channels == 1) {
      make_grey(from, width, height, grey);
      from = (raster){grey, width};
    }
    resize_rows(columns, from, height, channels, half);
    resize_columns(lines, (raster){half, new_bytes}, new_bytes, whole);
    normalise(how, whole, columns->cut, lines->cut, out);
  }
  free(whole);
  free(half);
  free(grey);
  return failed ? -1 : 0;
}

static const char *unusable(int64_t width, int64_t height, int64_t row_bytes) {
  if (width < 1 || height < 1) return "there are no pixels";
  if (width > MOST_PIXELS / height) return "they are more than 89,478,485 pixels";
  if (larger(width, height) > MOST_ASPECT * smaller(width, height)) return "too long and narrow";
  if (row_bytes < 3 * width) return "rows begin less apart than they are long";
  if (row_bytes > PTRDIFF_MAX / height) return "rows begin too far apart";
  return NULL;
}

static int prepare(const plan_preprocessing *how, const uint8_t *rgb, int64_t width, int64_t height,
                   int64_t row_bytes, float *out, char *why, size_t size) {
  const char *fault = unusable(width, height, row_bytes);
  if (!fault) {
    int64_t new_width, new_height;
    resized(how, width, height, &new_width, &new_height);
    resampling columns = {0}, lines = {0};
    int by = how->interpolation;
    if (resample(&columns, by, width, new_width, smaller(new_width, how->width)) ||
        resample(&lines, by, height, new_height, smaller(new_height, how->height)) ||
        prepare_by(how, &columns, &lines, (raster){rgb, row_bytes}, out))
      fault = "out of memory";
    forget(&lines);
    forget(&columns);
  }
  if (!fault) return 0;
  snprintf(why, size, "a picture of %" PRId64 "x%" PRId64 ": %s", width, height, fault);
  return -1;
}
