// Random numbers for many steps of a program, bit for bit what torch's own operations would draw one after another.
//
// Normal (fewer than 16) and uniform numbers of the standard scale are drawn here, with torch's headers, by torch's
// templates, on a copy of the generator's engine that this file's compiler can inline. They involve no sum of a product,
// which torch's kernels round once or twice as their compiler chose. All else is torch's own kernels, called without
// the dispatcher on a tensor that is moved from row to row.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bernoulli_cpu_dispatch.h>
#include <ATen/ops/cauchy_cpu_dispatch.h>
#include <ATen/ops/exponential_cpu_dispatch.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/geometric_cpu_dispatch.h>
#include <ATen/ops/log_normal_cpu_dispatch.h>
#include <ATen/ops/normal_cpu_dispatch.h>
#include <ATen/ops/random_cpu_dispatch.h>
#include <ATen/ops/randperm_cpu_dispatch.h>
#include <ATen/ops/uniform_cpu_dispatch.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace {

// The order of NUMBERS in draw.py.
enum Kind : int64_t { normal, uniform, exponential, bernoulli, log_normal, cauchy, geometric, random_any, random_between, randperm };

// The fields of _Draw in noise.py.
struct Draw {
  int64_t kind;
  int64_t type;           // a c10::ScalarType, as it is numbered below
  int64_t contiguous;
  int64_t size;           // how many numbers
  int64_t row;            // elements from one row to the next
  int64_t dims;
  const int64_t* shape;
  const int64_t* stride;
  void* data;             // the first number of row 0
  double first, second;   // mean and std, low and high, ...
  int64_t low, high;      // of random_between
};

static_assert(int(at::kByte) == 0 && int(at::kChar) == 1 && int(at::kShort) == 2 && int(at::kInt) == 3);
static_assert(int(at::kLong) == 4 && int(at::kHalf) == 5 && int(at::kFloat) == 6 && int(at::kDouble) == 7);
static_assert(int(at::kBool) == 11 && int(at::kBFloat16) == 15);

// A generator's numbers while nobody else may draw: what torch's distributions ask of a generator, inline.
class Stream {
 public:
  explicit Stream(at::CPUGeneratorImpl* generator) : generator_(generator), lock_(generator->mutex_, std::defer_lock) {}
  ~Stream() { give_back(); }

  void take() {
    if (lock_.owns_lock()) return;
    lock_.lock();
    engine_ = generator_->engine();
    next_ = generator_->next_double_normal_sample();
  }

  void give_back() {
    if (!lock_.owns_lock()) return;
    generator_->set_engine(engine_);
    generator_->set_next_double_normal_sample(next_);
    lock_.unlock();
  }

  uint32_t random() { return engine_(); }
  uint64_t random64() {
    const uint64_t high = engine_();
    return high << 32 | engine_();
  }
  std::optional<double> next_double_normal_sample() const { return next_; }
  void set_next_double_normal_sample(std::optional<double> next) { next_ = next; }

 private:
  at::CPUGeneratorImpl* generator_;
  std::unique_lock<std::mutex> lock_;
  at::mt19937 engine_;
  std::optional<double> next_;
};

bool drawn_here(const Draw& draw) {
  if (!draw.contiguous || (draw.type != int64_t(at::kFloat) && draw.type != int64_t(at::kDouble))) return false;
  if (draw.first != 0.0 || draw.second != 1.0) return false;
  return draw.kind == uniform || (draw.kind == normal && draw.size < 16);  // from 16 on, torch draws otherwise
}

template <typename T>
void draw_here(const Draw& draw, int64_t row, Stream& stream) {
  T* data = static_cast<T*>(draw.data) + row * draw.row;
  if (draw.kind == uniform) {
    const at::uniform_real_distribution<T> law(0, 1);
    for (int64_t i = 0; i < draw.size; ++i) data[i] = static_cast<T>(law(&stream));
  } else {
    const at::normal_distribution<double> law(0, 1);
    for (int64_t i = 0; i < draw.size; ++i) data[i] = static_cast<T>(law(&stream));
  }
}

void draw_by_torch(const Draw& draw, at::Tensor& tensor, const at::Generator& generator) {
  switch (draw.kind) {
    case normal: at::cpu::normal_(tensor, draw.first, draw.second, generator); return;
    case uniform: at::cpu::uniform_(tensor, draw.first, draw.second, generator); return;
    case exponential: at::cpu::exponential_(tensor, draw.first, generator); return;
    case bernoulli: at::cpu::bernoulli_(tensor, draw.first, generator); return;
    case log_normal: at::cpu::log_normal_(tensor, draw.first, draw.second, generator); return;
    case cauchy: at::cpu::cauchy_(tensor, draw.first, draw.second, generator); return;
    case geometric: at::cpu::geometric_(tensor, draw.first, generator); return;
    case random_any: at::cpu::random_(tensor, generator); return;
    case random_between: at::cpu::random_(tensor, draw.low, draw.high, generator); return;
    case randperm: at::cpu::randperm_out(tensor, draw.size, generator); return;
    default: TORCH_CHECK(false, "no draw is numbered ", draw.kind);
  }
}

void fill(int64_t rows, int64_t count, const Draw* draws, const at::Generator& generator) {
  // What torch's kernels call in turn must not reach a mode of Python, nor autograd.
  const at::AutoDispatchBelowADInplaceOrView below;
  const c10::impl::ExcludeDispatchKeyGuard no_modes(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot, c10::DispatchKey::FuncTorchDynamicLayerFrontMode}));
  std::vector<at::Tensor> tensors(count);
  for (int64_t d = 0; d < count; ++d) {
    const Draw& draw = draws[d];
    if (drawn_here(draw)) continue;
    const at::IntArrayRef shape(draw.shape, draw.dims), stride(draw.stride, draw.dims);
    tensors[d] = at::from_blob(draw.data, shape, stride, at::TensorOptions(at::ScalarType(draw.type)));
  }
  Stream stream(generator.get<at::CPUGeneratorImpl>());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < count; ++d) {
      const Draw& draw = draws[d];
      if (tensors[d].defined()) {
        stream.give_back();
        tensors[d].unsafeGetTensorImpl()->set_storage_offset(row * draw.row);
        draw_by_torch(draw, tensors[d], generator);
      } else {
        stream.take();
        if (draw.type == int64_t(at::kFloat)) draw_here<float>(draw, row, stream);
        else draw_here<double>(draw, row, stream);
      }
    }
  }
}

}  // namespace

// Fills rows 0 to rows - 1 of every draw, row by row. `generator` is a CPUGeneratorImpl, or null for torch's default
// one. Returns null, or what went wrong.
extern "C" const char* ppl_fill(int64_t rows, int64_t count, const void* draws, void* generator) {
  static thread_local std::string wrong;
  try {
    at::Generator chosen = at::detail::getDefaultCPUGenerator();
    if (generator != nullptr) {
      chosen = at::Generator(c10::intrusive_ptr<c10::GeneratorImpl>::reclaim_copy(static_cast<c10::GeneratorImpl*>(generator)));
    }
    fill(rows, count, static_cast<const Draw*>(draws), chosen);
    return nullptr;
  } catch (const std::exception& error) {
    wrong = error.what();
  } catch (...) {
    wrong = "an exception of no known kind";
  }
  return wrong.c_str();
}
