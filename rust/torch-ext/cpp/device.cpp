// CUDA start-up, device names, synchronisation and copies from the host. Nothing here needs CUDA's own headers or links its
// libraries: libtorch's device-neutral interfaces find the CUDA implementation once libtorch_cuda is loaded.
#include "shim.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pin_memory.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <optional>
#include <string>

extern "C" {

// Folder of the libtorch_cpu in use.
Message hlrp_libtorch_folder(char** out) {
  return guarded([&] {
    Dl_info info;
    auto* symbol = reinterpret_cast<void*>(&at::detail::getCUDAHooks);
    TORCH_CHECK(dladdr(symbol, &info) != 0 && info.dli_fname, "the dynamic linker does not know where libtorch_cpu is");
    std::string path(info.dli_fname);
    *out = strdup(path.substr(0, path.rfind('/')).c_str());
  });
}

// Whether NVIDIA's driver library can be loaded.
bool hlrp_cuda_driver_present() { return dlopen("libcuda.so.1", RTLD_LAZY | RTLD_GLOBAL) != nullptr; }

// Loads a shared library for the rest of the process's life and makes its symbols visible to all.
Message hlrp_load_library(const char* path) {
  return dlopen(path, RTLD_LAZY | RTLD_GLOBAL) ? nullptr : strdup(dlerror());
}

// Must not run before libtorch_cuda is loaded: libtorch remembers the first answer.
int64_t hlrp_cuda_device_count() { return at::detail::getCUDAHooks().deviceCount(); }

// Asks the driver, which numbers devices as CUDA_VISIBLE_DEVICES leaves them.
Message hlrp_cuda_device_name(int64_t device_index, char* out, int capacity) {
  return guarded([&] {
    auto* driver = dlopen("libcuda.so.1", RTLD_LAZY);
    TORCH_CHECK(driver, "libcuda.so.1 cannot be loaded");
    auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
    auto name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
    int device = 0;
    TORCH_CHECK(init && get && name && init(0) == 0 && get(&device, static_cast<int>(device_index)) == 0 &&
                    name(out, capacity, device) == 0,
                "the CUDA driver does not report the name of device ", device_index);
  });
}

// Unique identifier of a device, 16 bytes: that of its part where the GPU is partitioned.
Message hlrp_cuda_device_uuid(int64_t device_index, unsigned char* out) {
  return guarded([&] {
    auto* driver = dlopen("libcuda.so.1", RTLD_LAZY);
    TORCH_CHECK(driver, "libcuda.so.1 cannot be loaded");
    auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
    auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
    auto uuid = reinterpret_cast<int (*)(unsigned char*, int)>(dlsym(driver, "cuDeviceGetUuid_v2"));
    if (!uuid) uuid = reinterpret_cast<int (*)(unsigned char*, int)>(dlsym(driver, "cuDeviceGetUuid"));
    int device = 0;
    TORCH_CHECK(init && get && uuid && init(0) == 0 && get(&device, static_cast<int>(device_index)) == 0 &&
                    uuid(out, device) == 0,
                "the CUDA driver does not report the identifier of device ", device_index);
  });
}

Message hlrp_allow_tf32(bool allowed) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

Message hlrp_cuda_synchronize(int64_t device_index) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(device_index));
  });
}

// A stream for copies, apart from the stream that computes.
Message hlrp_copy_stream(int64_t device_index, int64_t* stream_id) {
  return guarded([&] {
    *stream_id = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStreamFromGlobalPool(to_device(device_index)).id();
  });
}

// Sets the current stream of this thread on that device; `former` receives the previous one.
Message hlrp_exchange_stream(int64_t device_index, int64_t stream_id, int64_t* former) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl impl(c10::DeviceType::CUDA);
    *former = impl.exchangeStream(c10::Stream(c10::Stream::UNSAFE, to_device(device_index), stream_id)).id();
  });
}

// Copies through pinned memory on the current stream; the copies may still be under way when this returns.
Message hlrp_copy_to_cuda(size_t count, TensorsIn tensors, int64_t device_index, at::Tensor** out) {
  return guarded([&] {
    const auto device = to_device(device_index);
    const c10::DeviceGuard guard(device);
    std::vector<at::Tensor> copies;
    for (size_t i = 0; i < count; ++i) {
      const auto pinned = tensors[i]->pin_memory();
      copies.push_back(pinned.to(device, tensors[i]->scalar_type(), /*non_blocking=*/true));
    }
    for (size_t i = 0; i < count; ++i) out[i] = new at::Tensor(copies[i]);
  });
}

// Waits for the current stream alone. The memory of the tensors, which were made on it, is not given out again before the device's default stream
// has done with them.
Message hlrp_hand_over(size_t count, TensorsIn tensors, int64_t device_index) {
  return guarded([&] {
    const auto device = to_device(device_index);
    const c10::impl::VirtualGuardImpl impl(c10::DeviceType::CUDA);
    impl.synchronizeStream(impl.getStream(device));
    for (size_t i = 0; i < count; ++i) tensors[i]->record_stream(impl.getDefaultStream(device));
  });
}

// Contiguous copies in the host's memory; of a device's tensors in pinned memory, with one wait for the current stream. The copies share
// buffers of `buffer_bytes`, because libtorch rounds each piece of pinned memory up to a power of two; larger ones have their own.
Message hlrp_snapshot(size_t count, TensorsIn tensors, int64_t buffer_bytes, at::Tensor** out) {
  return guarded([&] {
    constexpr int64_t alignment = 64;
    const auto aligned = [](int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    std::vector<at::Tensor> copies;
    std::optional<c10::Device> device;
    for (size_t first = 0; first < count;) {
      // From `first` to before `end`: what shares a buffer.
      const bool is_pinned = !tensors[first]->is_cpu();
      int64_t bytes = 0;
      size_t end = first;
      while (end < count && tensors[end]->is_cpu() != is_pinned &&
             (end == first || bytes + static_cast<int64_t>(tensors[end]->nbytes()) <= buffer_bytes)) {
        bytes += aligned(static_cast<int64_t>(tensors[end++]->nbytes()));
      }
      const auto buffer = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(is_pinned));
      for (int64_t offset = 0; first < end; ++first) {
        const auto source = tensors[first]->detach();
        if (is_pinned) device = source.device();
        const auto size = static_cast<int64_t>(source.nbytes());
        copies.push_back(buffer.narrow(0, offset, size).view(source.scalar_type()).view(source.sizes()));
        copies.back().copy_(source, /*non_blocking=*/true);
        offset += aligned(size);
      }
    }
    if (device) {
      const c10::impl::VirtualGuardImpl impl(device->type());
      impl.synchronizeStream(impl.getStream(*device));
    }
    for (size_t i = 0; i < count; ++i) out[i] = new at::Tensor(copies[i]);
  });
}

}  // extern "C"
