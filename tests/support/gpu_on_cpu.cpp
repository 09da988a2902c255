// An sm_80 GPU that is not there: what TVM calls of NVIDIA's driver and runtime.
//
// Device memory is host memory. A kernel is found by its name in the library KERNELS, which
// `cuda_on_cpu.py` makes out of the CUDA source that the machine code was made of.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr unsigned kFatbinMagic = 0xba55ed50;
constexpr int kFailure = 999;
constexpr int kWarpSize = 10, kMajor = 75, kMinor = 76;  // of cudaDeviceAttr

using Entry = void (*)(const int* grid, int threads, void** arguments);

}  // namespace

extern "C" {

int cuModuleLoadData(void** module, const void* image) {
  unsigned magic;
  std::memcpy(&magic, image, sizeof magic);
  *module = magic == kFatbinMagic ? dlopen(std::getenv("KERNELS"), RTLD_NOW) : nullptr;
  return *module ? 0 : kFailure;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, (std::string("run_") + name).c_str());
  return *function ? 0 : kFailure;
}

// A configuration begins with the extents of the grid and of the block.
int cuLaunchKernelEx(const int* configuration, void* function, void** arguments, void**) {
  reinterpret_cast<Entry>(function)(configuration, configuration[3], arguments);
  return 0;
}

int cuModuleUnload(void*) { return 0; }

int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "GPU on CPU", size);
  return 0;
}

int cuGetErrorName(int, const char** text) {
  *text = "failure";
  return 0;
}

int cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }
int cuFuncSetAttribute() { return 0; }
int cuTensorMapEncodeTiled() { return kFailure; }

int cudaGetDeviceCount(int* count) {
  *count = 1;
  return 0;
}

int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case kWarpSize: *value = 32; break;
    case kMajor: *value = 8; break;
    case kMinor: *value = 0; break;
    default: *value = 1024;
  }
  return 0;
}

// What a kernel leaves unwritten stays NaN.
int cudaMalloc(void** pointer, size_t size) {
  *pointer = std::aligned_alloc(256, (size + 255) / 256 * 256);
  std::memset(*pointer, 0xff, size);
  return 0;
}

int cudaFree(void* pointer) {
  std::free(pointer);
  return 0;
}

int cudaMemcpyAsync(void* target, const void* source, size_t size, int, void*) {
  std::memcpy(target, source, size);
  return 0;
}

int cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = size_t{16} << 30;
  return 0;
}

const char* cudaGetErrorName(int) { return "failure"; }
const char* cudaGetErrorString(int) { return "failure"; }

int cudaSetDevice(int) { return 0; }
int cudaGetLastError() { return 0; }
int cudaPeekAtLastError() { return 0; }
int cudaStreamSynchronize(void*) { return 0; }

int cudaEventCreate() { return kFailure; }
int cudaEventDestroy() { return kFailure; }
int cudaEventElapsedTime() { return kFailure; }
int cudaEventRecord() { return kFailure; }
int cudaEventSynchronize() { return kFailure; }
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
