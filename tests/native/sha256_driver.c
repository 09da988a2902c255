/* Hashes what it reads by `portable`, `extension` or `fastest`: first its first 0, 1, ... 300 bytes,
 * from a place that is not aligned, then all. Ends with 77 where the CPU lacks the extension.
 */
#include "sha256.c"

#include <stdio.h>
#include <stdlib.h>

#define LONGEST ((size_t)8 << 20)
#define LACKS_EXTENSION 77

static void print_hash(sha256_function *add, const uint8_t *data, size_t size) {
  uint8_t digest[SHA256_DIGEST];
  sha256(add, data, size, digest);
  for (unsigned i = 0; i < SHA256_DIGEST; i++) printf("%02x", digest[i]);
  printf("\n");
}

int main(int argc, char **argv) {
  sha256_function *add = sha256_portable;
  if (argc > 1 && !strcmp(argv[1], "fastest")) add = sha256_fastest();
  if (argc > 1 && !strcmp(argv[1], "extension")) {
#ifdef SHA256_EXTENSION
    if (!sha256_has_extension()) return LACKS_EXTENSION;
    add = sha256_extension;
#else
    return LACKS_EXTENSION;
#endif
  }
  uint8_t *memory = malloc(LONGEST + 1);
  if (!memory) return 1;
  size_t size = fread(memory + 1, 1, LONGEST, stdin);
  for (size_t length = 0; length <= 300; length++) print_hash(add, memory + 1, length);
  print_hash(add, memory + 1, size);
  free(memory);
  return 0;
}
