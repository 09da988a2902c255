// What the helpers that TVM writes around PTX do, on a CPU: tensor cores, asynchronous copies,
// shuffles, and what blocks see of one another.
//
// What is asynchronous happens as late as it may: a copy when its group is waited for, a store that
// no fence follows at the end of the grid. A wait or a fence that is missing then shows as a wrong
// result. What must not be written yet shows where copies happen as soon as they may instead.
// Layouts of fragments: PTX ISA, "Matrix Fragments for mma.m16n8k16", "m16n8k8",
// "m16n8k32" and "ldmatrix".
#pragma once

#include <algorithm>
#include <map>
#include <tuple>

namespace tensor_cores {

using fibers::all;
using fibers::current;
using fibers::kWarp;

constexpr size_t kWarps = 32, kSegment = 16;

struct Copy { uint32_t target; const void* source; uint32_t count; };
struct Store { void* target; uint32_t words[4]; size_t bytes; };

struct Thread {
  std::vector<Copy> begun;
  std::vector<std::vector<Copy>> groups;
  std::vector<Store> stores;
  std::vector<Copy> landed;  // that warpgroups do not see yet
};

static std::vector<Thread> threads;
static fibers::Meeting warps[kWarps];
static void* arguments[kWarps][kWarp];

// Of threads that have ended, and of a block that has said that it is ready, stores are kept:
// other blocks do not see them yet.
static std::vector<Store> unseen;
static bool arrived = false;
static bool copies_at_once = false;
static bool is_hopper = false;  // whether the block has made barriers of Hopper's

static void write(const Store& store) { std::memcpy(store.target, store.words, store.bytes); }

static void keep(Thread& thread) {
  unseen.insert(unseen.end(), thread.stores.begin(), thread.stores.end());
  thread.stores.clear();
}

static void flush(Thread& thread) {
  if (arrived) return keep(thread);
  for (const Store& store : thread.stores) write(store);
  thread.stores.clear();
}

static const bool prepared = [] {
  fibers::at_start_of_block = [] {
    for (Thread& thread : threads) keep(thread);
    threads.assign(all.size(), Thread{});
    arrived = is_hopper = false;
  };
  fibers::at_end_of_grid = [] {
    for (Thread& thread : threads) keep(thread);
    for (const Store& store : unseen) write(store);
    unseen.clear();
  };
  return true;
}();

static Thread& self() { return threads[current]; }

// All lanes of a warp call it with their own arguments; the last one does the work for all.
template <class Arguments, class Work>
static void with_warp(Arguments& own, Work work) {
  const size_t warp = current / kWarp;
  arguments[warp][current % kWarp] = &own;
  warps[warp].join(kWarp, [=] { work(reinterpret_cast<Arguments**>(arguments[warp])); });
}

static float of_float16(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

static float of_bfloat16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

static uint16_t to_float16(float value) {
  const _Float16 rounded = value;
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  return bits;
}

static uint16_t to_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <class Sum>
static Sum sum_of(const Sum* terms, int count) {
  Sum total = terms[0];
  for (int i = 1; i < count; ++i) total += terms[i];
  return total;
}

// What is multiplied: the numbers of a word, the types of a row's, a column's, and a sum.
template <float (*Value)(uint16_t)>
struct Halves {
  using Sum = float;
  static constexpr int kPerWord = 2;
  static float left(uint32_t word, int p) { return Value(word >> 16 * p); }
  static float right(uint32_t word, int p) { return Value(word >> 16 * p); }
  static float total(const float* terms, int count) { return sum_of(terms, count); }
};

struct Tf32 {
  using Sum = float;
  static constexpr int kPerWord = 1;
  // Tensor cores read a float32 as a tf32, without its last 13 bits.
  static float left(uint32_t word, int) {
    float value;
    word &= ~uint32_t{0x1fff};
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
  static float right(uint32_t word, int p) { return left(word, p); }
  // All terms are cut off, toward zero, at the last bit of the largest, and so is their sum.
  // Source: Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores", of the V100; later ones
  // keep a bit or two more.
  static float total(const float* terms, int count) {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(terms[i]));
    if (largest == 0 || !std::isfinite(largest)) return sum_of(terms, count);
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
    double exact = 0;
    for (int i = 0; i < count; ++i) exact += std::trunc(terms[i] / unit) * unit;
    const float nearest = exact;
    return std::abs(nearest) > std::abs(exact) ? std::nextafter(nearest, 0.0f) : nearest;
  }
};

static uint32_t to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return 0x7fffffff;
  return (bits + 0x1000) & ~uint32_t{0x1fff};
}

struct Bytes {
  using Sum = uint32_t;
  static constexpr int kPerWord = 4;
  static uint32_t left(uint32_t word, int p) { return uint8_t(word >> 8 * p); }
  static uint32_t right(uint32_t word, int p) { return int32_t(int8_t(word >> 8 * p)); }
  static uint32_t total(const uint32_t* terms, int count) { return sum_of(terms, count); }
};

template <class Sum>
struct Product {
  Sum* sums[4];
  uint32_t a[4], b[2];
};

template <class Numbers, class Sum = typename Numbers::Sum>
static void multiply(Product<Sum>** lanes) {
  constexpr int n = Numbers::kPerWord, depth = 8 * n;
  static Sum a[16][depth], b[depth][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int p = 0; p < n; ++p) {
      for (int r = 0; r < 4; ++r)
        a[g + 8 * (r & 1)][n * t + p + 4 * n * (r >> 1)] = Numbers::left(lanes[lane]->a[r], p);
      for (int r = 0; r < 2; ++r) b[n * t + p + 4 * n * r][g] = Numbers::right(lanes[lane]->b[r], p);
    }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < 4; ++j) {
      const int row = lane / 4 + 8 * (j >> 1), column = lane % 4 * 2 + (j & 1);
      Sum terms[depth + 1] = {*lanes[lane]->sums[j]};
      for (int k = 0; k < depth; ++k) terms[k + 1] = a[row][k] * b[k][column];
      *lanes[lane]->sums[j] = Numbers::total(terms, depth + 1);
    }
}

template <class Numbers, class Sum>
static void multiply_add(
    Sum& d0, Sum& d1, Sum& d2, Sum& d3, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
    uint32_t b0, uint32_t b1) {
  Product<Sum> own{{&d0, &d1, &d2, &d3}, {a0, a1, a2, a3}, {b0, b1}};
  with_warp(own, multiply<Numbers>);
}

// ---- What a GPU pays for: see gpu_counts.py.

struct Counts {
  uint64_t shared_accesses, shared_passes, global_bytes, global_sectors, products;
};
static Counts counts;
static bool counting = false;

enum Kind { kSharedRows, kShared, kRead, kWritten };

struct Group {
  Kind kind;
  std::map<size_t, uintptr_t> lanes;
  size_t bytes;
};
static std::map<std::tuple<const void*, size_t, size_t>, Group> groups_of_lanes;
static std::map<std::pair<const void*, size_t>, size_t> visits;

// One access of a lane; the accesses of a warp's lanes at one place of the code are one access.
static void note(Kind kind, const void* place, uintptr_t address, size_t bytes = kSegment) {
  if (kind >= kRead) touched::note(reinterpret_cast<const void*>(address), bytes, kind == kWritten);
  if (!counting) return;
  place = static_cast<const char*>(place) + kind;
  const size_t visit = visits[{place, current}]++;
  Group& group = groups_of_lanes[{place, current / kWarp, visit}];
  group.kind = kind;
  group.bytes = bytes;
  group.lanes[current % kWarp] = address;
}

// A segment that a bulk copy reads.
static void note_bulk(uintptr_t address) {
  touched::note(reinterpret_cast<const void*>(address), kSegment, false);
  if (!counting) return;
  counts.global_bytes += kSegment;
  if (address % 32 == 0) ++counts.global_sectors;
}

static size_t distinct(const std::vector<uintptr_t>& addresses, size_t unit, size_t bytes) {
  std::vector<uintptr_t> units;
  for (uintptr_t address : addresses)
    for (uintptr_t at = address / unit; at <= (address + bytes - 1) / unit; ++at)
      units.push_back(at);
  std::sort(units.begin(), units.end());
  return std::unique(units.begin(), units.end()) - units.begin();
}

// Eight lanes of 16 bytes reach all 32 banks at once, each bank once where there is no conflict.
static size_t passes(const std::map<size_t, uintptr_t>& lanes) {
  size_t total = 0;
  for (size_t first = 0; first < kWarp; first += 8) {
    size_t most = 0;
    for (uintptr_t bank = 0; bank < 8; ++bank) {
      std::vector<uintptr_t> here;
      for (const auto& [lane, address] : lanes)
        if (lane / 8 == first / 8 && address / 16 % 8 == bank) here.push_back(address);
      most = std::max(most, here.empty() ? 0 : distinct(here, 16, 16));
    }
    total += most;
  }
  return total;
}

static void evaluate() {
  for (const auto& [key, group] : groups_of_lanes) {
    if (group.kind >= kRead) {
      std::vector<uintptr_t> addresses;
      for (const auto& [lane, address] : group.lanes) addresses.push_back(address);
      counts.global_bytes += addresses.size() * group.bytes;
      counts.global_sectors += distinct(addresses, 32, group.bytes);
    } else {
      bool eighths[4] = {};
      for (const auto& [lane, address] : group.lanes) eighths[lane / 8] = true;
      counts.shared_accesses += std::count(eighths, eighths + 4, true);
      counts.shared_passes += passes(group.lanes);
    }
  }
  groups_of_lanes.clear();
  visits.clear();
}

}  // namespace tensor_cores

extern "C" void count_accesses(int on) {
  tensor_cores::counting = on;
  tensor_cores::counts = {};
}

extern "C" void counted(uint64_t* result) {
  tensor_cores::evaluate();
  std::memcpy(result, &tensor_cores::counts, sizeof tensor_cores::counts);
}

extern "C" void copy_at_once(int on) { tensor_cores::copies_at_once = on; }

#define PLACE __builtin_return_address(0)
#define HELPER __attribute__((noinline)) static void

static uint32_t tvm_builtin_cuda_cvta_generic_to_shared(const void* address) {
  return static_cast<const char*>(address) - fibers::dynamic_shared;
}

static char* shared_at(uint32_t offset) {
  if (offset % tensor_cores::kSegment || offset >= fibers::kDynamicShared) {
    std::fprintf(stderr, "a segment of shared memory is at byte %u\n", offset);
    std::abort();
  }
  return fibers::dynamic_shared + offset;
}

// A GPU stops where an address is no multiple of what is read or written there at once.
static const void* aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) {
    std::fprintf(stderr, "%zu bytes of global memory are read or written off a boundary\n", bytes);
    std::abort();
  }
  return address;
}

static void copy_segment(const tensor_cores::Copy& copy) {
  char segment[tensor_cores::kSegment] = {};
  std::memcpy(segment, copy.source, copy.count);
  std::memcpy(shared_at(copy.target), segment, sizeof segment);
}

static void land(const tensor_cores::Copy& copy) {
  if (tensor_cores::is_hopper)
    tensor_cores::self().landed.push_back(copy);
  else
    copy_segment(copy);
}

static void begin(const tensor_cores::Copy& copy) {
  aligned(copy.source, tensor_cores::kSegment);
  if (tensor_cores::copies_at_once)
    land(copy);
  else
    tensor_cores::self().begun.push_back(copy);
}

HELPER tvm_builtin_ptx_cp_async_cg_async_cg_shared_global_16(uint32_t target, const void* source) {
  tensor_cores::note(tensor_cores::kShared, PLACE, target);
  tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(source));
  begin({target, source, tensor_cores::kSegment});
}

HELPER tvm_builtin_ptx_cp_async_cg_src_size_async_cg_shared_global_16(
    uint32_t target, const void* source, uint32_t count) {
  tensor_cores::note(tensor_cores::kShared, PLACE, target);
  if (count)
    tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(source), count);
  begin({target, source, count});
}

static void tvm_builtin_ptx_cp_async_commit_group_async_commit_group() {
  auto& thread = tensor_cores::self();
  thread.groups.push_back(std::move(thread.begun));
  thread.begun.clear();
}

static void wait_for_groups(size_t pending) {
  auto& groups = tensor_cores::self().groups;
  while (groups.size() > pending) {
    for (const auto& copy : groups.front()) land(copy);
    groups.erase(groups.begin());
  }
}

static void tvm_builtin_ptx_cp_async_wait_group_async_wait_group_0() { wait_for_groups(0); }
static void tvm_builtin_ptx_cp_async_wait_group_async_wait_group_1() { wait_for_groups(1); }
static void tvm_builtin_ptx_cp_async_wait_group_async_wait_group_2() { wait_for_groups(2); }
static void tvm_builtin_ptx_cp_async_wait_group_async_wait_group_3() { wait_for_groups(3); }

struct Rows {
  uint32_t* words[4];
  uint32_t address;
};

HELPER tvm_builtin_ptx_ldmatrix_sync_aligned_m8n8_x4_shared_b16(
    uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t address) {
  tensor_cores::note(tensor_cores::kSharedRows, PLACE, address);
  Rows own{{&r0, &r1, &r2, &r3}, address};
  tensor_cores::with_warp(own, [](Rows** lanes) {
    for (int lane = 0; lane < 32; ++lane)
      for (int matrix = 0; matrix < 4; ++matrix) {
        const char* row = shared_at(lanes[8 * matrix + lane / 4]->address);
        std::memcpy(lanes[lane]->words[matrix], row + 4 * (lane % 4), 4);
      }
  });
}

#define PRODUCT(NAME, SUM, NUMBERS)                                                              \
  static void tvm_builtin_ptx_##NAME(                                                            \
      SUM& d0, SUM& d1, SUM& d2, SUM& d3, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,    \
      uint32_t b0, uint32_t b1, SUM, SUM, SUM, SUM) {                                            \
    tensor_cores::multiply_add<tensor_cores::NUMBERS>(d0, d1, d2, d3, a0, a1, a2, a3, b0, b1);   \
  }
PRODUCT(mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, float, Halves<tensor_cores::of_float16>)
PRODUCT(
    mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, float, Halves<tensor_cores::of_bfloat16>)
PRODUCT(mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32, float, Tf32)
PRODUCT(mma_int_sync_aligned_m16n8k32_row_col_s32_u8_s8_s32, uint32_t, Bytes)

static void tvm_builtin_ptx_dp4a_u32_s32(int32_t& sum, uint32_t a, int32_t b, int32_t c) {
  uint32_t total = c;
  for (int p = 0; p < 4; ++p)
    total += tensor_cores::Bytes::left(a, p) * tensor_cores::Bytes::right(b, p);
  sum = total;
}

static void tvm_builtin_ptx_cvt_f32_f16(float& target, uint16_t value) {
  target = tensor_cores::of_float16(value);
}

static void tvm_builtin_ptx_cvt_f16x2_f32_rn_f16x2_f32(uint32_t& target, float high, float low) {
  target = uint32_t{tensor_cores::to_float16(high)} << 16 | tensor_cores::to_float16(low);
}

static void tvm_builtin_ptx_cvt_bf16x2_f32_rn_bf16x2_f32(uint32_t& target, float high, float low) {
  target = uint32_t{tensor_cores::to_bfloat16(high)} << 16 | tensor_cores::to_bfloat16(low);
}

static void tvm_builtin_ptx_cvt_tf32_f32_rna_tf32_f32(uint32_t& target, float value) {
  target = tensor_cores::to_tf32(value);
}

template <class Word>
static void exchange(Word& target, Word value, uint32_t distance) {
  static Word values[tensor_cores::kWarps][tensor_cores::kWarp];
  const size_t warp = fibers::current / tensor_cores::kWarp;
  tensor_cores::with_warp(value, [warp](Word** lanes) {
    for (size_t lane = 0; lane < tensor_cores::kWarp; ++lane) values[warp][lane] = *lanes[lane];
  });
  target = values[warp][fibers::current % tensor_cores::kWarp ^ distance];
}

static void tvm_builtin_ptx_shfl_sync_bfly_b32_f32_f32_u32_u32_u32(
    float& target, float value, uint32_t distance, uint32_t, uint32_t) {
  exchange(target, value, distance);
}

static void tvm_builtin_ptx_shfl_sync_bfly_b32_s32_s32_u32_u32_u32(
    int32_t& target, int32_t value, uint32_t distance, uint32_t, uint32_t) {
  exchange(target, value, distance);
}

template <class Word>
static void load(Word& d0, Word& d1, Word& d2, Word& d3, const void* address) {
  Word* words[] = {&d0, &d1, &d2, &d3};
  aligned(address, 4 * sizeof(Word));
  for (int i = 0; i < 4; ++i) std::memcpy(words[i], static_cast<const char*>(address) + 4 * i, 4);
}

HELPER tvm_builtin_ptx_ld_vec_global_nc_v4_b32(
    uint32_t& d0, uint32_t& d1, uint32_t& d2, uint32_t& d3, const void* address) {
  tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(address));
  load(d0, d1, d2, d3, address);
}

HELPER tvm_builtin_ptx_ld_vec_global_v4_b32(
    uint32_t& d0, uint32_t& d1, uint32_t& d2, uint32_t& d3, const void* address) {
  tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(address));
  load(d0, d1, d2, d3, address);
}

HELPER tvm_builtin_ptx_ld_vec_global_cg_v4_b32(
    uint32_t& d0, uint32_t& d1, uint32_t& d2, uint32_t& d3, const void* address) {
  tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(address));
  load(d0, d1, d2, d3, address);
}

HELPER tvm_builtin_ptx_ld_vec_global_cg_v4_b32_f32(
    float& d0, float& d1, float& d2, float& d3, const void* address) {
  tensor_cores::note(tensor_cores::kRead, PLACE, reinterpret_cast<uintptr_t>(address));
  load(d0, d1, d2, d3, address);
}

template <class... Words>
static void store(const void* address, Words... given) {
  const std::common_type_t<Words...> words[] = {given...};
  tensor_cores::Store made{const_cast<void*>(aligned(address, sizeof words)), {}, sizeof words};
  std::memcpy(made.words, words, sizeof words);
  tensor_cores::self().stores.push_back(made);
}

HELPER tvm_builtin_ptx_st_vec_global_v2_b32(const void* address, uint32_t w0, uint32_t w1) {
  tensor_cores::note(tensor_cores::kWritten, PLACE, reinterpret_cast<uintptr_t>(address), 8);
  store(address, w0, w1);
}

HELPER tvm_builtin_ptx_st_vec_global_v4_b32(
    const void* address, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
  tensor_cores::note(tensor_cores::kWritten, PLACE, reinterpret_cast<uintptr_t>(address));
  store(address, w0, w1, w2, w3);
}

HELPER tvm_builtin_ptx_st_vec_global_v4_b32_f32(
    const void* address, float w0, float w1, float w2, float w3) {
  tensor_cores::note(tensor_cores::kWritten, PLACE, reinterpret_cast<uintptr_t>(address));
  store(address, w0, w1, w2, w3);
}

static void __threadfence() { tensor_cores::flush(tensor_cores::self()); }

// Adds one, or goes back to zero from `last`; gives what was there. It tells other blocks that this
// one is ready: what it has not written by now, they do not see.
static unsigned atomicInc(unsigned* counter, unsigned last) {
  tensor_cores::arrived = true;
  for (auto& thread : tensor_cores::threads) tensor_cores::keep(thread);
  const unsigned before = *counter;
  *counter = before >= last ? 0 : before + 1;
  return before;
}
