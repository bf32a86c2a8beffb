// Conventions of the shim: plain C signatures; a function returns null on success, else a message that the caller frees with
// hlrp_free_message; tensors go in as borrowed pointers and come out as owned ones; a device index of -1 is the CPU.
#pragma once
#include <ATen/core/Tensor.h>
#include <cstring>
#include <exception>
#include <vector>

using Message = char*;
using TensorIn = const at::Tensor*;
using TensorsIn = const at::Tensor* const*;

// Runs `body`; turns any C++ exception into a message.
template <typename Body>
Message guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

inline std::vector<at::Tensor> to_vector(TensorsIn tensors, size_t count) {
  std::vector<at::Tensor> out;
  out.reserve(count);
  for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
  return out;
}

inline c10::Device to_device(int64_t index) {
  return index < 0 ? c10::Device(c10::DeviceType::CPU)
                   : c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}
