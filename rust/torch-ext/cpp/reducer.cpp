// Means of gradients over all processes, reduced in buckets while the backward pass still computes other gradients.
#include "world.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>

namespace {
// Parameters of one type and device, whose gradients are summed as one flat tensor.
struct Bucket {
  std::vector<size_t> params;
  int64_t num_bytes = 0;
  size_t num_missing = 0;
  at::Tensor flat;
  Work work;
};

class Reducer : public std::enable_shared_from_this<Reducer> {
 public:
  Reducer(const World& world, std::vector<at::Tensor> params, int64_t bucket_bytes)
      : world_(world), params_(std::move(params)), bucket_of_(params_.size()) {
    for (size_t i = params_.size(); i-- > 0;) {  // the last gradients are there first
      const auto& param = params_[i];
      const auto num_bytes = static_cast<int64_t>(param.nbytes());
      const auto fits = [&](const Bucket& bucket) {
        const auto& other = params_[bucket.params.front()];
        return other.scalar_type() == param.scalar_type() && other.device() == param.device() &&
               bucket.num_bytes + num_bytes <= bucket_bytes;
      };
      if (buckets_.empty() || !fits(buckets_.back())) buckets_.emplace_back();
      auto& bucket = buckets_.back();
      bucket.params.push_back(i);
      bucket.num_bytes += num_bytes;
      bucket_of_[i] = buckets_.size() - 1;
    }
    order_.resize(buckets_.size());
    std::iota(order_.begin(), order_.end(), 0);
  }

  // Calls `arrived` whenever a backward pass has added to a gradient.
  void listen() {
    using Variables = std::vector<at::Tensor>;
    for (size_t i = 0; i < params_.size(); ++i) {
      accumulators_.push_back(torch::autograd::impl::grad_accumulator(params_[i]));
      const auto arrived = [reducer = weak_from_this(), i](const Variables& outputs, const Variables&) {
        if (const auto self = reducer.lock()) self->arrived(i);
        return outputs;
      };
      accumulators_.back()->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(arrived));
    }
  }

  // The backward pass that comes next is the last of a step.
  void begin() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& bucket : buckets_) bucket.num_missing = bucket.params.size();
    complete_.clear();
    num_begun_ = 0;
    is_listening_ = true;
  }

  size_t num_begun() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return num_begun_;
  }

  void finish() {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_listening_ = false;
    try {
      exchange();
    } catch (...) {
      // What is pending would keep the connections open, and the others from noticing.
      for (auto& bucket : buckets_) bucket.work.reset();
      throw;
    }
  }

 private:
  void exchange() {
    const c10::NoGradGuard no_grad;
    if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
    const auto count = static_cast<int64_t>(params_.size());
    auto num_with = at::zeros({count}, at::kInt);
    for (int64_t i = 0; i < count; ++i) num_with.data_ptr<int32_t>()[i] = params_[i].grad().defined();
    while (num_begun_ < buckets_.size()) begin_next();
    world_.sum(num_with)->wait();
    for (auto& bucket : buckets_) {
      bucket.work->wait();
      bucket.flat.div_(world_.size);
      int64_t first = 0;
      for (const auto i : bucket.params) {
        const auto mean = bucket.flat.narrow(0, first, params_[i].numel()).view_as(params_[i]);
        first += params_[i].numel();
        auto& grad = params_[i].mutable_grad();
        if (num_with.data_ptr<int32_t>()[i] == 0) continue;
        if (grad.defined()) {
          grad.copy_(mean);
        } else {
          grad = mean.clone();
        }
      }
      bucket.flat.reset();
      bucket.work.reset();
    }
    if (!std::exchange(is_order_known_, true)) take_order();
  }

  // May run in a thread of the backward pass; an error waits for `finish`.
  void arrived(size_t i) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!is_listening_ || error_) return;
    try {
      if (--buckets_[bucket_of_[i]].num_missing == 0) complete_.push_back(static_cast<int64_t>(bucket_of_[i]));
      while (num_begun_ < buckets_.size() && buckets_[order_[num_begun_]].num_missing == 0) begin_next();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  // From now on buckets are begun in the order in which the first process had them complete; one with an unused parameter holds up none.
  // What is in a bucket stays, and with it the order in which its numbers are added.
  void take_order() {
    for (const auto bucket : order_) {
      if (std::find(complete_.begin(), complete_.end(), bucket) == complete_.end()) complete_.push_back(bucket);
    }
    std::vector<at::Tensor> list{at::tensor(complete_, at::kLong)};
    world_.of(list[0]).broadcast(list)->wait();
    std::copy_n(list[0].data_ptr<int64_t>(), order_.size(), order_.begin());
  }

  // Begins to sum a bucket: all processes do this in the same order. A gradient that is missing here counts as zero.
  void begin_next() {
    const c10::NoGradGuard no_grad;
    auto& bucket = buckets_[order_[num_begun_]];
    std::vector<at::Tensor> flat;
    for (const auto i : bucket.params) {
      const auto& grad = params_[i].grad();
      flat.push_back(grad.defined() ? grad.reshape({-1}) : at::zeros_like(params_[i]).reshape({-1}));
    }
    bucket.flat = at::cat(flat);
    bucket.work = world_.sum(bucket.flat);
    ++num_begun_;
  }

  const World& world_;
  std::vector<at::Tensor> params_;
  std::vector<size_t> bucket_of_;
  std::vector<Bucket> buckets_;
  // The order in which buckets are begun, and those that this backward pass has completed.
  std::vector<int64_t> order_, complete_;
  bool is_order_known_ = false;
  // Their hooks live as long as they do.
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;
  std::mutex mutex_;
  bool is_listening_ = false;
  size_t num_begun_ = 0;
  std::exception_ptr error_;
};

Reducer& reducer_of(void* handle) { return **static_cast<std::shared_ptr<Reducer>*>(handle); }
}  // namespace

extern "C" {

// Watches the gradients of `params`. The world must outlive it.
Message hlrp_reducer_open(void* world, size_t count, TensorsIn params, int64_t bucket_bytes, void** out) {
  return guarded([&] {
    auto reducer = std::make_shared<Reducer>(*static_cast<World*>(world), to_vector(params, count), bucket_bytes);
    reducer->listen();
    *out = new std::shared_ptr<Reducer>(std::move(reducer));
  });
}

void hlrp_reducer_begin(void* handle) { reducer_of(handle).begin(); }

// Buckets whose exchange has begun.
size_t hlrp_reducer_num_begun(void* handle) { return reducer_of(handle).num_begun(); }

// Begins what has not begun and waits: each gradient is then its mean over all processes. A parameter that has a gradient in some of them has
// one in all.
Message hlrp_reducer_finish(void* handle) {
  return guarded([&] { reducer_of(handle).finish(); });
}

void hlrp_reducer_free(void* handle) { delete static_cast<std::shared_ptr<Reducer>*>(handle); }

}  // extern "C"
