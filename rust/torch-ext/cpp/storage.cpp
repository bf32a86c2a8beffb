// Tensors over memory that the caller allocated.
#include "shim.h"

#include <ATen/ops/from_blob.h>

extern "C" {

// kind: 0 = uint8, 1 = bool, 2 = float32. `drop(context)` runs when the last tensor over the memory goes.
Message hlrp_tensor_over(void* data, const int64_t* sizes, size_t dim, int kind, void (*drop)(void*), void* context,
                         at::Tensor** out) {
  return guarded([&] {
    const at::ScalarType types[] = {at::kByte, at::kBool, at::kFloat};
    *out = new at::Tensor(at::from_blob(
        data, at::IntArrayRef(sizes, dim), [drop, context](void*) { drop(context); }, at::TensorOptions(types[kind])));
  });
}

}  // extern "C"
