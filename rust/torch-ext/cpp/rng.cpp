// States of the default random generators.
#include "shim.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

namespace {
at::Generator generator(int64_t device_index) {
  return at::globalContext().defaultGenerator(to_device(device_index));
}
}  // namespace

extern "C" {

Message hlrp_rng_get_state(int64_t device_index, at::Tensor** out) {
  return guarded([&] {
    auto gen = generator(device_index);
    std::lock_guard<std::mutex> lock(gen.mutex());
    *out = new at::Tensor(gen.get_state());
  });
}

Message hlrp_rng_set_state(int64_t device_index, TensorIn state) {
  return guarded([&] {
    auto gen = generator(device_index);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_state(*state);
  });
}

Message hlrp_rng_seed(int64_t device_index, uint64_t seed) {
  return guarded([&] {
    auto gen = generator(device_index);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_current_seed(seed);
  });
}

}  // extern "C"
