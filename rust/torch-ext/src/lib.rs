//! The part of libtorch that the tch bindings lack; the only unsafe and C++ code.
