/* From a picture to the input of a net, by the rules of vggc_runtime/preprocessing.py. */
#ifndef VGGC_PICTURES_H
#define VGGC_PICTURES_H

#include <stddef.h>
#include <stdint.h>

/* What is done to a picture. vggc/compiler/preprocessing_table.py writes it for a net. */
typedef struct {
  int32_t channels;      /* 3: red, green, blue; 1: grey, made of the three */
  int32_t height, width; /* of what is cut from the middle: the net's input */
  int32_t scale;         /* of the shorter side before that; 0: the picture just covers the input */
  float values[3][256];  /* what each channel's values from 0 to 255 become */
} plan_preprocessing;

/* Makes of a picture in RGB, 8 bits a colour, whose rows of `width` pixels begin `row_bytes` apart,
   what vggc makes of it in Python, bit for bit: floats in the order channels, height, width of the
   net's input. Gives 0, or -1 with a reason in `why`, which has room for `size` characters. */
static int prepare(const plan_preprocessing *how, const uint8_t *rgb, int64_t width, int64_t height,
                   int64_t row_bytes, float *out, char *why, size_t size);

#endif
