// CUDA start-up, device names, synchronisation and copies from the host. Nothing here needs CUDA's own headers or links its
// libraries: libtorch's device-neutral interfaces find the CUDA implementation once libtorch_cuda is loaded.
#include "shim.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pin_memory.h>
#include <c10/core/StreamGuard.h>
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

// Copies through pinned memory on stream `stream_id` and waits for that stream alone. The results are complete when this
// returns, and their memory is not given out again before the device's default stream has done with them.
Message hlrp_copy_to_cuda(size_t count, TensorsIn tensors, int64_t device_index, int64_t stream_id, at::Tensor** out) {
  return guarded([&] {
    const auto device = to_device(device_index);
    const c10::impl::VirtualGuardImpl impl(c10::DeviceType::CUDA);
    const c10::Stream stream(c10::Stream::UNSAFE, device, stream_id);
    const auto compute = impl.getDefaultStream(device);
    std::vector<at::Tensor> pinned, copies;
    {
      c10::StreamGuard guard(stream);
      for (size_t i = 0; i < count; ++i) {
        pinned.push_back(tensors[i]->pin_memory());
        copies.push_back(pinned.back().to(device, tensors[i]->scalar_type(), /*non_blocking=*/true));
      }
      impl.synchronizeStream(stream);
    }
    for (size_t i = 0; i < count; ++i) {
      copies[i].record_stream(compute);
      out[i] = new at::Tensor(copies[i]);
    }
  });
}

// Contiguous copies in the host's memory; of a device's tensors in pinned memory, with one wait for the current stream.
Message hlrp_snapshot(size_t count, TensorsIn tensors, at::Tensor** out) {
  return guarded([&] {
    std::vector<at::Tensor> copies;
    std::optional<c10::Device> device;
    for (size_t i = 0; i < count; ++i) {
      const auto source = tensors[i]->detach();
      if (!source.is_cpu()) device = source.device();
      auto options = source.options().device(c10::kCPU).pinned_memory(!source.is_cpu());
      copies.push_back(at::empty(source.sizes(), options));
      copies.back().copy_(source, /*non_blocking=*/true);
    }
    if (device) {
      const c10::impl::VirtualGuardImpl impl(device->type());
      impl.synchronizeStream(impl.getStream(*device));
    }
    for (size_t i = 0; i < count; ++i) out[i] = new at::Tensor(copies[i]);
  });
}

}  // extern "C"
