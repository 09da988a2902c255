// An NVIDIA driver that is not there, for who calls it without TVM: benchmarks/card/driver.py.
//
// Device memory is whatever memory the caller has. Machine code is a library that `cuda_on_cpu.py`
// makes out of CUDA source. What an H200 refuses is refused: too many threads or more than a kernel
// is compiled for, a grid that is too large or empty, shared memory of which a kernel has not been
// told, and more of it than a block has.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <string>

namespace {

constexpr int kFailure = 719, kVersion = 13000;
constexpr int kInvalidValue = 1, kInvalidImage = 200, kNotFound = 500;
constexpr int kMostDynamicShared = 8;  // of CUfunction_attribute
constexpr int kUsualShared = 48 << 10, kBlockShared = 227 << 10;
constexpr int kMostThreads = 1024, kMostBlocks = 65535;  // blocks along y and z

using Entry = void (*)(const int* grid, int threads, void** arguments);
using Verdict = int (*)();

struct Function {
  Entry entry;
  Verdict has_failed;
  int num_arguments, most_threads, own_shared;
  int most_shared = kUsualShared;
};

std::map<void*, Function> functions;

// A library that is in memory. Its section headers are what it ends with.
void* opened(const char* image) {
  Elf64_Ehdr head;
  std::memcpy(&head, image, sizeof head);
  if (std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) return nullptr;
  const size_t size = head.e_shoff + size_t{head.e_shentsize} * head.e_shnum;
  const int file = memfd_create("kernels", 0);
  if (write(file, image, size) != static_cast<ssize_t>(size)) return nullptr;
  return dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW);
}

// A number that a library has under a name, or else `otherwise`.
int number_in(void* module, const std::string& name, int otherwise) {
  const void* found = dlsym(module, name.c_str());
  return found ? *static_cast<const int*>(found) : otherwise;
}

bool is_refused(const Function& found, const int* grid, int threads, int shared) {
  for (int axis = 0; axis < 3; ++axis)
    if (grid[axis] < 1 || (axis > 0 && grid[axis] > kMostBlocks)) return true;
  return threads < 1 || threads > found.most_threads || shared > found.most_shared;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDriverGetVersion(int* version) {
  *version = kVersion;
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  *module = opened(static_cast<const char*>(image));
  return *module ? 0 : kInvalidImage;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, (std::string("run_") + name).c_str());
  if (!*function) return kNotFound;
  const auto has_failed = reinterpret_cast<Verdict>(dlsym(module, "has_failed"));
  const auto own_shared = reinterpret_cast<Verdict>(dlsym(module, "own_shared"));
  functions[*function] = {
      reinterpret_cast<Entry>(*function),
      has_failed,
      number_in(module, std::string("num_arguments_") + name, 0),
      number_in(module, std::string("most_threads_") + name, kMostThreads),
      own_shared ? own_shared() : 0,
  };
  return 0;
}

int cuFuncSetAttribute(void* function, int attribute, int value) {
  Function& found = functions[function];
  if (attribute != kMostDynamicShared) return 0;
  if (value + found.own_shared > kBlockShared) return kInvalidValue;
  found.most_shared = value;
  return 0;
}

int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
  if (index >= static_cast<size_t>(functions[function].num_arguments)) return kInvalidValue;
  *offset = index * sizeof(void*);
  *size = sizeof(void*);
  return 0;
}

int cuFuncGetAttribute(int* value, int, void*) {
  *value = 0;
  return 0;
}

// A configuration begins with the extents of the grid and of the block, and the shared memory.
int cuLaunchKernelEx(const int* configuration, void* function, void** arguments, void**) {
  const Function& found = functions[function];
  if (is_refused(found, configuration, configuration[3], configuration[6])) return kInvalidValue;
  found.entry(configuration, configuration[3], arguments);
  return found.has_failed && found.has_failed() ? kFailure : 0;
}

int cuGetErrorString(int, const char** text) {
  *text = "failure";
  return 0;
}
}
