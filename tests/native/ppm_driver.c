/* Reads the PPM file that its first argument names, for test_ppm.py: writes width, height and the
 * pixels, or ends with 1 and the reason. */
#include "ppm.h"

int main(int count, char **words) {
  if (count != 2) return 2;
  ppm_picture found = read_ppm(words[1]);
  if (!found.rgb) return fputs(found.why, stderr), 1;
  int64_t size[2] = {found.width, found.height};
  fwrite(size, sizeof *size, 2, stdout);
  fwrite(found.rgb, 1, (size_t)(3 * size[0] * size[1]), stdout);
  free(found.rgb);
  return 0;
}
