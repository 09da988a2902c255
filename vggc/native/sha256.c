/* SHA-256: FIPS 180-4, sections 4.1.2, 4.2.2, 5.1.1, 5.3.3 and 6.2.
 *
 * Of three implementations the fastest is chosen when the program runs: x86's SHA extensions,
 * aarch64's, or C. All names are static: a file that needs them includes this one.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define SHA256_EXTENSION __attribute__((target("sha,sse4.1")))
#elif defined(__aarch64__) && defined(__AARCH64EL__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#define SHA256_EXTENSION __attribute__((target("+crypto")))
#define SHA256_HWCAP (1ul << 6) /* HWCAP_SHA2 of Linux's asm/hwcap.h */
#endif

#define SHA256_BLOCK 64u  /* bytes that are hashed at once */
#define SHA256_DIGEST 32u /* bytes of a hash */

/* Hashes so many blocks into the state. */
typedef void sha256_function(uint32_t state[8], const uint8_t *data, size_t blocks);

static const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

static inline uint32_t sha256_rotated(uint32_t word, int right) {
  return word >> right | word << (32 - right);
}

static inline uint32_t sha256_word(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void sha256_portable(uint32_t state[8], const uint8_t *data, size_t blocks) {
  for (; blocks; blocks--, data += SHA256_BLOCK) {
    uint32_t w[64];
    for (int t = 0; t < 16; t++) w[t] = sha256_word(data + 4 * t);
    for (int t = 16; t < 64; t++) {
      uint32_t x = w[t - 15], y = w[t - 2];
      uint32_t sigma0 = sha256_rotated(x, 7) ^ sha256_rotated(x, 18) ^ x >> 3;
      uint32_t sigma1 = sha256_rotated(y, 17) ^ sha256_rotated(y, 19) ^ y >> 10;
      w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
      uint32_t sum1 = sha256_rotated(e, 6) ^ sha256_rotated(e, 11) ^ sha256_rotated(e, 25);
      uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + sha256_constants[t] + w[t];
      uint32_t sum0 = sha256_rotated(a, 2) ^ sha256_rotated(a, 13) ^ sha256_rotated(a, 22);
      uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
}

/* With extensions, 4 rounds take 4 words of the message, and 4 words follow from the 16 before. */
#if defined(__x86_64__)

SHA256_EXTENSION static inline void sha256_rounds(__m128i *abef, __m128i *cdgh, __m128i words,
                                                  int t) {
  const __m128i *constants = (const __m128i *)(const void *)(sha256_constants + t);
  __m128i sums = _mm_add_epi32(words, _mm_loadu_si128(constants));
  *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sums);
  *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(sums, 0x0e));
}

SHA256_EXTENSION static inline __m128i sha256_next(__m128i w0, __m128i w1, __m128i w2,
                                                   __m128i w3) {
  __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
  return _mm_sha256msg2_epu32(sum, w3);
}

SHA256_EXTENSION static inline __m128i sha256_load(const uint8_t *data) {
  const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)data), order);
}

SHA256_EXTENSION static void sha256_extension(uint32_t state[8], const uint8_t *data,
                                              size_t blocks) {
  __m128i *halves = (__m128i *)(void *)state;
  __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(halves), 0xb1);
  __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(halves + 1), 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; blocks; blocks--, data += SHA256_BLOCK) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w0 = sha256_load(data), w1 = sha256_load(data + 16);
    __m128i w2 = sha256_load(data + 32), w3 = sha256_load(data + 48);
    for (int t = 0; t < 64; t += 16) {
      sha256_rounds(&abef, &cdgh, w0, t);
      sha256_rounds(&abef, &cdgh, w1, t + 4);
      sha256_rounds(&abef, &cdgh, w2, t + 8);
      sha256_rounds(&abef, &cdgh, w3, t + 12);
      w0 = sha256_next(w0, w1, w2, w3);
      w1 = sha256_next(w1, w2, w3, w0);
      w2 = sha256_next(w2, w3, w0, w1);
      w3 = sha256_next(w3, w0, w1, w2);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(halves, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(halves + 1, _mm_alignr_epi8(dchg, feba, 8));
}

static int sha256_has_extension(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1)) return 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29);
}

#elif defined(SHA256_EXTENSION)

SHA256_EXTENSION static inline void sha256_rounds(uint32x4_t *abcd, uint32x4_t *efgh,
                                                  uint32x4_t words, int t) {
  uint32x4_t sums = vaddq_u32(words, vld1q_u32(sha256_constants + t)), before = *abcd;
  *abcd = vsha256hq_u32(before, *efgh, sums);
  *efgh = vsha256h2q_u32(*efgh, before, sums);
}

SHA256_EXTENSION static inline uint32x4_t sha256_next(uint32x4_t w0, uint32x4_t w1, uint32x4_t w2,
                                                      uint32x4_t w3) {
  return vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
}

SHA256_EXTENSION static inline uint32x4_t sha256_load(const uint8_t *data) {
  return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data)));
}

SHA256_EXTENSION static void sha256_extension(uint32_t state[8], const uint8_t *data,
                                              size_t blocks) {
  uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
  for (; blocks; blocks--, data += SHA256_BLOCK) {
    const uint32x4_t abcd_before = abcd, efgh_before = efgh;
    uint32x4_t w0 = sha256_load(data), w1 = sha256_load(data + 16);
    uint32x4_t w2 = sha256_load(data + 32), w3 = sha256_load(data + 48);
    for (int t = 0; t < 64; t += 16) {
      sha256_rounds(&abcd, &efgh, w0, t);
      sha256_rounds(&abcd, &efgh, w1, t + 4);
      sha256_rounds(&abcd, &efgh, w2, t + 8);
      sha256_rounds(&abcd, &efgh, w3, t + 12);
      w0 = sha256_next(w0, w1, w2, w3);
      w1 = sha256_next(w1, w2, w3, w0);
      w2 = sha256_next(w2, w3, w0, w1);
      w3 = sha256_next(w3, w0, w1, w2);
    }
    abcd = vaddq_u32(abcd, abcd_before);
    efgh = vaddq_u32(efgh, efgh_before);
  }
  vst1q_u32(state, abcd);
  vst1q_u32(state + 4, efgh);
}

static int sha256_has_extension(void) { return (getauxval(AT_HWCAP) & SHA256_HWCAP) != 0; }

#endif

/* The fastest implementation on this CPU. */
static sha256_function *sha256_fastest(void) {
#ifdef SHA256_EXTENSION
  if (sha256_has_extension()) return sha256_extension;
#endif
  return sha256_portable;
}

/* The hash of `size` bytes, by one of the implementations. */
static void sha256(sha256_function *add, const void *data, size_t size,
                   uint8_t digest[SHA256_DIGEST]) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  size_t rest = size % SHA256_BLOCK;
  add(state, data, size / SHA256_BLOCK);

  /* What is left, a bit, and in the end the number of bits. */
  uint8_t end[2 * SHA256_BLOCK] = {0};
  size_t blocks = rest + 9 > SHA256_BLOCK ? 2 : 1;
  if (rest) memcpy(end, (const uint8_t *)data + size - rest, rest);
  end[rest] = 0x80;
  for (unsigned i = 0; i < 8; i++)
    end[blocks * SHA256_BLOCK - 1 - i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
  add(state, end, blocks);

  for (unsigned i = 0; i < SHA256_DIGEST; i++)
    digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}
