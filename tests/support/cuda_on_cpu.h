// Enough of CUDA C++ to run a kernel on a CPU: one fiber a thread, one block at a time.
//
// Shared memory holds NaN when a block starts, so that a read before a write is seen. Blocks
// run their threads forwards and backwards in turn, so that a missing barrier is seen too.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#define __global__
#define __launch_bounds__(threads)
#define __shared__ static __attribute__((section("shared_memory")))

struct Index { int x, y, z; };
static Index blockIdx, threadIdx;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
using std::max;
using std::min;

__attribute__((section("shared_memory"), used)) static float shared_anchor = 0;
extern "C" char __start_shared_memory[], __stop_shared_memory[];

namespace fibers {

constexpr size_t kStack = 64 << 10;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  bool done = false;
};

static std::vector<Fiber> all;
static ucontext_t scheduler;
static size_t current;
static const std::function<void()>* kernel;

static void enter() {
  (*kernel)();
  all[current].done = true;
}

static void start(Fiber& fiber) {
  fiber.done = false;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = &scheduler;
  makecontext(&fiber.context, enter, 0);
}

static void run_block(size_t threads, bool forwards) {
  float* end = reinterpret_cast<float*>(__stop_shared_memory);
  for (float* p = reinterpret_cast<float*>(__start_shared_memory); p < end; ++p)
    *p = std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < threads; ++i) start(all[i]);
  for (size_t num_done = 0; num_done == 0;) {
    for (size_t i = 0; i < threads; ++i) {
      current = forwards ? i : threads - 1 - i;
      threadIdx = {static_cast<int>(current), 0, 0};
      swapcontext(&scheduler, &all[current].context);
      num_done += all[current].done;
    }
    if (num_done != 0 && num_done != threads) {
      std::fprintf(stderr, "a barrier was not reached by every thread of the block\n");
      std::abort();
    }
  }
}

static void run_grid(const int* grid, int threads, const std::function<void()>& body) {
  kernel = &body;
  all.resize(threads);
  bool forwards = true;
  for (int z = 0; z < grid[2]; ++z)
    for (int y = 0; y < grid[1]; ++y)
      for (int x = 0; x < grid[0]; ++x, forwards = !forwards) {
        blockIdx = {x, y, z};
        run_block(threads, forwards);
      }
}

}  // namespace fibers

// CUDA takes it among a declaration's specifiers, C++ does not.
#define alignas(bytes) __attribute__((aligned(bytes)))

static void __syncthreads() {
  swapcontext(&fibers::all[fibers::current].context, &fibers::scheduler);
}
