// A GPU that is not there: what TVM calls of NVIDIA's driver and runtime. It is an sm_80 one unless
// EMULATED_CAPABILITY says otherwise.
//
// Device memory is host memory, and each allocation ends where a page begins that nobody may touch.
// A kernel is found by its name in the library KERNELS, which `cuda_on_cpu.py` makes out of the CUDA
// source that the machine code was made of; or in the one whose path the machine code is, which
// the compiler in `emulated_compiler/` makes.
//
// A kernel that touches a page which is not its own ends the context, as on a card: whatever is
// asked for from then on fails with the same error. Events tell no true time, but the same one each
// time: a millisecond a launch, and less beside it the more threads it has. EMULATED_GPUS=0 is a
// machine without a GPU.
#include <csetjmp>
#include <csignal>
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

constexpr unsigned kFatbinMagic = 0xba55ed50;
constexpr size_t kPathAt = 16, kPage = 4096, kAlignment = 256;
constexpr int kFailure = 999, kIllegalAddress = 700;
constexpr int kDefaultCapability = 80;
// Of cudaDeviceAttr.
constexpr int kWarpSize = 10, kMultiprocessors = 16, kL2CacheSize = 38, kMajor = 75, kMinor = 76;

int Capability() {
  const char* asked = std::getenv("EMULATED_CAPABILITY");
  return asked ? std::atoi(asked) : kDefaultCapability;
}

using Entry = void (*)(const int* grid, int threads, void** arguments);

struct Block { char* begin; size_t size; };

double clock_ms = 0;
int broken = 0;  // The error that has ended the context.
sigjmp_buf before_kernel;
std::map<void*, Block> allocated;

void leave_kernel(int) { siglongjmp(before_kernel, 1); }

// Runs a kernel, and ends the context if it touches what it may not.
void run(Entry kernel, const int* configuration, void** arguments) {
  static char stack[64 << 10];  // A fiber's own may be what has overflown.
  stack_t other{}, usual{};
  other.ss_sp = stack;
  other.ss_size = sizeof stack;
  sigaltstack(&other, &usual);
  struct sigaction caught{}, before{};
  caught.sa_handler = leave_kernel;
  caught.sa_flags = SA_ONSTACK;
  sigaction(SIGSEGV, &caught, &before);
  if (sigsetjmp(before_kernel, 1) == 0) {
    kernel(configuration, configuration[3], arguments);
  } else {
    broken = kIllegalAddress;
  }
  sigaction(SIGSEGV, &before, nullptr);
  sigaltstack(&usual, nullptr);
}

const char* text_of(int error) {
  return error == kIllegalAddress ? "an illegal memory access was encountered" : "failure";
}

const char* name_of(int error) {
  return error == kIllegalAddress ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "failure";
}

}  // namespace

extern "C" {

int cuModuleLoadData(void** module, const void* image) {
  unsigned magic;
  std::memcpy(&magic, image, sizeof magic);
  const char* kernels = std::getenv("KERNELS");
  const char* path = kernels ? kernels : static_cast<const char*>(image) + kPathAt;
  *module = magic == kFatbinMagic ? dlopen(path, RTLD_NOW) : nullptr;
  return *module ? 0 : kFailure;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, (std::string("run_") + name).c_str());
  return *function ? 0 : kFailure;
}

// A configuration begins with the extents of the grid and of the block.
int cuLaunchKernelEx(const int* configuration, void* function, void** arguments, void**) {
  if (broken) return broken;
  const int* extents = configuration;
  clock_ms += 1 + 1.0 / (extents[0] * extents[1] * extents[2] * extents[3]);
  run(reinterpret_cast<Entry>(function), configuration, arguments);
  return 0;
}

int cuModuleUnload(void*) { return 0; }

int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "GPU on CPU", size);
  return 0;
}

int cuGetErrorName(int error, const char** text) {
  *text = name_of(error);
  return 0;
}

int cuGetErrorString(int error, const char** text) {
  *text = text_of(error);
  return 0;
}

int cuFuncSetAttribute() { return 0; }
int cuTensorMapEncodeTiled() { return kFailure; }

int cudaGetDeviceCount(int* count) {
  const char* gpus = std::getenv("EMULATED_GPUS");
  *count = gpus ? std::atoi(gpus) : 1;
  return 0;
}

int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case kWarpSize: *value = 32; break;
    case kMultiprocessors: *value = 108; break;
    case kL2CacheSize: *value = 64 << 10; break;
    case kMajor: *value = Capability() / 10; break;
    case kMinor: *value = Capability() % 10; break;
    default: *value = 1024;
  }
  return 0;
}

// What a kernel leaves unwritten stays NaN.
int cudaMalloc(void** pointer, size_t size) {
  if (broken) return broken;
  const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
  const size_t whole = (rounded + kPage - 1) / kPage * kPage;
  void* found =
      mmap(nullptr, whole + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) return kFailure;
  char* begin = static_cast<char*>(found);
  mprotect(begin + whole, kPage, PROT_NONE);
  *pointer = begin + whole - rounded;
  std::memset(*pointer, 0xff, rounded);
  allocated[*pointer] = {begin, whole + kPage};
  return 0;
}

int cudaFree(void* pointer) {
  if (const auto found = allocated.find(pointer); found != allocated.end()) {
    munmap(found->second.begin, found->second.size);
    allocated.erase(found);
  }
  return broken;
}

int cudaMemcpyAsync(void* target, const void* source, size_t size, int, void*) {
  if (!broken) std::memcpy(target, source, size);
  return broken;
}

int cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = size_t{16} << 30;
  return 0;
}

const char* cudaGetErrorName(int error) { return name_of(error); }
const char* cudaGetErrorString(int error) { return text_of(error); }

int cudaSetDevice(int) { return broken; }
int cudaGetLastError() { return broken; }
int cudaPeekAtLastError() { return broken; }
int cudaStreamSynchronize(void*) { return broken; }

int cudaEventCreate(void** event) {
  *event = new double;
  return broken;
}

int cudaEventDestroy(void* event) {
  delete static_cast<double*>(event);
  return broken;
}

int cudaEventRecord(void* event, void*) {
  *static_cast<double*>(event) = clock_ms;
  return broken;
}

int cudaEventSynchronize(void*) { return broken; }

int cudaEventElapsedTime(float* milliseconds, void* begin, void* end) {
  *milliseconds = *static_cast<double*>(end) - *static_cast<double*>(begin);
  return broken;
}

int cudaFreeHost() { return kFailure; }
int cudaGetDeviceProperties() { return kFailure; }
int cudaGraphDestroy() { return kFailure; }
int cudaGraphExecDestroy() { return kFailure; }
int cudaGraphInstantiate() { return kFailure; }
int cudaGraphLaunch() { return kFailure; }
int cudaMallocHost() { return kFailure; }
int cudaMemcpyPeerAsync() { return kFailure; }
int cudaStreamBeginCapture() { return kFailure; }
int cudaStreamCreate() { return kFailure; }
int cudaStreamCreateWithFlags() { return kFailure; }
int cudaStreamDestroy() { return kFailure; }
int cudaStreamEndCapture() { return kFailure; }
int cudaStreamWaitEvent() { return kFailure; }
}
