/* From a picture to the input of a net, by the rules of vggc_runtime/preprocessing.py. */
#ifndef VGGC_PICTURES_H
#define VGGC_PICTURES_H

#include <stddef.h>
#include <stdint.h>

/* How a picture comes to have the size of the net's input: resized in proportion and cut out of the
   middle; resized whatever its proportion; resized in proportion, with a background around it. */
enum fit { FIT_CROP, FIT_SQUASH, FIT_PAD };

/* How pixels are made of others: Pillow's filters but Lanczos', whose sines differ from one C
   library to another. */
enum interpolation { BY_NEAREST, BY_BOX, BY_BILINEAR, BY_BICUBIC };

/* What is done to a picture. vggc/compiler/preprocessing_table.py writes it for a net. */
typedef struct {
  uint8_t channels;      /* 3: colours; 1: grey, made of the three */
  uint8_t fit, interpolation;
  uint8_t background[3]; /* for each channel of pixels: red, green and blue, or grey */
  uint8_t from[3];       /* for each channel of the input that of pixels which it is */
  int32_t height, width; /* of the net's input */
  int32_t scale;         /* of the shorter side before it is cut; 0: it just covers the input */
  float values[3][256];  /* what each of the input's channels' values from 0 to 255 become */
} plan_preprocessing;

/* Makes of a picture in RGB, 8 bits a colour, whose rows of `width` pixels begin `row_bytes` apart,
   what vggc makes of it in Python, bit for bit: floats in the order channels, height, width of the
   net's input. Gives 0, or -1 with a reason in `why`, which has room for `size` characters. */
static int prepare(const plan_preprocessing *how, const uint8_t *rgb, int64_t width, int64_t height,
                   int64_t row_bytes, float *out, char *why, size_t size);

#endif
