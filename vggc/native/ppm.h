/* Reads pictures of the simplest of formats: PPM, netpbm's P6. For what other formats hold, a
 * program needs a decoder. */
#ifndef VGGC_PPM_H
#define VGGC_PPM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST_PPM_PIXELS 89478485

static int is_ppm_space(int letter) { return letter == ' ' || (letter >= '\t' && letter <= '\r'); }

/* A number of the header, behind spaces and comments; -1 where there is none up to a limit. One
 * space ends it, and the last one the header. */
static int64_t ppm_number(FILE *file, int64_t most) {
  int letter = getc(file);
  for (int is_comment = 0; is_comment || letter == '#' || is_ppm_space(letter);
       letter = getc(file)) {
    if (letter == EOF) return -1;
    is_comment = (is_comment || letter == '#') && letter != '\n' && letter != '\r';
  }
  if (letter < '0' || letter > '9') return -1;
  int64_t number = 0;
  for (; letter >= '0' && letter <= '9' && number <= most; letter = getc(file))
    number = 10 * number + letter - '0';
  return number <= most && is_ppm_space(letter) ? number : -1;
}

/* The picture in a file: rows of RGB, 8 bits a colour, one behind the other, to be freed. NULL with
 * a reason where there is none. Of several pictures it is the first. */
static uint8_t *read_ppm(FILE *file, int64_t *width, int64_t *height, const char **why) {
  int is_ppm = getc(file) == 'P' && getc(file) == '6' && is_ppm_space(getc(file));
  *width = *height = 0;
  *why = "not a PPM file (P6)";
  if (!is_ppm) return NULL;
  *width = ppm_number(file, MOST_PPM_PIXELS);
  *height = *width > 0 ? ppm_number(file, MOST_PPM_PIXELS / *width) : -1;
  *why = "its width and height are not those of a picture of up to 89,478,485 pixels";
  if (*height <= 0) return NULL;
  *why = "its colours are not of 8 bits: its largest value has to be 255";
  if (ppm_number(file, 255) != 255) return NULL;
  size_t bytes = 3 * (size_t)*width * (size_t)*height;
  uint8_t *pixels = malloc(bytes);
  *why = pixels ? "it ends before its picture does" : "out of memory";
  if (pixels && fread(pixels, 1, bytes, file) == bytes) return pixels;
  free(pixels);
  return NULL;
}

#endif
