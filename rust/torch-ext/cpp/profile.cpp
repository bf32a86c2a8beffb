// What a GPU executed, from libtorch's own profiler.
#include "shim.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <map>
#include <string>

namespace {

using torch::profiler::impl::ActivityType;

const std::set<ActivityType> kActivities{ActivityType::CPU, ActivityType::CUDA};

torch::profiler::impl::ProfilerConfig profiler_config() {
  return torch::profiler::impl::ProfilerConfig(torch::profiler::impl::ProfilerState::KINETO);
}

}  // namespace

extern "C" {

Message hlrp_profile_start() {
  return guarded([] {
    torch::autograd::profiler::prepareProfiler(profiler_config(), kActivities);
    torch::autograd::profiler::enableProfiler(profiler_config(), kActivities);
  });
}

// Ends the profile. One line per kernel or copy: calls, nanoseconds, name, separated by tabs.
Message hlrp_profile_stop(char** out) {
  return guarded([&] {
    struct Total {
      uint64_t calls = 0, nanoseconds = 0;
    };
    std::map<std::string, Total> totals;
    for (const auto& event : torch::autograd::profiler::disableProfiler()->events()) {
      if (event.deviceType() != c10::DeviceType::CUDA) continue;
      auto& total = totals[event.name()];
      total.calls += 1;
      total.nanoseconds += event.durationNs();
    }
    std::string text;
    for (const auto& [name, total] : totals) {
      text += std::to_string(total.calls) + "\t" + std::to_string(total.nanoseconds) + "\t" + name + "\n";
    }
    *out = strdup(text.c_str());
  });
}

}  // extern "C"
