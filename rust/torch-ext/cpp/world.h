// The processes of a run as the shim knows them.
#pragma once
#include "shim.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <memory>

using Work = c10::intrusive_ptr<c10d::Work>;

struct World {
  // Where the process groups exchange their addresses, and a connection of its own for notices: an operation of one never waits for the other.
  c10::intrusive_ptr<c10d::Store> store, notices;
  // The network device of Gloo.
  std::shared_ptr<::gloo::transport::Device> device;
  // For tensors in main memory, and for those on GPUs.
  c10::intrusive_ptr<c10d::Backend> gloo, nccl;
  int rank;
  int size;
  std::chrono::milliseconds timeout;

  c10d::Backend& of(const at::Tensor& tensor) const {
    const auto& backend = tensor.is_cpu() ? gloo : nccl;
    TORCH_CHECK(backend, "the processes are not connected for tensors on ", tensor.device());
    return *backend;
  }

  // Begins to replace a dense tensor by its sum over all processes.
  Work sum(at::Tensor& tensor) const {
    std::vector<at::Tensor> list{tensor};
    return of(tensor).allreduce(list);
  }
};
