// Between at::Tensor and torch.Tensor, with the GIL held. Only the extension links libtorch's Python part.
#include <torch/csrc/autograd/python_variable.h>

extern "C" {

// A new handle to the tensor of a torch.Tensor; null for any other object.
at::Tensor* hlrp_tensor_of(PyObject* object) noexcept {
  try {
    return THPVariable_Check(object) ? new at::Tensor(THPVariable_Unpack(object)) : nullptr;
  } catch (...) {
    return nullptr;
  }
}

// A new reference to the torch.Tensor over `tensor`, which has one Python object at a time; null with a Python exception set.
PyObject* hlrp_torch_tensor(const at::Tensor* tensor) noexcept {
  try {
    return THPVariable_Wrap(*tensor);
  } catch (python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

}  // extern "C"
