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
// time: a millisecond a launch, that of a graph, too, and less beside it the more threads a kernel
// has. EMULATED_GPUS=0 is a machine without a GPU.
//
// While a stream is captured, a kernel that is launched on it is taken into the graph with copies of
// its arguments, and does not run. What must not be done in that time, by whomever, ends the capture
// without a graph, as on a card. EMULATED_LAUNCHES is a file to which each launch writes a line.
#include <csetjmp>
#include <csignal>
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr unsigned kFatbinMagic = 0xba55ed50;
constexpr size_t kPathAt = 16, kPage = 4096, kAlignment = 256;
constexpr int kFailure = 999, kIllegalAddress = 700;
// Of a capture: what it cannot hold, what has ended it, and what would make it wait for the default
// stream.
constexpr int kUnsupported = 900, kInvalidated = 901, kImplicit = 906;
constexpr int kDefaultCapability = 80;
// Of CUlaunchAttributeID.
constexpr int kProgrammaticSerialization = 6;
// Of cudaDeviceAttr.
constexpr int kWarpSize = 10, kMultiprocessors = 16, kL2CacheSize = 38, kMajor = 75, kMinor = 76;

int Capability() {
  const char* asked = std::getenv("EMULATED_CAPABILITY");
  return asked ? std::atoi(asked) : kDefaultCapability;
}

using Entry = void (*)(const int* grid, int threads, void** arguments);

struct Block { char* begin; size_t size; };

// A configuration begins with the extents of the grid and of the block.
struct Launch {
  Entry kernel;
  int extents[6];
  bool may_overlap;
  std::vector<uint64_t> arguments;
};

struct Graph { std::vector<Launch> launches; };
struct Stream { char unused; };

// What CUlaunchConfig begins with.
struct Configuration {
  int extents[6];
  unsigned shared;
  Stream* stream;
  const struct { int id; char more[68]; }* attributes;
  unsigned num_attributes;

  bool may_overlap() const {
    for (unsigned i = 0; i < num_attributes; ++i) {
      if (attributes[i].id == kProgrammaticSerialization) return true;
    }
    return false;
  }
};

double clock_ms = 0;
int broken = 0;  // The error that has ended the context.
sigjmp_buf before_kernel;
std::map<void*, Block> allocated;
std::map<void*, int> num_arguments;
Stream* captured = nullptr;  // The stream that is being captured.
Graph* recorded = nullptr;   // What it has been given; nothing where the capture has failed.

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

void tell(const std::string& what) {
  if (const char* path = std::getenv("EMULATED_LAUNCHES")) {
    std::ofstream(path, std::ios::app) << what << "\n";
  }
}

// How long a kernel takes beside its launch.
double milliseconds(const int* extents) {
  return 1.0 / (extents[0] * extents[1] * extents[2] * extents[3]);
}

// Ends a capture, if there is one, with an error; otherwise gives the one that has ended the
// context, if anything has.
int refused(int error) {
  if (!captured) return broken;
  delete recorded;
  recorded = nullptr;
  return error;
}

// As `refused`, for what is done on a stream; one by itself would have to wait for the other.
int refused_on(Stream* stream) { return refused(stream == captured ? kUnsupported : kImplicit); }

const char* text_of(int error) {
  switch (error) {
    case kIllegalAddress: return "an illegal memory access was encountered";
    case kUnsupported: return "operation not permitted when stream is capturing";
    case kInvalidated: return "operation failed due to a previous error during capture";
    case kImplicit: return "operation would make the legacy stream depend on a capturing stream";
    default: return "failure";
  }
}

const char* name_of(int error) {
  switch (error) {
    case kIllegalAddress: return "CUDA_ERROR_ILLEGAL_ADDRESS";
    case kUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case kInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case kImplicit: return "cudaErrorStreamCaptureImplicit";
    default: return "failure";
  }
}

}  // namespace

extern "C" {

int cuModuleLoadData(void** module, const void* image) {
  if (captured) return refused(kUnsupported);
  unsigned magic;
  std::memcpy(&magic, image, sizeof magic);
  const char* kernels = std::getenv("KERNELS");
  const char* path = kernels ? kernels : static_cast<const char*>(image) + kPathAt;
  *module = magic == kFatbinMagic ? dlopen(path, RTLD_NOW) : nullptr;
  return *module ? 0 : kFailure;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = dlsym(module, (std::string("run_") + name).c_str());
  if (!*function) return kFailure;
  void* count = dlsym(module, (std::string("num_arguments_") + name).c_str());
  num_arguments[*function] = *static_cast<const int*>(count);
  return 0;
}

int cuLaunchKernelEx(const Configuration* asked, void* function, void** arguments, void**) {
  if (broken) return broken;
  const Entry kernel = reinterpret_cast<Entry>(function);
  if (captured) {
    if (asked->stream != captured) return refused(kImplicit);
    if (!recorded) return kInvalidated;
    Launch launch{kernel, {}, asked->may_overlap(), {}};
    std::memcpy(launch.extents, asked->extents, sizeof launch.extents);
    for (int i = 0; i < num_arguments[function]; ++i) {
      launch.arguments.push_back(*static_cast<uint64_t*>(arguments[i]));
    }
    recorded->launches.push_back(launch);
    return 0;
  }
  clock_ms += 1 + milliseconds(asked->extents);
  tell("kernel");
  run(kernel, asked->extents, arguments);
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
  if (broken || captured) return refused(kUnsupported);
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
  if (captured) return refused(kUnsupported);
  if (const auto found = allocated.find(pointer); found != allocated.end()) {
    munmap(found->second.begin, found->second.size);
    allocated.erase(found);
  }
  return broken;
}

int cudaMemcpyAsync(void* target, const void* source, size_t size, int, Stream* stream) {
  if (captured) return refused_on(stream);
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
int cudaStreamSynchronize(Stream* stream) { return refused_on(stream); }

int cudaStreamCreate(Stream** stream) {
  *stream = new Stream;
  return broken;
}

int cudaStreamCreateWithFlags(Stream** stream, unsigned) { return cudaStreamCreate(stream); }

int cudaStreamDestroy(Stream* stream) {
  delete stream;
  return broken;
}

int cudaStreamBeginCapture(Stream* stream, int) {
  if (broken) return broken;
  if (captured || !stream) return kUnsupported;
  captured = stream;
  recorded = new Graph;
  return 0;
}

int cudaStreamEndCapture(Stream* stream, Graph** graph) {
  if (stream != captured) return kFailure;
  *graph = recorded;
  captured = nullptr;
  recorded = nullptr;
  return *graph ? broken : kInvalidated;
}

int cudaGraphInstantiate(Graph** ready, const Graph* graph) {
  if (!graph) return kFailure;
  int overlapping = 0;
  for (const Launch& each : graph->launches) overlapping += each.may_overlap;
  const std::string note = overlapping ? " overlapping " + std::to_string(overlapping) : "";
  tell("capture " + std::to_string(graph->launches.size()) + note);
  *ready = new Graph(*graph);
  return broken;
}

int cudaGraphLaunch(Graph* graph, Stream*) {
  if (captured) return refused(kUnsupported);
  tell("graph " + std::to_string(graph->launches.size()));
  clock_ms += 1;
  for (Launch& each : graph->launches) {
    if (broken) break;
    clock_ms += milliseconds(each.extents);
    std::vector<void*> arguments;
    for (uint64_t& argument : each.arguments) arguments.push_back(&argument);
    run(each.kernel, each.extents, arguments.data());
  }
  return broken;
}

int cudaGraphDestroy(Graph* graph) {
  delete graph;
  return broken;
}

int cudaGraphExecDestroy(Graph* ready) { return cudaGraphDestroy(ready); }

int cudaEventCreate(void** event) {
  *event = new double;
  return broken;
}

int cudaEventDestroy(void* event) {
  delete static_cast<double*>(event);
  return broken;
}

int cudaEventRecord(void* event, Stream* stream) {
  if (captured) return refused_on(stream);
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
int cudaMallocHost() { return kFailure; }
int cudaMemcpyPeerAsync() { return kFailure; }
int cudaStreamWaitEvent() { return kFailure; }
}
