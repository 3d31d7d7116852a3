// Sweeps through chains of matrices of log weights, forwards and back, as operators of torch: one node of a graph whatever T is.
//
// What is computed, and when real space is exact, is written in sweep.py; this is the same with all numbers in double precision,
// vectors scaled by powers of two at each step (so that scales add up exactly, as integers), and with logs for those rows alone
// that real space cannot hold. Scaling up makes what was lost before larger too, and with it the smallest number that counts
// as exact. Vectors have their K states padded to a multiple of four, with weight zero.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

typedef double Four __attribute__((vector_size(32), aligned(8), may_alias));
typedef int64_t FourInts __attribute__((vector_size(32)));

// A vector of doubles that are not set to zero unless it is said.
template <typename T>
struct Unset : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = Unset<U>;
  };
  Unset() = default;
  template <typename U>
  explicit Unset(const Unset<U>&) {}
  template <typename U>
  void construct(U* place) noexcept {
    ::new (static_cast<void*>(place)) U;
  }
  template <typename U, typename... Values>
  void construct(U* place, Values&&... values) {
    ::new (static_cast<void*>(place)) U(std::forward<Values>(values)...);
  }
};
using Vec = std::vector<double, Unset<double>>;

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr double LN2 = 0.6931471805599453;

inline Four load(const double* x) { return *reinterpret_cast<const Four*>(x); }
inline void store(double* x, Four v) { *reinterpret_cast<Four*>(x) = v; }
inline double total(Four v) { return (v[0] + v[1]) + (v[2] + v[3]); }
inline double largest(Four v) { return std::max(std::max(v[0], v[1]), std::max(v[2], v[3])); }
inline double power_of_two(int64_t n) {  // for -1022 <= n <= 1023
  const int64_t bits = (n + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// exp for x <= 0: halves to the power of a whole number, times a polynomial; what underflows is 0, NaN stays NaN.
inline Four exp4(Four x) {
  const double shift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to whole numbers, held in the lowest bits
  Four n = x * 1.4426950408889634 + shift;
  FourInts bits = (FourInts)n;
  n -= shift;
  Four r = x - n * 0.693147180369123816490;
  r -= n * 1.90821492927058770002e-10;
  Four p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  Four scaled = p * (Four)((bits + 1023) << 52);
  FourInts gone = x < -708.0;
  return (Four)((FourInts)scaled & ~gone);
}

// c (m, 4q) = a (m, p) b (p, 4q), or c +=; the rows of b and c lie `width` apart, a's entries at row * ai + column * ap.
template <int M, int Q>
inline void tile(double* c, const double* a, int64_t ai, int64_t ap, const double* b, int64_t p, int64_t width, bool add) {
  Four sum[M][Q];
  for (int i = 0; i < M; i++)
    for (int q = 0; q < Q; q++) sum[i][q] = add ? load(c + i * width + 4 * q) : Four{0, 0, 0, 0};
  for (int64_t k = 0; k < p; k++) {
    for (int q = 0; q < Q; q++) {
      Four right = load(b + k * width + 4 * q);
      for (int i = 0; i < M; i++) sum[i][q] += a[i * ai + k * ap] * right;
    }
  }
  for (int i = 0; i < M; i++)
    for (int q = 0; q < Q; q++) store(c + i * width + 4 * q, sum[i][q]);
}

template <int Q>
void columns(double* c, const double* a, int64_t ai, int64_t ap, const double* b, int64_t m, int64_t p, int64_t width, bool add) {
  int64_t i = 0;
  for (; i + 2 <= m; i += 2) tile<2, Q>(c + i * width, a + i * ai, ai, ap, b, p, width, add);
  if (i < m) tile<1, Q>(c + i * width, a + i * ai, ai, ap, b, p, width, add);
}

void multiply(double* c, const double* a, int64_t ai, int64_t ap, const double* b, int64_t m, int64_t p, int64_t width, bool add) {
  int64_t j = 0;
  for (; j + 16 <= width; j += 16) columns<4>(c + j, a, ai, ap, b + j, m, p, width, add);
  for (; j + 8 <= width; j += 8) columns<2>(c + j, a, ai, ap, b + j, m, p, width, add);
  for (; j + 4 <= width; j += 4) columns<1>(c + j, a, ai, ap, b + j, m, p, width, add);
}

// A tensor of float or double with any strides; dims of size 1 do not move.
struct Source {
  const void* data = nullptr;
  bool single = false;
  int64_t stride[4] = {0, 0, 0, 0};

  Source() = default;
  explicit Source(const Tensor& x) : data(x.const_data_ptr()), single(x.scalar_type() == ScalarType::Float) {
    for (int64_t d = 0; d < x.dim(); d++) stride[d] = x.size(d) == 1 ? 0 : x.stride(d);
  }

  // Entries at a place, along a stride, into doubles, with a filling up to the width.
  void read(double* into, int64_t place, int64_t step, int64_t k, int64_t width, double filling) const {
    if (single)
      read_from(static_cast<const float*>(data) + place, into, step, k, width, filling);
    else
      read_from(static_cast<const double*>(data) + place, into, step, k, width, filling);
  }

  template <typename Number>
  static void read_from(const Number* x, double* into, int64_t step, int64_t k, int64_t width, double filling) {
    int64_t j = 0;
    for (; j + 4 <= k; j += 4, x += 4 * step) {  // stored as fours, as they will be loaded
      const Four v = {double(x[0]), double(x[step]), double(x[2 * step]), double(x[3 * step])};
      store(into + j, v);
    }
    for (; j < k; j++, x += step) into[j] = *x;
    for (; j < width; j++) into[j] = filling;
  }
};

// A new tensor of float or double.
struct Target {
  void* data;
  bool single;

  explicit Target(const Tensor& x) : data(x.mutable_data_ptr()), single(x.scalar_type() == ScalarType::Float) {}

  void write(int64_t place, const double* from, int64_t k) const {
    if (single) {
      float* to = static_cast<float*>(data) + place;
      for (int64_t j = 0; j < k; j++) to[j] = static_cast<float>(from[j]);
    } else {
      std::copy(from, from + k, static_cast<double*>(data) + place);
    }
  }
  void add(int64_t place, const double* from, int64_t k) const {
    if (single) {
      float* to = static_cast<float*>(data) + place;
      for (int64_t j = 0; j < k; j++) to[j] += static_cast<float>(from[j]);
    } else {
      double* to = static_cast<double*>(data) + place;
      for (int64_t j = 0; j < k; j++) to[j] += from[j];
    }
  }
};

double* doubles(const Tensor& x) { return static_cast<double*>(x.mutable_data_ptr()); }

double finite_max(const double* x, int64_t count) {
  double top = -INF;
  for (int64_t j = 0; j < count; j++) top = x[j] > top ? x[j] : top;
  return top == -INF ? 0.0 : top;
}

double finite_max_of_fours(const double* x, int64_t width) {
  Four tops = load(x);
  for (int64_t j = 4; j < width; j += 4) {
    Four v = load(x + j);
    tops = v > tops ? v : tops;
  }
  const double top = largest(tops);
  return top == -INF ? 0.0 : top;
}

// exp(x - top), and the top.
double scaled_exp(double* into, const double* x, int64_t width) {
  const double top = finite_max_of_fours(x, width);
  for (int64_t j = 0; j < width; j += 4) store(into + j, exp4(load(x + j) - top));
  return top;
}

double log_sum(const double* x, int64_t count) {
  double top = finite_max(x, count), sum = 0;
  for (int64_t j = 0; j < count; j++) sum += std::exp(x[j] - top);
  return std::log(sum) + top;
}

// One step's matrix: its logs, their column maxima, and exp of what is left, as it stands and transposed.
struct Matrix {
  Vec logs, tops, real, turned;
};

struct Chain {
  int64_t length, count, rows, states, width;
  bool by_time, by_chain;  // whether the matrices differ
  Source initial, matrices, emissions, final;
  bool ends;  // whether final weights are given
  double smallest;
  Matrix shared;

  Chain(const Tensor& initial_, const Tensor& matrices_, const Tensor& emissions_, const std::optional<Tensor>& final_)
      : length(emissions_.size(0)),
        count(initial_.size(0)),
        rows(initial_.size(1)),
        states(initial_.size(2)),
        width((initial_.size(2) + 3) / 4 * 4),
        by_time(matrices_.size(0) > 1),
        by_chain(matrices_.size(1) > 1),
        initial(initial_),
        matrices(matrices_),
        emissions(emissions_),
        ends(final_.has_value()) {
    if (ends) final = Source(*final_);
    smallest = states * std::numeric_limits<double>::min() / std::numeric_limits<double>::epsilon();
    if (!by_time && !by_chain) fill(shared, 0, 0);
  }

  void fill(Matrix& m, int64_t t, int64_t n) const {
    m.logs.resize(states * width);
    m.tops.assign(width, -INF);
    m.real.resize(states * width);
    m.turned.assign(width * width, 0.0);
    for (int64_t i = 0; i < states; i++) {
      double* row = &m.logs[i * width];
      int64_t place = t * matrices.stride[0] + n * matrices.stride[1] + i * matrices.stride[2];
      matrices.read(row, place, matrices.stride[3], states, width, -INF);
      for (int64_t j = 0; j < width; j++) m.tops[j] = row[j] > m.tops[j] ? row[j] : m.tops[j];
    }
    for (int64_t j = 0; j < width; j++) m.tops[j] = m.tops[j] == -INF ? 0.0 : m.tops[j];
    for (int64_t i = 0; i < states; i++) {
      for (int64_t j = 0; j < width; j += 4) store(&m.real[i * width + j], exp4(load(&m.logs[i * width + j]) - load(&m.tops[j])));
      for (int64_t j = 0; j < width; j++) m.turned[j * width + i] = m.real[i * width + j];
    }
  }

  // The matrix of a step of a chain; `own` holds it where there is not one for all.
  const Matrix& at(Matrix& own, int64_t t, int64_t n) const {
    if (!by_time && !by_chain) return shared;
    if (by_time || t == length - 1) fill(own, t, n);
    return own;
  }

  void read_initial(double* into, int64_t n, int64_t r) const {
    initial.read(into, n * initial.stride[0] + r * initial.stride[1], initial.stride[2], states, width, -INF);
  }
  void read_final(double* into, int64_t n, int64_t r) const {
    final.read(into, n * final.stride[0] + r * final.stride[1], final.stride[2], states, width, -INF);
  }
  void read_emission(double* into, int64_t t, int64_t n) const {
    emissions.read(into, t * emissions.stride[0] + n * emissions.stride[1], emissions.stride[2], states, width, -INF);
  }
  // The emission with the matrix's column maxima.
  void read_weights(double* into, const Matrix& m, int64_t t, int64_t n) const {
    read_emission(into, t, n);
    for (int64_t j = 0; j < width; j += 4) store(into + j, load(into + j) + load(&m.tops[j]));
  }

  // Chains that go together: the same whatever the number of threads is, in 2, 4, 8… groups that threads can share out evenly,
  // and not many, because each sums gradients.
  int64_t group() const {
    if (by_chain) return 1;
    const int64_t least = std::max((count + 31) / 32, std::max<int64_t>(1, 8 / rows));
    int64_t groups = 1;
    while (groups * least < count) groups *= 2;
    return std::max<int64_t>(1, (count + groups - 1) / groups);
  }

  // The log weights of one row before each matrix and after all, (length + 1, width).
  void log_forward(Vec& all, int64_t n, int64_t r) const {
    all.assign((length + 1) * width, -INF);
    read_initial(all.data(), n, r);
    Matrix own;
    Vec terms(states), weights(width);
    for (int64_t t = 0; t < length; t++) {
      const Matrix& m = by_time || t == 0 ? at(own, by_time ? t : length - 1, n) : (by_chain ? own : shared);
      const double* v = &all[t * width];
      read_emission(weights.data(), t, n);
      for (int64_t j = 0; j < states; j++) {
        for (int64_t i = 0; i < states; i++) terms[i] = v[i] + m.logs[i * width + j];
        all[(t + 1) * width + j] = log_sum(terms.data(), states) + weights[j];
      }
    }
  }
};

// Multiply by weights and scale to a largest entry in [1, 2): the exponent that was taken out.
int64_t rescale(double* v, const double* p, const double* w, int64_t width, double& scale) {
  Four top = {0, 0, 0, 0};
  for (int64_t j = 0; j < width; j += 4) {
    Four x = load(p + j) * load(w + j);
    store(v + j, x);
    top = x > top ? x : top;
  }
  const double most = largest(top);
  int64_t bits;
  std::memcpy(&bits, &most, sizeof bits);
  int64_t exponent = (bits >> 52) - 1023;
  if (exponent == -1023) exponent = most > 0 ? -1022 : 0;  // subnormal, or nothing
  if (exponent == 1024) exponent = 0;                      // infinite or NaN
  scale = power_of_two(-exponent);
  for (int64_t j = 0; j < width; j += 4) store(v + j, load(v + j) * scale);
  return exponent;
}

// The smallest entry that is exact after a vector was scaled.
inline double least(double smallest, double scale) { return scale > 1 ? smallest * scale : smallest; }

bool any_below(const double* p, int64_t states, double smallest) {
  FourInts fine = {-1, -1, -1, -1};
  int64_t j = 0;
  for (; j + 4 <= states; j += 4) fine &= load(p + j) >= smallest;
  bool all = fine[0] & fine[1] & fine[2] & fine[3];
  for (; j < states; j++) all &= p[j] >= smallest;
  return !all;
}

// Whether a state can be reached, one step further.
void reach(std::vector<uint8_t>& possible, const Matrix& m, int64_t states, int64_t width, bool back) {
  std::vector<uint8_t> next(states, 0);
  for (int64_t i = 0; i < states; i++)
    for (int64_t j = 0; j < states; j++) {
      bool step = m.logs[i * width + j] != -INF;
      if (back)
        next[i] |= possible[j] & step;
      else
        next[j] |= possible[i] & step;
    }
  possible.swap(next);
}

bool lost(const double* p, const std::vector<uint8_t>& possible, double smallest) {
  for (size_t j = 0; j < possible.size(); j++)
    if (possible[j] && !(p[j] >= smallest)) return true;
  return false;
}

struct Forward {
  const Chain& chain;
  Target result;
  double *after, *weights, *scales;

  void run(int64_t from, int64_t to) const {
    const Chain& c = chain;
    const int64_t m = (to - from) * c.rows, w = c.width;
    Vec v(m * w), logs(w), last((to - from) * w), log_scale(m, 0.0);
    std::vector<int64_t> exponents(m, 0);
    std::vector<uint8_t> doubtful(m, 0);
    for (int64_t i = 0; i < m; i++) {
      c.read_initial(logs.data(), from + i / c.rows, i % c.rows);
      log_scale[i] = scaled_exp(&v[i * w], logs.data(), w);
      scales[from * c.rows + i] = 1.0;
    }
    Matrix own;
    for (int64_t t = 0; t < c.length; t++) {
      const Matrix& matrix = t == 0 || c.by_time ? c.at(own, c.by_time ? t : c.length - 1, from) : (c.by_chain ? own : c.shared);
      double* p = after + (t * c.count + from) * c.rows * w;
      multiply(p, v.data(), w, 1, matrix.real.data(), m, c.states, w, false);
      for (int64_t n = from; n < to; n++) {
        double* weight = weights + (t * c.count + n) * w;
        c.read_weights(logs.data(), matrix, t, n);
        double top = scaled_exp(weight, logs.data(), w);
        const bool is_last = t == c.length - 1;
        if (is_last) std::copy(logs.begin(), logs.end(), &last[(n - from) * w]);
        for (int64_t r = 0; r < c.rows; r++) {
          const int64_t i = (n - from) * c.rows + r;
          doubtful[i] |= any_below(p + i * w, c.states, least(c.smallest, scales[(t * c.count + n) * c.rows + r]));
          if (is_last) continue;
          log_scale[i] += top;
          exponents[i] += rescale(&v[i * w], p + i * w, weight, w, scales[((t + 1) * c.count + n) * c.rows + r]);
        }
      }
    }
    Vec found(w), ends(w), all;
    for (int64_t i = 0; i < m; i++) {
      const int64_t n = from + i / c.rows, r = i % c.rows, row = n * c.rows + r;
      if (doubtful[i] && is_inexact(n, r)) {
        scales[row] = 0.0;  // a mark: this row goes with logs
        c.log_forward(all, n, r);
        std::copy(&all[c.length * w], &all[c.length * w] + w, found.begin());
      } else {
        const double* p = after + ((c.length - 1) * c.count * c.rows + row) * w;
        const double scale = log_scale[i] + LN2 * exponents[i];
        for (int64_t j = 0; j < c.states; j++) found[j] = std::log(p[j]) + last[(n - from) * w + j] + scale;
      }
      if (!c.ends) {
        result.write(row * c.states, found.data(), c.states);
        continue;
      }
      c.read_final(ends.data(), n, r);
      for (int64_t j = 0; j < c.states; j++) found[j] += ends[j];
      const double sum = log_sum(found.data(), c.states);
      result.write(row, &sum, 1);
    }
  }

  bool is_inexact(int64_t n, int64_t r) const {
    const Chain& c = chain;
    Vec logs(c.width);
    std::vector<uint8_t> possible(c.states);
    c.read_initial(logs.data(), n, r);
    for (int64_t j = 0; j < c.states; j++) possible[j] = logs[j] != -INF;
    Matrix own;
    for (int64_t t = 0; t < c.length; t++) {
      const Matrix& m = t == 0 || c.by_time ? c.at(own, c.by_time ? t : c.length - 1, n) : (c.by_chain ? own : c.shared);
      reach(possible, m, c.states, c.width, false);
      const double* p = after + ((t * c.count + n) * c.rows + r) * c.width;
      if (lost(p, possible, least(c.smallest, scales[(t * c.count + n) * c.rows + r]))) return true;
      c.read_emission(logs.data(), t, n);
      for (int64_t j = 0; j < c.states; j++) possible[j] &= logs[j] != -INF;
    }
    return false;
  }
};

struct Backward {
  const Chain& chain;
  Source gradient, result;
  const double *after, *weights, *scales;
  Target by_initial, by_final;

  // What follows a row's paths, as log weights, and the gradient by them all together. Without final weights, that is the part
  // of the gradient with one sign, relative to the paths' own weights, whose logs are given.
  double ending(double* log_ahead, const double* log_paths, const Vec& last, int64_t n, int64_t r, double sign) const {
    const Chain& c = chain;
    double slope;
    if (c.ends) {
      double value;
      gradient.read(&slope, n * gradient.stride[0] + r * gradient.stride[1], 0, 1, 1, 0);
      result.read(&value, n * result.stride[0] + r * result.stride[1], 0, 1, 1, 0);
      c.read_final(log_ahead, n, r);
      for (int64_t j = 0; j < c.width; j++) log_ahead[j] += last[j];
      return value == -INF ? 0.0 : slope;
    }
    Vec slopes(c.width), values(c.width);
    gradient.read(slopes.data(), n * gradient.stride[0] + r * gradient.stride[1], gradient.stride[2], c.states, c.width, 0);
    result.read(values.data(), n * result.stride[0] + r * result.stride[1], result.stride[2], c.states, c.width, -INF);
    double sum = 0;
    for (int64_t j = 0; j < c.width; j++) {
      const double part = values[j] == -INF ? 0.0 : sign * slopes[j];
      const bool counts = !(part <= 0);
      sum += counts ? part : 0.0;
      log_ahead[j] = counts ? std::log(part) - log_paths[j] : -INF;
    }
    return sign * sum;
  }

  // One row with logs throughout, added to the gradients by the matrices and the emissions of its chain.
  void with_logs(int64_t n, int64_t r, double sign, double* by_matrix, double* by_weight) const {
    const Chain& c = chain;
    const int64_t w = c.width, k = c.states;
    Vec all, later(w, 0.0), next(w), terms(k), emission(w), none(w, 0.0);
    c.log_forward(all, n, r);
    const double slope = ending(later.data(), &all[c.length * w], none, n, r, sign);
    if (slope == 0) return;
    Matrix own;
    const int64_t row = n * c.rows + r;
    Vec share(w, 0.0);
    for (int64_t t = c.length - 1; t >= 0; t--) {
      const Matrix& m = c.at(own, t, n);
      for (int64_t j = 0; j < k; j++) terms[j] = all[(t + 1) * w + j] + later[j];
      const double evidence = log_sum(terms.data(), k);
      for (int64_t j = 0; j < k; j++) {
        share[j] = std::exp(terms[j] - evidence) * slope;
        by_weight[(t * c.count + n) * w + j] += share[j];
      }
      if (t == c.length - 1 && c.ends) by_final.write(row * k, share.data(), k);
      c.read_emission(emission.data(), t, n);
      for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) {
          terms[j] = m.logs[i * w + j] + emission[j] + later[j];
          by_matrix[((c.by_time ? t : 0) * k + i) * w + j] += std::exp(all[t * w + i] + terms[j] - evidence) * slope;
        }
        next[i] = log_sum(terms.data(), k);
      }
      later.swap(next);
    }
    for (int64_t i = 0; i < k; i++) terms[i] = all[i] + later[i];
    const double evidence = log_sum(terms.data(), k);
    for (int64_t i = 0; i < k; i++) share[i] = std::exp(terms[i] - evidence) * slope;
    by_initial.add(row * k, share.data(), k);
  }

  bool is_inexact(int64_t n, const double* ahead, const double* scale, int64_t step, const Vec& ending) const {
    const Chain& c = chain;
    Vec back(c.width), logs(c.width);
    std::vector<uint8_t> possible(c.states);
    for (int64_t j = 0; j < c.states; j++) possible[j] = ending[j] != -INF;
    Matrix own;
    for (int64_t t = c.length - 1; t >= 0; t--) {
      const Matrix& m = c.at(own, t, n);
      multiply(back.data(), ahead + t * step, c.width, 1, m.turned.data(), 1, c.states, c.width, false);
      reach(possible, m, c.states, c.width, true);
      if (lost(back.data(), possible, least(c.smallest, scale[t * (step / c.width)]))) return true;
      if (t == 0) break;
      c.read_emission(logs.data(), t - 1, n);
      for (int64_t j = 0; j < c.states; j++) possible[j] &= logs[j] != -INF;
    }
    return false;
  }

  // The gradients of some chains. by_matrix: (length or 1, states, width), added to, where one for all steps is still to be
  // multiplied by the matrix; by_log: the same of rows with logs, final. by_weight: (length, count, width), added to.
  void run(int64_t from, int64_t to, double* by_matrix, double* by_log, double* by_weight) const {
    run(from, to, 1.0, by_matrix, by_log, by_weight);
    if (chain.ends) return;
    const Chain& c = chain;
    Vec slopes(c.states);
    for (int64_t n = from; n < to; n++)
      for (int64_t r = 0; r < c.rows; r++) {
        gradient.read(slopes.data(), n * gradient.stride[0] + r * gradient.stride[1], gradient.stride[2], c.states, c.states, 0);
        if (*std::min_element(slopes.begin(), slopes.end()) < 0) return run(from, to, -1.0, by_matrix, by_log, by_weight);
      }
  }

  void run(int64_t from, int64_t to, double sign, double* by_matrix, double* by_log, double* by_weight) const {
    const Chain& c = chain;
    const int64_t m = (to - from) * c.rows, w = c.width, k = c.states, size = m * w, all = c.count * c.rows;
    Vec ahead(c.length * size), factor(c.length * m), scaled(c.length * m, 1.0), back(size), last(w), endings(size), slope(m), start(size), logs(w);
    std::vector<uint8_t> doubtful(m, 0), bad(m, 0);
    std::vector<Matrix> own(c.by_time ? c.length : 1);
    Matrix unused;
    for (int64_t t = c.length - 1; t >= 0; t--) {
      if (c.by_time || (c.by_chain && t == c.length - 1)) c.fill(own[c.by_time ? t : 0], t, from);
      const Matrix& matrix = c.by_time ? own[t] : c.by_chain ? own[0] : c.shared;
      double* h = &ahead[t * size];
      const double* p = after + (t * all + from * c.rows) * w;
      if (t == c.length - 1)
        for (int64_t i = 0; i < m; i++) {
          const int64_t n = from + i / c.rows, r = i % c.rows;
          if (c.ends) c.read_weights(last.data(), matrix, t, n);
          if (!c.ends)
            for (int64_t j = 0; j < k; j++) logs[j] = std::log(p[i * w + j]);
          slope[i] = ending(&endings[i * w], logs.data(), last, n, r, sign);
          bad[i] = scales[n * c.rows + r] == 0.0;
          scaled_exp(h + i * w, &endings[i * w], w);
        }
      for (int64_t i = 0; i < m; i++) {
        Four sum = {0, 0, 0, 0};
        for (int64_t j = 0; j < w; j += 4) sum += load(p + i * w + j) * load(h + i * w + j);
        const double evidence = total(sum);
        bad[i] |= !(evidence >= least(2 * c.smallest * k, scaled[t * m + i]));
        factor[t * m + i] = slope[i] / evidence;
      }
      multiply(back.data(), h, w, 1, matrix.turned.data(), m, k, w, false);
      for (int64_t i = 0; i < m; i++) {
        doubtful[i] |= any_below(&back[i * w], k, least(c.smallest, scaled[t * m + i]));
        const double* weight = weights + ((t - 1) * c.count + from + i / c.rows) * w;
        if (t) rescale(h - size + i * w, &back[i * w], weight, w, scaled[(t - 1) * m + i]);
      }
    }
    Vec share(w);
    for (int64_t i = 0; i < m; i++) {
      const int64_t n = from + i / c.rows, r = i % c.rows;
      c.read_initial(logs.data(), n, r);
      scaled_exp(&start[i * w], logs.data(), w);
      double evidence = 0;
      for (int64_t j = 0; j < k; j++) evidence += share[j] = start[i * w + j] * back[i * w + j];
      if (slope[i] != 0) {
        bad[i] |= !(evidence >= c.smallest);
        if (!bad[i] && doubtful[i]) bad[i] = is_inexact(n, &ahead[i * w], &scaled[i], size, Vec(&endings[i * w], &endings[i * w] + w));
        if (bad[i]) {
          with_logs(n, r, sign, by_log, by_weight);
        } else {
          for (int64_t j = 0; j < k; j++) share[j] *= slope[i] / evidence;
          by_initial.add((n * c.rows + r) * k, share.data(), k);
        }
      }
      if (bad[i] || slope[i] == 0)
        for (int64_t t = 0; t < c.length; t++) {
          factor[t * m + i] = 0.0;
          std::fill(&ahead[t * size + i * w], &ahead[t * size + i * w] + w, 0.0);
          if (t == 0) std::fill(&start[i * w], &start[i * w] + w, 0.0);
        }
    }
    Vec v(size), outer(c.by_time ? k * w : 0);
    for (int64_t t = 0; t < c.length; t++) {
      const double* h = &ahead[t * size];
      const double* p = after + (t * all + from * c.rows) * w;
      for (int64_t i = 0; i < m; i++) {
        const int64_t n = from + i / c.rows;
        const double f = factor[t * m + i];
        double* by = by_weight + (t * c.count + n) * w;
        if (f == 0.0) {
          std::fill(&v[i * w], &v[i * w] + w, 0.0);
          continue;
        }
        for (int64_t j = 0; j < w; j += 4) store(&share[j], load(p + i * w + j) * load(h + i * w + j) * f);
        for (int64_t j = 0; j < w; j += 4) store(by + j, load(by + j) + load(&share[j]));
        if (c.ends && t == c.length - 1) by_final.write((n * c.rows + i % c.rows) * k, share.data(), k);
        if (t == 0) {
          for (int64_t j = 0; j < w; j += 4) store(&v[i * w + j], load(&start[i * w + j]) * f);
        } else {
          const double g = f * scales[t * all + from * c.rows + i];
          const double* q = p - all * w + i * w;
          const double* weight = weights + ((t - 1) * c.count + n) * w;
          for (int64_t j = 0; j < w; j += 4) store(&v[i * w + j], load(q + j) * load(weight + j) * g);
        }
      }
      if (!c.by_time) {
        multiply(by_matrix, v.data(), 1, w, h, k, m, w, true);
        continue;
      }
      multiply(outer.data(), v.data(), 1, w, h, k, m, w, false);
      for (int64_t x = 0; x < k * w; x++) by_matrix[t * k * w + x] += outer[x] * own[t].real[x];
    }
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    Tensor initial, Tensor matrices, Tensor emissions, std::optional<Tensor> final) {
  Chain chain(initial, matrices, emissions, final);
  const int64_t t = chain.length, n = chain.count, r = chain.rows, k = chain.states, w = chain.width;
  std::vector<int64_t> shape = {n, r};
  if (!chain.ends) shape.push_back(k);
  Tensor result = torch::stable::new_empty(initial, shape);
  Tensor after = torch::stable::new_empty(initial, {t, n, r, w}, ScalarType::Double);
  Tensor weights = torch::stable::new_empty(initial, {t, n, w}, ScalarType::Double);
  Tensor scales = torch::stable::new_empty(initial, {t, n, r}, ScalarType::Double);
  Forward job{chain, Target(result), doubles(after), doubles(weights), doubles(scales)};
  const int64_t size = chain.group(), groups = (n + size - 1) / size;
  const int64_t grain = 1 + (1 << 17) / (1 + size * r * t * k * k);
  torch::stable::parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; g++) job.run(g * size, std::min(n, (g + 1) * size));
  });
  return {result, after, weights, scales};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    Tensor gradient,
    Tensor result,
    Tensor initial,
    Tensor matrices,
    Tensor emissions,
    std::optional<Tensor> final,
    Tensor after,
    Tensor weights,
    Tensor scales) {
  Chain chain(initial, matrices, emissions, final);
  const int64_t t = chain.length, n = chain.count, r = chain.rows, k = chain.states, w = chain.width;
  Tensor by_initial = torch::stable::new_zeros(initial, {n, r, k});
  Tensor by_matrices = torch::stable::new_empty(initial, {matrices.size(0), matrices.size(1), k, k});
  Tensor by_emissions = torch::stable::new_empty(initial, {t, n, k});
  Tensor by_final = torch::stable::new_zeros(initial, {chain.ends ? n : 0, r, k});
  Backward job{
      chain,
      Source(gradient),
      Source(result),
      doubles(after),
      doubles(weights),
      doubles(scales),
      Target(by_initial),
      Target(by_final)};
  const Target by_matrix(by_matrices), by_emission(by_emissions);
  const int64_t size = chain.group(), groups = (n + size - 1) / size, steps = matrices.size(0), each = steps * k * w;
  const bool together = chain.by_time && !chain.by_chain;  // one gradient, too large to have one for each group
  const int64_t sums = chain.by_chain ? 0 : together ? 1 : groups;
  Vec real(sums * each, 0.0), with_logs(sums * each, 0.0), by_weight(t * n * w, 0.0);
  auto put = [&](const double* some, const double* other, const double* matrix, int64_t at) {
    Vec row(w);
    for (int64_t s = 0; s < steps; s++)
      for (int64_t i = 0; i < k; i++) {
        const int64_t x = (s * k + i) * w;
        for (int64_t j = 0; j < k; j++) row[j] = some[x + j] * (matrix ? matrix[i * w + j] : 1.0) + other[x + j];
        by_matrix.write(((s * (chain.by_chain ? n : 1) + at) * k + i) * k, row.data(), k);
      }
  };
  const int64_t grain = together ? groups : 1 + (1 << 17) / (1 + size * r * t * k * k);
  torch::stable::parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; g++) {
      if (!chain.by_chain) {
        const int64_t at = together ? 0 : g * each;
        job.run(g * size, std::min(n, (g + 1) * size), &real[at], &with_logs[at], by_weight.data());
        continue;
      }
      Vec some(each, 0.0), other(each, 0.0);
      job.run(g, g + 1, some.data(), other.data(), by_weight.data());
      Matrix own;
      put(some.data(), other.data(), chain.by_time ? nullptr : chain.at(own, t - 1, g).real.data(), g);
    }
  });
  if (!chain.by_chain) {
    for (int64_t g = 1; g < sums; g++)
      for (int64_t x = 0; x < each; x++) {
        real[x] += real[g * each + x];
        with_logs[x] += with_logs[g * each + x];
      }
    put(real.data(), with_logs.data(), together ? nullptr : chain.shared.real.data(), 0);
  }
  for (int64_t i = 0; i < t * n; i++) by_emission.write(i * k, &by_weight[i * w], k);
  return {by_initial, by_matrices, by_emissions, by_final};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ppl, library) {
  library.def("chain(Tensor initial, Tensor matrices, Tensor emissions, Tensor? final) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "chain_backward(Tensor gradient, Tensor result, Tensor initial, Tensor matrices, Tensor emissions, Tensor? final, "
      "Tensor after, Tensor weights, Tensor scales) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(ppl, CPU, library) {
  library.impl("chain", TORCH_BOX(&forward));
  library.impl("chain_backward", TORCH_BOX(&backward));
}
