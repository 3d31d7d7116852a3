// Tensors that a compiled loop makes in each turn, kept for its next turn.
//
// A small program spends most of its time on memory: each of its tensors is allocated, described and freed again in every
// turn. Here each place in the code that makes a tensor keeps the last two that it made, and gives one of them out again
// as soon as nobody else holds it or its memory. Larger tensors cost less than what is done with them, and are not kept.
#include <ATen/core/TensorBase.h>

namespace ppl_kept {

constexpr size_t kLargest = 1 << 16;  // bytes

struct Place {
  at::TensorBase kept[2];  // of a loop's carry one is the turn's input while the other becomes its output
  int oldest = 0;

  ~Place() {
    for (auto& tensor : kept)
      if (tensor.defined() && in_python(tensor)) (void)tensor.unsafeReleaseTensorImpl();  // Python may be gone by now
  }

  static bool in_python(const at::TensorBase& tensor) {
    return tensor.unsafeGetTensorImpl()->pyobj_slot()->load_pyobj() != nullptr;
  }

  static bool is_free(const at::TensorBase& tensor) {
    return tensor.defined() && tensor.use_count() == 1 && tensor.storage().use_count() == 1 && !in_python(tensor);
  }
};

inline AOTITorchError make(
    Place& place, int64_t ndim, const int64_t* sizes, const int64_t* strides, int32_t dtype, int32_t device_type,
    int32_t device_index, AtenTensorHandle* out) {
  for (const auto& tensor : place.kept) {
    if (Place::is_free(tensor)) {
      *out = reinterpret_cast<AtenTensorHandle>(new at::TensorBase(tensor));
      return AOTI_TORCH_SUCCESS;
    }
  }
  const AOTITorchError error = aoti_torch_empty_strided(ndim, sizes, strides, dtype, device_type, device_index, out);
  if (error == AOTI_TORCH_SUCCESS) {
    const auto& made = *reinterpret_cast<const at::TensorBase*>(*out);
    if (made.nbytes() <= kLargest) {
      place.kept[place.oldest] = made;
      place.oldest ^= 1;
    }
  }
  return error;
}

}  // namespace ppl_kept

#define aoti_torch_empty_strided(...)            \
  ([&]() -> AOTITorchError {                     \
    static thread_local ppl_kept::Place place;   \
    return ppl_kept::make(place, __VA_ARGS__);   \
  }())
