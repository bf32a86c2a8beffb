// Automatic mixed precision of one device type in the calling thread.
#include "shim.h"

#include <ATen/autocast_mode.h>

extern "C" {

// What hlrp_autocast_enter found and hlrp_autocast_leave puts back.
struct AutocastState {
  bool enabled;
  int8_t dtype;
};

Message hlrp_autocast_enter(int64_t device_index, bool enabled, bool half, AutocastState* previous) {
  return guarded([&] {
    auto device = to_device(device_index).type();
    previous->enabled = at::autocast::is_autocast_enabled(device);
    previous->dtype = static_cast<int8_t>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_enabled(device, enabled);
    if (enabled) at::autocast::set_autocast_dtype(device, half ? at::kHalf : at::kBFloat16);
    at::autocast::increment_nesting();
  });
}

// The format of autocast for a device type in this thread, a c10::ScalarType; -1 where it is off.
Message hlrp_autocast_current(int64_t device_index, int8_t* dtype) {
  return guarded([&] {
    auto device = to_device(device_index).type();
    const bool is_on = at::autocast::is_autocast_enabled(device);
    *dtype = is_on ? static_cast<int8_t>(at::autocast::get_autocast_dtype(device)) : -1;
  });
}

Message hlrp_autocast_leave(int64_t device_index, const AutocastState* previous) {
  return guarded([&] {
    auto device = to_device(device_index).type();
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, previous->enabled);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(previous->dtype));
  });
}

}  // extern "C"
