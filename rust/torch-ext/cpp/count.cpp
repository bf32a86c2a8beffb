// Counts what libtorch executes, through its own observer of operators: floating-point operations of matrix products,
// convolutions and attention from the shapes of their inputs, bytes that operators read and write, operators, and waits of the host for a
// device.
#include "shim.h"

#include <ATen/core/function_schema.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace {

std::atomic<int64_t> num_flops{0}, num_bytes{0}, num_operators{0}, num_host_waits{0};

using Sizes = std::vector<int64_t>;

Sizes sizes_of(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() ? value.toTensor().sizes().vec() : Sizes();
}

int64_t product(const Sizes& sizes) {
  int64_t result = 1;
  for (auto size : sizes) result *= size;
  return result;
}

// Two per multiplication and addition. `[N,K] x [K,M]`, batched or not.
int64_t matmul_flops(const Sizes& a, const Sizes& b) {
  return a.size() < 2 || b.empty() ? 0 : 2 * product(a) * (b.size() < 2 ? 1 : b.back());
}

// Queries `[B,H,L,E]`, keys `[B,G,S,E]`, values `[B,G,S,F]`: two products of L by S per head.
int64_t attention_flops(const Sizes& q, const Sizes& k, const Sizes& v) {
  if (q.size() != 4 || k.size() != 4 || v.size() != 4) return 0;
  return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3]);
}

// Inputs of a convolution: input `[B,C,...]`, weight `[O,C/groups,...]`, then stride, padding and dilation. One product of the kernel per
// value of the output; a transposed convolution swaps input and output.
int64_t convolution_flops(c10::ArrayRef<const c10::IValue> inputs) {
  const auto input = sizes_of(inputs[0]), weight = sizes_of(inputs[1]);
  if (input.size() < 3 || weight.size() != input.size()) return 0;
  const auto stride = inputs[3].toIntVector(), padding = inputs[4].toIntVector(), dilation = inputs[5].toIntVector();
  int64_t positions = input[0];
  for (size_t i = 2; i < input.size(); ++i) {
    const auto at = [&](const std::vector<int64_t>& values) { return values[values.size() == 1 ? 0 : i - 2]; };
    const auto reach = at(dilation) * (weight[i] - 1) + 1;
    positions *= inputs[6].toBool() ? input[i] : (input[i] + 2 * at(padding) - reach) / at(stride) + 1;
  }
  return 2 * product(weight) * positions;
}

// Whether a call asks for a tensor in main memory, as `x.to(kCPU)` does. On the CPU nothing is copied; on a GPU the host would wait. The
// backward pass of a cast calls `to` with a type as well (`inputs[1]`), which is no such fetch.
bool is_fetch(std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
  return name == "aten::to" && inputs.size() > 3 && inputs[1].isNone() && inputs[3].isDevice() && inputs[3].toDevice().is_cpu();
}

// Whether a call makes the host wait for a device, or would if its tensors were there: it returns a value to the host, its output has a shape
// that depends on values, it copies to the host, or it copies from memory of the host that is not pinned. A value of a GPU is read by one
// operator, whichever others call it. Inside other operators the CPU reads values that a GPU does not: there the outermost call counts.
bool is_host_wait(std::string_view name, c10::ArrayRef<const c10::IValue> inputs, bool is_outermost) {
  if (name == "aten::nonzero") return true;
  if (name == "aten::copy_") {
    if (inputs.size() < 2 || !inputs[0].isTensor() || !inputs[1].isTensor()) return false;
    const auto &to = inputs[0].toTensor(), &from = inputs[1].toTensor();
    const bool is_queued = inputs.size() > 2 && inputs[2].isBool() && inputs[2].toBool() && from.is_cpu() && from.is_pinned();
    return to.is_cpu() != from.is_cpu() && !is_queued;
  }
  if (!inputs.empty() && inputs[0].isTensor() && inputs[0].toTensor().defined() && !inputs[0].toTensor().is_cpu()) {
    return name == "aten::_local_scalar_dense";
  }
  return is_outermost && (name == "aten::item" || name == "aten::_local_scalar_dense" || name == "aten::is_nonzero" ||
                          name == "aten::equal" || is_fetch(name, inputs));
}

// What a value of an operator holds in memory; an expanded tensor no more than is behind it.
int64_t bytes_of(const c10::IValue& value) {
  if (value.isTensorList()) {
    int64_t sum = 0;
    for (const at::Tensor& tensor : value.toTensorList()) sum += bytes_of(tensor);
    return sum;
  }
  if (!value.isTensor() || !value.toTensor().defined() || !value.toTensor().has_storage()) return 0;
  const auto& tensor = value.toTensor();
  return std::min<int64_t>(tensor.nbytes(), tensor.storage().nbytes());
}

// Whether an operator moves no bytes: it reserves memory, or looks at memory in another way (a view).
bool is_free(std::string_view name, const c10::FunctionSchema* schema) {
  for (const std::string_view other :
       {"aten::empty", "aten::new_empty", "aten::resize_", "aten::set_", "aten::_unsafe_view", "aten::_reshape_alias"}) {
    if (name.rfind(other, 0) == 0) return true;
  }
  if (!schema) return false;
  const auto is_viewed = [](const c10::Argument& argument) { return argument.alias_info() && !argument.alias_info()->isWrite(); };
  return std::any_of(schema->arguments().begin(), schema->arguments().end(), is_viewed);
}

// Whether an operator writes its first argument without reading it.
bool only_writes_self(std::string_view name) {
  const auto names = {"aten::copy_", "aten::fill_", "aten::zero_", "aten::normal_", "aten::uniform_", "aten::random_"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Bytes of the arguments of an operator: each is read; one that is written and not returned is written, too.
int64_t bytes_of_arguments(std::string_view name, const c10::FunctionSchema* schema, c10::ArrayRef<const c10::IValue> inputs) {
  int64_t sum = 0;
  for (size_t i = only_writes_self(name) ? 1 : 0; i < inputs.size(); ++i) {
    const bool is_result = schema && schema->returns().empty() && i < schema->arguments().size() &&
                           schema->arguments()[i].alias_info();
    sum += bytes_of(inputs[i]) * (is_result ? 2 : 1);
  }
  return sum;
}

// An operator that a thread is inside of.
struct Call {
  // Bytes of its arguments, which are gone when it ends; none for one that is free.
  std::optional<int64_t> of_arguments;
  // Bytes that the operators which it called moved.
  int64_t by_others = 0;
};
// From the outermost.
thread_local std::vector<Call> calls;

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  const std::string_view name(function.name());
  const auto inputs = function.inputs();
  const auto sizes = [&](size_t index) { return index < inputs.size() ? sizes_of(inputs[index]) : Sizes(); };
  num_operators += 1;
  num_host_waits += is_host_wait(name, inputs, calls.empty());
  const auto schema = function.operator_schema();
  const auto* known = schema ? &*schema : nullptr;
  calls.emplace_back();
  if (!is_free(name, known)) calls.back().of_arguments = bytes_of_arguments(name, known, inputs);
  if (name == "aten::mm" || name == "aten::bmm") {
    num_flops += matmul_flops(sizes(0), sizes(1));
  } else if (name == "aten::addmm" || name == "aten::baddbmm") {
    num_flops += matmul_flops(sizes(1), sizes(2));
  } else if (name.rfind("aten::_scaled_dot_product_", 0) == 0 && name.find("_attention_math") == name.npos) {
    // Four products backward; that a kernel computes the scores once more is not work of the model.
    const bool is_backward = name.find("_backward") != name.npos;
    num_flops += is_backward ? 2 * attention_flops(sizes(1), sizes(2), sizes(3))
                             : attention_flops(sizes(0), sizes(1), sizes(2));
  } else if (name == "aten::convolution") {
    num_flops += convolution_flops(inputs);
  } else if (name == "aten::convolution_backward") {
    // Gradients of input and weight; the list begins with the gradient of the output and has the sizes of the bias in place of the bias.
    num_flops += 2 * convolution_flops(inputs.slice(1));
  }
  return nullptr;
}

void on_end(const at::RecordFunction& function, at::ObserverContext*) {
  if (calls.empty()) return;
  const auto call = calls.back();
  calls.pop_back();
  int64_t own = call.of_arguments.value_or(0);
  if (call.of_arguments) {
    for (const auto& output : function.outputs()) own += bytes_of(output);
  }
  // What an operator moves, it moves itself or through others.
  const auto moved = std::max(own, call.by_others);
  if (calls.empty()) {
    num_bytes += moved;
  } else {
    calls.back().by_others += moved;
  }
}

}  // namespace

extern "C" {

struct OperatorCounts {
  int64_t flops, bytes, operators, host_waits;
};

// Starts counting from zero what this thread does, the backward passes that it starts included; the handle ends it.
Message hlrp_count_start(uint64_t* handle) {
  return guarded([&] {
    num_flops = num_bytes = num_operators = num_host_waits = 0;
    auto observer = at::RecordFunctionCallback(on_start, on_end).needsInputs(true).needsOutputs(true);
    *handle = at::addThreadLocalCallback(observer.scopes({at::RecordScope::FUNCTION}));
  });
}

Message hlrp_count_stop(uint64_t handle) {
  return guarded([&] { at::removeCallback(handle); });
}

// What was counted since the last start.
void hlrp_count_read(OperatorCounts* out) { *out = {num_flops, num_bytes, num_operators, num_host_waits}; }

}  // extern "C"
