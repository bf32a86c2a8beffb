// The processes of a run, over torch's own c10d: a store where they meet, Gloo for tensors in main memory, and NCCL (nccl.cpp) for those on GPUs.
#include "world.h"

#include <c10/core/GradMode.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <cstdlib>
#include <string>

C10_DECLARE_int(caffe2_log_level);

namespace {
World& world_of(void* handle) { return *static_cast<World*>(handle); }

// Gloo wants dense memory: runs `exchange` on a dense copy where `tensor` is not, and copies the result back.
template <typename Exchange>
void in_place(const at::Tensor& tensor, Exchange&& exchange) {
  c10::NoGradGuard no_grad;
  auto dense = tensor.detach().contiguous();
  exchange(dense);
  auto target = tensor.detach();
  if (!dense.is_same(target) && dense.data_ptr() != target.data_ptr()) target.copy_(dense);
}
}  // namespace

extern "C" {

// Errors of c10d reach the program as exceptions; its own lines on standard error would repeat them.
void hlrp_world_quiet() { FLAGS_caffe2_log_level = 3; }

// The store at `file`, or at `host`:`port`, where it runs in this process if `is_server`.
Message hlrp_world_open(const char* file, const char* host, uint16_t port, bool is_server, const char* prefix, int rank,
                        int size, int64_t timeout_ms, void** out) {
  return guarded([&] {
    c10::intrusive_ptr<c10d::Store> store;
    if (file) {
      store = c10::make_intrusive<c10d::FileStore>(file, -1);
    } else {
      c10d::TCPStoreOptions options;
      options.port = port;
      options.isServer = is_server;
      options.waitWorkers = false;
      options.timeout = std::chrono::milliseconds(timeout_ms);
      store = c10::make_intrusive<c10d::TCPStore>(host, options);
    }
    store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
    store->setTimeout(std::chrono::milliseconds(timeout_ms));
    const auto notices = store->clone();
    *out = new World{store, notices, nullptr, nullptr, nullptr, rank, size, std::chrono::milliseconds(timeout_ms)};
  });
}

Message hlrp_world_set(void* handle, const char* key, const char* value) {
  return guarded([&] { world_of(handle).notices->set(key, std::string(value)); });
}

// The value of a key; null if it has none.
Message hlrp_world_get(void* handle, const char* key, char** out) {
  return guarded([&] {
    auto& store = *world_of(handle).notices;
    *out = nullptr;
    if (!store.check({key})) return;
    const auto value = store.get(key);
    *out = strdup(std::string(value.begin(), value.end()).c_str());
  });
}

// Opens the network device of Gloo: the interface, else the address, else where the host's name leads.
Message hlrp_world_listen(void* handle, const char* interface, const char* address) {
  return guarded([&] {
    world_of(handle).device = interface ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                              : address ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                        : c10d::ProcessGroupGloo::createDefaultDevice();
  });
}

// Connects all processes; each of them listens.
Message hlrp_world_connect(void* handle) {
  return guarded([&] {
    auto& world = world_of(handle);
    auto options = c10d::ProcessGroupGloo::Options::create(world.timeout);
    options->devices.push_back(world.device);
    auto store = c10::make_intrusive<c10d::PrefixStore>("gloo", world.store);
    world.gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, world.rank, world.size, options);
  });
}

// Throws if an exchange between GPUs has failed: c10d then aborts the kernels that wait for it, and what they were to write is undefined.
Message hlrp_world_check(void* handle) {
  return guarded([&] {
    const auto& nccl = world_of(handle).nccl;
    TORCH_CHECK(!nccl || nccl->getError() == c10d::ErrorType::SUCCESS, "NCCL has aborted an exchange");
  });
}

// Ends the connections, so that every other process notices at its next exchange.
void hlrp_world_disconnect(void* handle) {
  auto& world = world_of(handle);
  world.gloo.reset();
  // What waits on a GPU for a process that is gone would keep this one from ending.
  if (world.nccl) free(guarded([&] { world.nccl->abort(); }));
  world.nccl.reset();
}

void hlrp_world_free(void* handle) {
  // Shuts down; errors of the last exchange have been reported or do not matter any more.
  if (auto& nccl = world_of(handle).nccl) free(guarded([&] { nccl->shutdown(); }));
  delete static_cast<World*>(handle);
}

Message hlrp_world_all_reduce(void* handle, TensorIn tensor) {
  return guarded([&] { in_place(*tensor, [&](at::Tensor& dense) { world_of(handle).sum(dense)->wait(); }); });
}

Message hlrp_world_broadcast(void* handle, TensorIn tensor) {
  return guarded([&] {
    in_place(*tensor, [&](at::Tensor& dense) {
      std::vector<at::Tensor> list{dense};
      world_of(handle).of(dense).broadcast(list)->wait();
    });
  });
}

// `out` has room for one tensor of each process.
Message hlrp_world_all_gather(void* handle, TensorIn tensor, at::Tensor** out) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto& world = world_of(handle);
    std::vector<at::Tensor> inputs{tensor->detach().contiguous()};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int rank = 0; rank < world.size; ++rank) outputs[0].push_back(at::empty_like(inputs[0]));
    world.of(inputs[0]).allgather(outputs, inputs)->wait();
    for (int rank = 0; rank < world.size; ++rank) out[rank] = new at::Tensor(outputs[0][rank]);
  });
}

}  // extern "C"
