// What the helpers that TVM writes around Hopper's instructions do, on a CPU: barriers in shared
// memory, bulk copies, and products of warpgroups.
//
// What is asynchronous happens as late as it may: a bulk copy when no thread can go on, a product
// when it is waited for. They happen as soon as they may where `copy_at_once` and
// `multiply_at_once` are asked for. A thread that arrives at a barrier lets others go on before it
// where copies happen as soon as they may, and else runs ahead.
// Each group of products begins with a fence, which PTX wants where registers were touched before.
// What a thread writes by copies of its own, products see once it has passed a fence of the proxy.
// Layouts: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate".
#pragma once

#include <deque>
#include <utility>

namespace hopper {

constexpr size_t kGroup = 128, kGroups = 8;
constexpr int kRows = 64, kWords = 8, kMostColumns = 256;

struct Barrier {
  int expected = 0, missing = 0, parity = 0;
  int64_t bytes = 0;

  void settle() {
    if (missing || bytes) return;
    parity ^= 1;
    missing = expected;
  }
};

static std::map<uint32_t, Barrier> barriers;
static std::deque<std::function<void()>> copies;

struct Group {
  fibers::Meeting meeting;
  void* lanes[kGroup];
  bool fenced = false;
  std::vector<std::function<void()>> begun;
  std::deque<std::vector<std::function<void()>>> waiting;
};
static Group groups[kGroups];
static bool products_at_once = false;

static const bool prepared = [] {
  fibers::at_start_of_hopper_block = [] {
    barriers.clear();
    copies.clear();
    for (Group& group : groups) group = {};
  };
  fibers::when_nobody_moves = [] {
    if (copies.empty()) return false;
    copies.front()();
    copies.pop_front();
    return true;
  };
  return true;
}();

// A barrier that there is.
static Barrier& barrier_at(uint32_t address) {
  if (!barriers.count(address)) fibers::fail("there is no barrier yet");
  return barriers[address];
}

static Group& group() { return groups[fibers::current / kGroup]; }

template <class Sum>
struct Product {
  Sum* sums[kMostColumns / 2];
  uint64_t a, b;
  bool adds;  // or else what the sums hold does not count
};

// A word of a slice of a matrix: pieces of eight rows, each row 16 bytes, lie where it describes.
static uint32_t word_at(uint64_t matrix, int row, int word) {
  const uint32_t start = (matrix & 0x3fff) << 4;
  const uint32_t along_depth = (matrix >> 16 & 0x3fff) << 4;
  const uint32_t along_rows = (matrix >> 32 & 0x3fff) << 4;
  const uint32_t piece = start + row / 8 * along_rows + word / 4 * along_depth;
  uint32_t bits;
  std::memcpy(&bits, fibers::dynamic_shared + piece + row % 8 * 16 + word % 4 * 4, sizeof bits);
  return bits;
}

template <class Numbers, class Sum = typename Numbers::Sum>
static void multiply(const std::vector<Product<Sum>>& lanes, int columns) {
  constexpr int n = Numbers::kPerWord, depth = kWords * n;
  static Sum a[kRows][depth], b[kMostColumns][depth];
  for (int word = 0; word < kWords; ++word)
    for (int p = 0; p < n; ++p) {
      for (int row = 0; row < kRows; ++row)
        a[row][word * n + p] = Numbers::left(word_at(lanes[0].a, row, word), p);
      for (int column = 0; column < columns; ++column)
        b[column][word * n + p] = Numbers::right(word_at(lanes[0].b, column, word), p);
    }
  for (size_t lane = 0; lane < kGroup; ++lane)
    for (int i = 0; i < columns / 2; ++i) {
      const int row = lane / 32 * 16 + lane % 32 / 4 + i % 4 / 2 * 8;
      const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      Sum sum = lanes[lane].adds ? *lanes[lane].sums[i] : Sum{};
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[column][k];
      *lanes[lane].sums[i] = sum;
    }
}

template <class Numbers, int Columns, class Arguments, size_t... Index>
static void begin(Arguments arguments, std::index_sequence<Index...>) {
  using One = Product<typename Numbers::Sum>;
  One own{};
  ((own.sums[Index] = &std::get<Index>(arguments)), ...);
  own.a = std::get<Columns / 2>(arguments);
  own.b = std::get<Columns / 2 + 1>(arguments);
  own.adds = std::get<Columns / 2 + 2>(arguments);
  Group& here = group();
  here.lanes[fibers::current % kGroup] = &own;
  here.meeting.join(kGroup, [&here] {
    std::vector<One> lanes;
    for (void* lane : here.lanes) lanes.push_back(*static_cast<One*>(lane));
    for (const One& lane : lanes)
      if (lane.a != lanes[0].a || lane.b != lanes[0].b) fibers::fail("lanes describe other matrices");
    if (!here.fenced) fibers::fail("products begin without a fence");
    const auto product = [lanes] { multiply<Numbers>(lanes, Columns); };
    if (products_at_once)
      product();
    else
      here.begun.push_back(product);
  });
}

static void wait_for_products(size_t pending) {
  Group& here = group();
  here.meeting.join(kGroup, [&here, pending] {
    for (; here.waiting.size() > pending; here.waiting.pop_front())
      for (const auto& product : here.waiting.front()) product();
  });
}

}  // namespace hopper

extern "C" void multiply_at_once(int on) { hopper::products_at_once = on; }

#define GROUP_PRODUCT(NAME, COLUMNS, ...)                                                 \
  template <class... Arguments>                                                           \
  static void NAME(Arguments&&... arguments) {                                            \
    hopper::begin<__VA_ARGS__, COLUMNS>(                                                  \
        std::forward_as_tuple(arguments...), std::make_index_sequence<COLUMNS / 2>());    \
  }
#define GROUP_PRODUCTS(COLUMNS)                                                           \
  GROUP_PRODUCT(                                                                          \
      tvm_builtin_ptx_wgmma_f16_ss_mma_async_sync_aligned_m64n##COLUMNS##k16_f32_f16_f16_1_1_0_0, \
      COLUMNS, tensor_cores::Halves<tensor_cores::of_float16>)                            \
  GROUP_PRODUCT(                                                                          \
      tvm_builtin_ptx_wgmma_bf16_ss_mma_async_sync_aligned_m64n##COLUMNS##k16_f32_bf16_bf16_1_1_0_0, \
      COLUMNS, tensor_cores::Halves<tensor_cores::of_bfloat16>)                           \
  GROUP_PRODUCT(                                                                          \
      tvm_builtin_ptx_wgmma_tf32_ss_mma_async_sync_aligned_m64n##COLUMNS##k8_f32_tf32_tf32_1_1, \
      COLUMNS, tensor_cores::Tf32)                                                        \
  GROUP_PRODUCT(                                                                          \
      tvm_builtin_ptx_wgmma_int_ss_mma_async_sync_aligned_m64n##COLUMNS##k32_s32_u8_s8,   \
      COLUMNS, tensor_cores::Bytes)
GROUP_PRODUCTS(64)
GROUP_PRODUCTS(96)
GROUP_PRODUCTS(128)
GROUP_PRODUCTS(256)

static void tvm_builtin_ptx_wgmma_fence_fence_sync_aligned() {
  auto& here = hopper::group();
  here.meeting.join(hopper::kGroup, [&here] { here.fenced = true; });
}

static void tvm_builtin_ptx_wgmma_commit_group_commit_group_sync_aligned() {
  auto& here = hopper::group();
  here.meeting.join(hopper::kGroup, [&here] {
    here.waiting.push_back(std::move(here.begun));
    here.begun.clear();
    here.fenced = false;
  });
}

static void tvm_builtin_ptx_wgmma_wait_group_wait_group_sync_aligned_0() { hopper::wait_for_products(0); }
static void tvm_builtin_ptx_wgmma_wait_group_wait_group_sync_aligned_1() { hopper::wait_for_products(1); }

static void tvm_builtin_ptx_mbarrier_init_init_shared_b64(uint32_t address, uint32_t arrivals) {
  hopper::Barrier made;
  made.expected = made.missing = arrivals;
  hopper::barriers[address] = made;
  tensor_cores::is_hopper = true;
  fibers::warps_together = hopper::kGroup / fibers::kWarp;
}

static void tvm_builtin_ptx_fence_mbarrier_init_mbarrier_init_release_cluster() {}

static void tvm_builtin_ptx_mbarrier_arrive_arrive_shared_b64(uint32_t address, uint32_t count) {
  auto& barrier = hopper::barrier_at(address);
  barrier.missing -= count;
  barrier.settle();
  if (tensor_cores::copies_at_once) fibers::let_others_go_on();
}

static void tvm_builtin_ptx_mbarrier_arrive_expect_tx_arrive_expect_tx_shared_b64(
    uint32_t address, uint32_t bytes) {
  auto& barrier = hopper::barrier_at(address);
  barrier.bytes += bytes;
  --barrier.missing;
  barrier.settle();
}

static void tvm_builtin_cuda_mbarrier_wait_raw_u32(uint32_t address, int parity) {
  hopper::barrier_at(address);
  const auto over = [=] { return hopper::barriers[address].parity != parity; };
  if (!over()) fibers::wait_until(over);
}

HELPER
tvm_builtin_ptx_cp_async_bulk_g2s_cluster_async_bulk_shared__cluster_global_mbarrier__complete_tx__bytes(
    uint32_t target, const void* source, uint32_t size, uint32_t barrier) {
  for (uint32_t at = 0; at < size; at += tensor_cores::kSegment)
    tensor_cores::note_bulk(reinterpret_cast<uintptr_t>(source) + at);
  const auto copy = [=] {
    std::memcpy(shared_at(target), source, size);
    auto& counted = hopper::barriers[barrier];
    counted.bytes -= size;
    counted.settle();
  };
  if (tensor_cores::copies_at_once)
    copy();
  else
    hopper::copies.push_back(copy);
}

static void tvm_builtin_ptx_cp_async_bulk_prefetch_async_bulk_prefetch_L2_global(
    const void*, uint32_t) {}

static void tvm_builtin_ptx_fence_proxy_proxy_async_shared__cta() {
  auto& thread = tensor_cores::self();
  for (const auto& copy : thread.landed) copy_segment(copy);
  thread.landed.clear();
}

static void tvm_builtin_ptx_shfl_sync_idx_b32_s32_s32_u32_u32_u32(
    int32_t& target, int32_t value, uint32_t lane, uint32_t, uint32_t) {
  struct Given { int32_t* target; int32_t value; uint32_t lane; };
  Given own{&target, value, lane};
  tensor_cores::with_warp(own, [](Given** lanes) {
    for (size_t each = 0; each < tensor_cores::kWarp; ++each)
      *lanes[each]->target = lanes[lanes[each]->lane]->value;
  });
}
