// Operations on whole lists of tensors: one call, on CUDA one or few kernels.
#include "shim.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

extern "C" {

void hlrp_free_message(Message message) { free(message); }

Message hlrp_fused_adamw(size_t count, TensorsIn params, TensorsIn grads, TensorsIn exp_avgs, TensorsIn exp_avg_sqs,
                         TensorsIn steps, double lr, double beta1, double beta2, double weight_decay, double eps) {
  return guarded([&] {
    c10::AutoGradMode no_grad(false);
    auto step_list = to_vector(steps, count);
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(to_vector(params, count), to_vector(grads, count), to_vector(exp_avgs, count),
                      to_vector(exp_avg_sqs, count), {}, step_list, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

Message hlrp_foreach_norm(size_t count, TensorsIn tensors, at::Tensor** out) {
  return guarded([&] {
    c10::AutoGradMode no_grad(false);
    auto norms = at::_foreach_norm(to_vector(tensors, count), 2);
    *out = new at::Tensor(at::linalg_vector_norm(at::stack(norms), 2));
  });
}

Message hlrp_foreach_mul(size_t count, TensorsIn tensors, TensorIn factor) {
  return guarded([&] {
    c10::AutoGradMode no_grad(false);
    at::_foreach_mul_(to_vector(tensors, count), *factor);
  });
}

Message hlrp_foreach_lerp(size_t count, TensorsIn tensors, TensorsIn ends, double weight) {
  return guarded([&] {
    c10::AutoGradMode no_grad(false);
    at::_foreach_lerp_(to_vector(tensors, count), to_vector(ends, count), weight);
  });
}

// An undefined tensor stands for no gradient.
Message hlrp_set_grads(size_t count, TensorsIn tensors, TensorsIn grads) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad() = *grads[i];
  });
}

Message hlrp_clear_grads(size_t count, TensorsIn tensors) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad().reset();
  });
}

}  // extern "C"
