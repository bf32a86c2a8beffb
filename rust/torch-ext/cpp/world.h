// What world.cpp asks of the library in nccl.cpp.
#pragma once
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

// Connects the GPUs of `size` processes that share `store`.
using MakeNccl = void (*)(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, std::chrono::milliseconds timeout,
                          c10::intrusive_ptr<c10d::Backend>& out);
