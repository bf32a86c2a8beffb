// NCCL for the tensors of GPUs, over torch's own c10d.
//
// c10d's ProcessGroupNCCL is in libtorch_cuda, which programs load at start-up and only where there is a GPU, and its header needs CUDA's own
// headers. Its two constructors are therefore looked up by name in the loaded library; everything else goes through c10d::Backend, its first
// base. The libtorch that this crate is written for is pinned, and a name that is missing is an error.
#include "world.h"

#include <dlfcn.h>

#include <cstdlib>
#include <new>

namespace {
using Options = c10d::Backend::Options;
// More than the objects need (1112 and 248 bytes in torch 2.11.0).
constexpr size_t kGroupBytes = 8192;
constexpr size_t kOptionsBytes = 4096;

template <typename Function>
Function* constructor(const char* name) {
  auto* symbol = dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(symbol, "this libtorch has no NCCL (", name, " is missing)");
  return reinterpret_cast<Function*>(symbol);
}

// An object of a class derived from `Base` at its beginning, made by `construct` in memory of its own.
template <typename Base, typename Construct>
c10::intrusive_ptr<Base> made(size_t num_bytes, Construct&& construct) {
  void* memory = ::operator new(num_bytes);
  try {
    construct(memory);
  } catch (...) {
    ::operator delete(memory);
    throw;
  }
  return c10::intrusive_ptr<Base>::unsafe_steal_from_new(static_cast<Base*>(memory));
}
}  // namespace

extern "C" {

// Connects all processes for tensors on GPUs; each uses one of its own. The connection itself is made at the first exchange.
Message hlrp_world_connect_gpus(void* handle) {
  return guarded([&] {
    auto& world = *static_cast<World*>(handle);
    const auto construct_options =
        constructor<void(void*, bool)>("_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb");
    const auto construct_group =
        constructor<void(void*, c10::intrusive_ptr<c10d::Store>, int, int, c10::intrusive_ptr<Options>)>(
            "_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_"
            "typeIS3_EEEEiiNS2_INS0_7OptionsENS5_IS8_EEEE");
    // An exchange that fails or takes too long is given up, and the error is the program's: c10d would end the process otherwise.
    setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 0);
    setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 0);
    auto options = made<Options>(kOptionsBytes, [&](void* memory) { construct_options(memory, false); });
    options->timeout = world.timeout;
    const c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::PrefixStore>("nccl", world.store);
    world.nccl = made<c10d::Backend>(
        kGroupBytes, [&](void* memory) { construct_group(memory, store, world.rank, world.size, options); });
  });
}

}  // extern "C"
