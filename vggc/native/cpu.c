/* Which instructions this machine's processors have.
 *
 * Sources: Intel's Software Developer's Manual, volume 2, CPUID, and volume 1, 13.3 (XCR0); Linux's
 * Documentation/arch/arm64/elf_hwcaps.rst.
 */
#include <string.h>

#include "plan.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };

typedef struct { /* the bit that tells of a set of instructions, by LLVM's name for it */
  const char *name;
  uint32_t leaf, subleaf;
  uint8_t word, bit;
} cpu_bit;

static const cpu_bit cpu_bits[] = {
  {"sse3", 1, 0, ECX, 0}, {"ssse3", 1, 0, ECX, 9}, {"fma", 1, 0, ECX, 12},
  {"sse4.1", 1, 0, ECX, 19}, {"sse4.2", 1, 0, ECX, 20}, {"movbe", 1, 0, ECX, 22},
  {"popcnt", 1, 0, ECX, 23}, {"avx", 1, 0, ECX, 28}, {"f16c", 1, 0, ECX, 29},
  {"sse", 1, 0, EDX, 25}, {"sse2", 1, 0, EDX, 26},
  {"bmi", 7, 0, EBX, 3}, {"avx2", 7, 0, EBX, 5}, {"bmi2", 7, 0, EBX, 8},
  {"avx512f", 7, 0, EBX, 16}, {"avx512dq", 7, 0, EBX, 17}, {"avx512ifma", 7, 0, EBX, 21},
  {"avx512cd", 7, 0, EBX, 28}, {"avx512bw", 7, 0, EBX, 30}, {"avx512vl", 7, 0, EBX, 31},
  {"avx512vbmi", 7, 0, ECX, 1}, {"avx512vbmi2", 7, 0, ECX, 6}, {"gfni", 7, 0, ECX, 8},
  {"avx512vnni", 7, 0, ECX, 11}, {"avx512bitalg", 7, 0, ECX, 12},
  {"avx512vpopcntdq", 7, 0, ECX, 14}, {"avx512vp2intersect", 7, 0, EDX, 8},
  {"avx512fp16", 7, 0, EDX, 23}, {"avxvnni", 7, 1, EAX, 4}, {"avx512bf16", 7, 1, EAX, 5},
  {"avxifma", 7, 1, EAX, 23}, {"avxvnniint8", 7, 1, EDX, 4}, {"avxneconvert", 7, 1, EDX, 5},
  {"avxvnniint16", 7, 1, EDX, 10},
  {"lzcnt", 0x80000001, 0, ECX, 5}, {"sse4a", 0x80000001, 0, ECX, 6},
};

/* The registers that the system saves for each thread: XCR0, or 0 where it saves none so. */
static uint64_t cpu_saved(void) {
  uint32_t a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

static int starts(const char *name, const char *with) {
  return !strncmp(name, with, strlen(with));
}

static int cpu_has(const char *name) {
  uint64_t saved = cpu_saved();
  uint64_t needed = starts(name, "avx512") ? 0xe6 : 0;
  if (starts(name, "avx") || starts(name, "fma") || starts(name, "f16c")) needed |= 6;
  for (size_t i = 0; i < sizeof cpu_bits / sizeof *cpu_bits; i++) {
    const cpu_bit *each = &cpu_bits[i];
    uint32_t words[4] = {0};
    if (strcmp(each->name, name)) continue;
    if (!__get_cpuid_count(each->leaf, each->subleaf, words, words + 1, words + 2, words + 3))
      return 0;
    return (words[each->word] >> each->bit & 1) && (saved & needed) == needed;
  }
  return 1;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

typedef struct {
  const char *name;
  unsigned long kind, bit; /* of which word of the auxiliary vector: AT_HWCAP or AT_HWCAP2 */
} cpu_bit;

static const cpu_bit cpu_bits[] = {
  {"neon", AT_HWCAP, 1}, {"fullfp16", AT_HWCAP, 10}, {"dotprod", AT_HWCAP, 20},
  {"sve", AT_HWCAP, 22}, {"sve2", AT_HWCAP2, 1}, {"i8mm", AT_HWCAP2, 13}, {"bf16", AT_HWCAP2, 14},
};

static int cpu_has(const char *name) {
  for (size_t i = 0; i < sizeof cpu_bits / sizeof *cpu_bits; i++)
    if (!strcmp(cpu_bits[i].name, name)) return getauxval(cpu_bits[i].kind) >> cpu_bits[i].bit & 1;
  return 1;
}
#else
static int cpu_has(const char *name) {
  (void)name;
  return 1;
}
#endif

/* The first set of instructions that a net's code may use and this CPU certainly lacks, or NULL. */
static const char *cpu_lacks(const plan_net *net) {
  const char *const *name = net->instructions;
  while (*name && cpu_has(*name)) name++;
  return *name;
}
