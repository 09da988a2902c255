/* Reads the PPM file that its first argument names, for test_ppm.py: writes width, height and the
 * pixels, or ends with 1 and the reason. */
#include "ppm.h"

int main(int count, char **words) {
  FILE *file = count > 1 ? fopen(words[1], "rb") : NULL;
  if (!file) return 2;
  int64_t size[2];
  const char *why;
  uint8_t *pixels = read_ppm(file, &size[0], &size[1], &why);
  fclose(file);
  if (!pixels) return fputs(why, stderr), 1;
  fwrite(size, sizeof *size, 2, stdout);
  fwrite(pixels, 1, (size_t)(3 * size[0] * size[1]), stdout);
  free(pixels);
  return 0;
}
