// CUDA graphs: what a GPU was asked to do once, recorded and replayed by one call.
//
// libtorch's at::cuda::CUDAGraph is in libtorch_cuda, which programs load at start-up and only where there is a GPU, and its header needs
// CUDA's own headers. Its member functions are therefore looked up by name in the loaded library; the libtorch that this crate is written for
// is pinned, and a name that is missing is an error.
#include "shim.h"

#include <ATen/autocast_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <cstddef>
#include <utility>

namespace {

using PoolId = std::pair<unsigned long long, unsigned long long>;

template <typename Function>
Function* member(const char* name) {
  auto* symbol = dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(symbol, "this libtorch has no CUDA graphs (", name, " is missing)");
  return reinterpret_cast<Function*>(symbol);
}

// cudaStreamCaptureModeThreadLocal: other threads may go on allocating and copying.
constexpr int kThreadLocal = 1;

class Graph {
 public:
  explicit Graph(c10::Device device) : device_(device) {
    member<void(void*, bool)>("_ZN2at4cuda9CUDAGraphC1Eb")(storage_, false);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (auto* destroy = reinterpret_cast<void (*)(void*)>(dlsym(RTLD_DEFAULT, "_ZN2at4cuda9CUDAGraphD1Ev"))) {
      destroy(storage_);
    }
  }

  // Kernels of this thread are recorded instead of executed from here on, on the device and a stream of the capture: one of high priority,
  // because copies to the device take turns with those of the others. Casts that autocast keeps are neither taken over nor left behind: those
  // from before are freed when autocast ends, and those of the graph have no contents yet.
  void begin() {
    at::autocast::clear_cache();
    previous_device_ = impl_.exchangeDevice(device_);
    impl_.synchronizeDevice(device_.index());
    // What libtorch keeps for later is of no use here: a graph has memory of its own.
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
    previous_ = impl_.exchangeStream(impl_.getStreamFromGlobalPool(device_, /*isHighPriority=*/true));
    try {
      member<void(void*, PoolId, int)>("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode")(
          storage_, PoolId{0, 0}, kThreadLocal);
    } catch (...) {
      restore();
      throw;
    }
  }

  // On the stream on which it began.
  void end() {
    at::autocast::clear_cache();
    try {
      member<void(void*)>("_ZN2at4cuda9CUDAGraph11capture_endEv")(storage_);
    } catch (...) {
      restore();
      throw;
    }
    restore();
  }

  void replay() { member<void(void*)>("_ZN2at4cuda9CUDAGraph6replayEv")(storage_); }

 private:
  void restore() {
    impl_.exchangeStream(previous_);
    impl_.exchangeDevice(previous_device_);
  }

  // More than an at::cuda::CUDAGraph needs (a few hundred bytes).
  alignas(std::max_align_t) std::byte storage_[4096];
  c10::Device device_;
  c10::impl::VirtualGuardImpl impl_{c10::DeviceType::CUDA};
  c10::Device previous_device_{c10::DeviceType::CUDA, 0};
  c10::Stream previous_{c10::Stream::DEFAULT, c10::Device(c10::DeviceType::CUDA, 0)};
};

}  // namespace

extern "C" {

// A graph whose capture has begun; the caller ends it with hlrp_graph_end and frees it with hlrp_graph_free. One whose capture fails must stay:
// libtorch's allocator still refers to it.
Message hlrp_graph_begin(int64_t device_index, void** out) {
  return guarded([&] {
    auto* graph = new Graph(to_device(device_index));
    graph->begin();
    *out = graph;
  });
}

Message hlrp_graph_end(void* graph) {
  return guarded([&] { static_cast<Graph*>(graph)->end(); });
}

Message hlrp_graph_replay(void* graph) {
  return guarded([&] { static_cast<Graph*>(graph)->replay(); });
}

void hlrp_graph_free(void* graph) { delete static_cast<Graph*>(graph); }

}  // extern "C"
