// Memory figures of the CUDA caching allocator.
#include "shim.h"

#include <c10/core/CachingDeviceAllocator.h>

extern "C" {

struct MemoryFigures {
  int64_t allocated, peak_allocated, reserved, peak_reserved;
  uint64_t free, total;
};

Message hlrp_cuda_memory(int64_t device_index, MemoryFigures* out) {
  return guarded([&] {
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    auto index = static_cast<c10::DeviceIndex>(device_index);
    const auto aggregate = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator->getDeviceStats(index);
    const auto [free, total] = allocator->getMemoryInfo(index);
    *out = {stats.allocated_bytes[aggregate].current, stats.allocated_bytes[aggregate].peak,
            stats.reserved_bytes[aggregate].current, stats.reserved_bytes[aggregate].peak, free, total};
  });
}

Message hlrp_cuda_reset_peak_memory(int64_t device_index) {
  return guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device_index));
  });
}

}  // extern "C"
