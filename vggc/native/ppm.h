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

typedef struct {
  uint8_t *rgb; /* rows from top to bottom, 8 bits a colour, to be freed; NULL: there is none */
  int64_t width, height;
  const char *why; /* there is none */
} ppm_picture;

/* The picture that an open file begins with. */
static ppm_picture ppm_in(FILE *file) {
  ppm_picture found = {.why = "not a PPM file (P6)"};
  if (getc(file) != 'P' || getc(file) != '6' || !is_ppm_space(getc(file))) return found;
  found.width = ppm_number(file, MOST_PPM_PIXELS);
  found.height = found.width > 0 ? ppm_number(file, MOST_PPM_PIXELS / found.width) : -1;
  found.why = "its width and height are not those of a picture of up to 89,478,485 pixels";
  if (found.height <= 0) return found;
  found.why = "its colours are not of 8 bits: its largest value has to be 255";
  if (ppm_number(file, 255) != 255) return found;
  size_t bytes = 3 * (size_t)found.width * (size_t)found.height;
  uint8_t *rgb = malloc(bytes);
  found.why = rgb ? "it ends before its picture does" : "out of memory";
  if (rgb && fread(rgb, 1, bytes, file) == bytes) {
    found.rgb = rgb;
  } else {
    free(rgb);
  }
  return found;
}

/* The picture in the file of a path. Of several pictures it is the first. */
static ppm_picture read_ppm(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return (ppm_picture){.why = "it cannot be opened"};
  ppm_picture found = ppm_in(file);
  fclose(file);
  return found;
}

#endif
