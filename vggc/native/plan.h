/* What vggc writes of a compiled net into its library, and what the runtime reads.
 *
 * The generated file of a net defines `plan` and includes the runtime's sources, so that all names
 * but those of the public header are its own: several nets may be linked into one program.
 */
#ifndef VGGC_PLAN_H
#define VGGC_PLAN_H

#include <stddef.h>
#include <stdint.h>

/* DLPack's and TVM's structures, as kernels take them (dlpack.h; tvm/ffi/c_api.h). */
typedef struct { uint8_t code, bits; uint16_t lanes; } dl_type;
typedef struct { int32_t type, id; } dl_device;
typedef struct {
  void *data;
  dl_device device;
  int32_t ndim;
  dl_type dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} dl_tensor;
typedef struct { int32_t type_index; uint32_t zero; union { int64_t i; void *p; } v; } ffi_any;
typedef int kernel_function(void *self, const ffi_any *arguments, int32_t count, ffi_any *result);

#define ALIGNMENT 64u /* bytes at whose multiples kernels expect a tensor to begin */

enum place { IN_INPUT, IN_ARENA, IN_WEIGHTS };

typedef struct { /* a value or a weight, as kernels take it */
  uint8_t place, ndim;
  dl_type dtype;
  uint32_t weight; /* the number of the stored weight, where it is one */
  uint64_t offset; /* bytes from the arena's beginning, where it lies there */
  const int64_t *shape;
} plan_tensor;

typedef struct {
  kernel_function *run;
  const char *step;
  uint32_t count;
  const uint32_t *arguments; /* numbers of tensors, the output's last */
} plan_call;

/* A tensor of the weights' file. Its hash is the SHA-256 of the SHA-256s of its pieces of 4 MiB,
 * one behind the other, the last being what is left: threads hash pieces of one tensor at once. */
typedef struct {
  const char *name;
  uint64_t offset, bytes; /* from where the file begins */
  uint8_t sha256[32];
} plan_weight;

typedef struct { /* what a head gives of one image */
  const char *name;
  uint8_t ndim;
  const int64_t *shape;
} plan_head;

typedef struct { /* so many images at once */
  int64_t batch, fewest; /* it is taken for so many images at least, the first one for any */
  uint64_t arena_bytes;
  const plan_tensor *tensors;
  const plan_call *calls;
  const uint32_t *outputs; /* a tensor for each head */
  uint32_t num_tensors, num_calls;
} plan_entry;

typedef struct {           /* images of one size */
  int64_t input[3];          /* channels, height, width */
  int32_t scale;             /* of pictures, as plan_preprocessing has it */
  uint32_t num_entries;
  const plan_entry *entries; /* by ascending batch */
  const plan_head *heads;
} plan_size;

typedef struct {
  const char *net, *cpu;
  const char *const *instructions; /* LLVM's names of what the code may use; ends with NULL */
  const plan_size *sizes;          /* the main one first */
  const plan_entry *entries;       /* those of all sizes */
  const plan_weight *weights;
  uint32_t num_sizes, num_entries, num_heads, num_weights;
  uint64_t file_bytes, header_bytes; /* of the weights' file, and of all in front of its data */
  uint8_t header_sha256[32];
} plan_net;

#endif
