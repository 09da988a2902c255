// Enough of CUDA C++ to run a kernel on a CPU: one fiber a thread, one block at a time.
//
// Shared memory holds NaN when a block starts, so that a read before a write is seen. A warp runs as
// far as it can before the next one does, in blocks forwards and backwards in turn, so that a
// missing barrier is seen too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ static inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static __attribute__((section("shared_memory")))

struct Index { int x, y, z; };
static Index blockIdx, threadIdx;

struct alignas(4) ushort2 { uint16_t x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
using std::max;
using std::min;

__attribute__((section("shared_memory"), used)) static float shared_anchor = 0;
extern "C" char __start_shared_memory[], __stop_shared_memory[];

// Leaves the stack of `from` and goes on with that of `to`.
extern "C" __attribute__((visibility("hidden"))) void switch_stack(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.local switch_stack
switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#else
#error "fibers are written for x86-64"
#endif

namespace fibers {

constexpr size_t kStack = 64 << 10, kSaved = 6, kWarp = 32;
constexpr size_t kDynamicShared = 227 << 10;

alignas(1024) static char dynamic_shared[kDynamicShared];

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  void* top = nullptr;
  bool done = false;
  std::function<bool()> ready;  // what it waits for
};

static std::vector<Fiber> all;
static void* scheduler;
static size_t current;
static const std::function<void()>* kernel;

static void enter() {
  (*kernel)();
  all[current].done = true;
  switch_stack(&all[current].top, scheduler);
}

static void start(Fiber& fiber) {
  fiber.done = false;
  fiber.ready = nullptr;
  auto end = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStack) & ~uintptr_t{15};
  void** top = reinterpret_cast<void**>(end) - 2;
  *top = reinterpret_cast<void*>(enter);
  top -= kSaved;
  std::memset(top, 0, kSaved * sizeof *top);
  fiber.top = top;
}

static void wait_until(std::function<bool()> ready) {
  Fiber& fiber = all[current];
  fiber.ready = std::move(ready);
  switch_stack(&fiber.top, scheduler);
}

// How often all threads have had their turn.
static uint64_t turns = 0;

// Lets all others have their turn.
static void let_others_go_on() {
  const uint64_t now = turns;
  wait_until([now] { return turns > now; });
}

// Where some threads come together. The last to come does what is to be done with all there.
struct Meeting {
  size_t present = 0;
  uint64_t round = 0;

  template <class Last>
  void join(size_t members, Last last) {
    const uint64_t now = round;
    if (++present < members) return wait_until([this, now] { return round != now; });
    last();
    present = 0;
    ++round;
  }
};

static Meeting block;

// How many warps that follow one another run as far as they can before others do.
static size_t warps_together = 1;

// What emulated memory forgets and does between blocks, and at the end of a grid.
static std::function<void()> at_start_of_block = [] {}, at_end_of_grid = [] {};
static std::function<void()> at_start_of_hopper_block = [] {};

// Does what happens by itself, where no thread can go on. Whether there was anything.
static std::function<bool()> when_nobody_moves = [] { return false; };

// The number of the block that runs, in the order of their launch.
static int64_t number_of_block = 0;

// What went wrong in a grid, which is said once.
static const char* failure = nullptr;

static void fail(const char* what) {
  if (!failure) std::fprintf(stderr, "%s\n", failure = what);
}

// Runs each thread of a warp up to where it waits. Whether any could run.
static bool run_warp(size_t first, size_t last, bool forwards) {
  bool moved = false;
  for (size_t i = first; i < last; ++i) {
    current = forwards ? i : first + last - 1 - i;
    Fiber& fiber = all[current];
    if (fiber.done || (fiber.ready && !fiber.ready())) continue;
    fiber.ready = nullptr;
    threadIdx = {static_cast<int>(current), 0, 0};
    switch_stack(&scheduler, fiber.top);
    moved = true;
  }
  return moved;
}

static bool run_warps(size_t first, size_t last, bool forwards) {
  const size_t warps = (last - first + kWarp - 1) / kWarp;
  bool moved = false;
  for (size_t i = 0; i < warps; ++i) {
    const size_t start = first + kWarp * (forwards ? i : warps - 1 - i);
    while (run_warp(start, std::min(start + kWarp, last), forwards)) moved = true;
  }
  return moved;
}

static void run_block(size_t threads, bool forwards) {
  std::memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
  std::memset(dynamic_shared, 0xff, kDynamicShared);
  warps_together = 1;
  at_start_of_block();
  at_start_of_hopper_block();
  for (size_t i = 0; i < threads; ++i) start(all[i]);
  for (bool moved = true; moved || when_nobody_moves();) {
    moved = false;
    ++turns;
    const size_t together = kWarp * warps_together, parts = (threads + together - 1) / together;
    for (size_t i = 0; i < parts; ++i) {
      const size_t first = together * (forwards ? i : parts - 1 - i);
      while (run_warps(first, std::min(first + together, threads), forwards)) moved = true;
    }
  }
  for (size_t i = 0; i < threads; ++i)
    if (!all[i].done) fail("a barrier was not reached by every thread of the block");
}

static void run_grid(const int* grid, int threads, const std::function<void()>& body) {
  kernel = &body;
  failure = nullptr;
  if (all.size() != static_cast<size_t>(threads)) all = std::vector<Fiber>(threads);
  bool forwards = true;
  number_of_block = 0;
  for (int z = 0; z < grid[2]; ++z)
    for (int y = 0; y < grid[1]; ++y)
      for (int x = 0; x < grid[0]; ++x, forwards = !forwards) {
        blockIdx = {x, y, z};
        run_block(threads, forwards);
        ++number_of_block;
      }
  at_end_of_grid();
}

}  // namespace fibers

// What the kernel before this one has not written yet: it ends when a thread waits for it.
namespace kernel_before {

struct Write { void* target; const void* content; size_t size; };
static std::vector<Write> writes;

}  // namespace kernel_before

extern "C" void kernel_before_writes(void* target, const void* content, size_t size) {
  kernel_before::writes.push_back({target, content, size});
}

static void vggc_await_kernel_before() {
  for (const auto& write : kernel_before::writes)
    std::memcpy(write.target, write.content, write.size);
  kernel_before::writes.clear();
}

// The bytes of shared memory that kernels have without asking for it.
extern "C" int own_shared() { return __stop_shared_memory - __start_shared_memory; }

// Whether what the last grid did cannot be.
extern "C" int has_failed() { return fibers::failure != nullptr; }

static int __syncthreads_or(int own) {
  static int gathered, result;
  gathered |= own;
  fibers::block.join(fibers::all.size(), [] { result = gathered, gathered = 0; });
  return result;
}

static void __syncthreads() { fibers::block.join(fibers::all.size(), [] {}); }

// Which bytes of global memory each block reads and writes.
namespace touched {

struct Touch { int64_t block, written, address, bytes; };
static std::vector<Touch> found;
static bool noting = false;

static void note(const void* address, size_t bytes, bool written) {
  if (!noting) return;
  const auto at = static_cast<int64_t>(reinterpret_cast<uintptr_t>(address));
  found.push_back({fibers::number_of_block, written, at, static_cast<int64_t>(bytes)});
}

// An argument of a kernel: a pointer whose plain reads and writes are noted.
template <class Value>
struct Argument {
  Value* first;

  struct Element {
    Value* place;
    operator Value() const { note(place, sizeof(Value), false); return *place; }
    Value operator=(Value value) const { note(place, sizeof(Value), true); return *place = value; }
    Value operator=(const Element& other) const { return *this = Value(other); }
    Value* operator&() const { return place; }
  };

  Argument(Value* first) : first(first) {}
  Element operator[](int64_t index) const { return {first + index}; }
  Value* operator+(int64_t index) const { return first + index; }
};

}  // namespace touched

extern "C" void note_touches(int on) {
  touched::noting = on;
  touched::found.clear();
}

extern "C" size_t num_touches() { return touched::found.size(); }

extern "C" void copy_touches(touched::Touch* result) {
  std::copy(touched::found.begin(), touched::found.end(), result);
}

#include "tensor_cores.h"
#include "hopper.h"

// CUDA takes it among a declaration's specifiers, C++ does not.
#define alignas(bytes) __attribute__((aligned(bytes)))
