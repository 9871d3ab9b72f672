// searchlib.encoder._engine: runs the method `forward` of an ExecuTorch program on numpy arrays.
//
// Locks, always taken in this order: a module's own mutex (ExecuTorch's Module is not thread-safe),
// then the pool lock (shared to load or run, exclusive to replace the thread pool). Neither is
// ever waited for while holding the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/platform/platform.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace nb = nanobind;
namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::extension::make_tensor_ptr;
using executorch::extension::TensorPtr;

// The wheel exports these from libexecutorch_threadpool but does not ship threadpool.h.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

// ---- Errors and the runtime's log -------------------------------------------------------------

// An error code says little ("InvalidArgument"); the reason is in the log lines that led to it. So
// lines logged on a thread that is inside one of our calls are kept for the exception instead of
// being printed. Other threads' lines, and fatal ones (the process aborts next), go on as before.
thread_local std::string* captured = nullptr;
pal_emit_log_message_method previous_emit = nullptr;
bool debug = false;

void emit(et_timestamp_t time, et_pal_log_level_t level, const char* file, const char* function,
          size_t line, const char* message, size_t length) {
  if (captured && level == kError) {
    if (!captured->empty()) *captured += "; ";
    captured->append(message, length);
  }
  if (debug || !captured || level == kFatal) {
    previous_emit(time, level, file, function, line, message, length);
  }
}

class Capture {
 public:
  Capture() : outer_(captured) { captured = &lines_; }
  ~Capture() { captured = outer_; }
  Capture(const Capture&) = delete;
  const std::string& lines() const { return lines_; }

 private:
  std::string lines_;
  std::string* outer_;
};

struct EngineError : std::runtime_error {
  EngineError(et::Error code, const std::string& reason)
      : std::runtime_error(name(code) + (reason.empty() ? "" : ": " + reason)), code(code) {}

  static std::string name(et::Error code) {
    const std::string full = et::to_string(code);
    return full.substr(full.rfind(':') + 1);
  }

  et::Error code;
};

void check(et::Error error, const Capture& capture) {
  if (error != et::Error::Ok) throw EngineError(error, capture.lines());
}

// ---- The thread pool ----------------------------------------------------------------------------

// One pool serves the whole process, and an XNNPACK runtime keeps the pointer it was created with:
// replacing the pool leaves every loaded method with a dangling one. Each replacement is therefore
// a new generation, and a method of an older generation is loaded again before it runs.
std::shared_mutex pool_lock;
std::mutex pool_turnstile;  // so that a waiting writer is not starved by a stream of readers
std::atomic<uint64_t> pool_generation{0};

std::shared_lock<std::shared_mutex> use_pool() {
  std::lock_guard<std::mutex> turn(pool_turnstile);
  return std::shared_lock<std::shared_mutex>(pool_lock);
}

size_t get_threads() {
  Capture capture;  // the first use of the pool logs what it finds out about the processor
  auto use = use_pool();
  return executorch::extension::threadpool::get_threadpool()->get_thread_count();
}

// A method that is loaded and run under this guard gets no pool: it runs on the calling thread alone.
using executorch::extension::threadpool::NoThreadPoolGuard;

void set_threads(uint32_t count) {
  Capture capture;
  std::lock_guard<std::mutex> turn(pool_turnstile);
  std::unique_lock<std::shared_mutex> lock(pool_lock);
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool->get_thread_count() == count) return;
  pool->_unsafe_reset_threadpool(count);
  ++pool_generation;
}

// ---- Arrays and tensors -------------------------------------------------------------------------

struct Dtype {
  const char* name;
  ScalarType scalar;
  nb::dlpack::dtype dlpack;
};

constexpr Dtype kDtypes[] = {
    {"float32", ScalarType::Float, {2, 32, 1}}, {"int64", ScalarType::Long, {0, 64, 1}},
    {"float64", ScalarType::Double, {2, 64, 1}}, {"float16", ScalarType::Half, {2, 16, 1}},
    {"int32", ScalarType::Int, {0, 32, 1}},     {"int16", ScalarType::Short, {0, 16, 1}},
    {"int8", ScalarType::Char, {0, 8, 1}},      {"uint8", ScalarType::Byte, {1, 8, 1}},
    {"bool", ScalarType::Bool, {6, 8, 1}},
};

const Dtype& dtype_of(ScalarType scalar, const std::string& what) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.scalar == scalar) return dtype;
  }
  throw EngineError(et::Error::NotSupported, what + " is " + et::toString(scalar) +
                                                 ", which has no numpy dtype");
}

using Array = nb::ndarray<nb::ro, nb::device::cpu>;

bool is_contiguous(const Array& array) {
  int64_t expected = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) != 1 && array.stride(i) != expected) return false;
    expected *= static_cast<int64_t>(array.shape(i));
  }
  return true;
}

struct Spec {
  const Dtype* dtype;
  std::vector<int32_t> shape;
};

Spec make_spec(const et::Result<et::TensorInfo>& info, const std::string& what) {
  if (!info.ok()) throw EngineError(info.error(), what + " is not a tensor");
  const auto order = info->dim_order();
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != i) {
      throw EngineError(et::Error::NotSupported, what + " is not in contiguous memory order");
    }
  }
  const auto sizes = info->sizes();
  return {&dtype_of(info->scalar_type(), what), {sizes.begin(), sizes.end()}};
}

nb::list describe(const std::vector<Spec>& specs) {
  nb::list result;
  for (const Spec& spec : specs) {
    nb::list shape;
    for (int32_t size : spec.shape) shape.append(size);
    result.append(nb::make_tuple(spec.dtype->name, nb::tuple(shape)));
  }
  return result;
}

// ---- The module ---------------------------------------------------------------------------------

struct Output {
  const Dtype* dtype;
  std::vector<size_t> shape;
  std::unique_ptr<char[]> data;

  nb::object to_numpy() {
    char* bytes = data.release();
    nb::capsule owner(bytes, [](void* p) noexcept { delete[] static_cast<char*>(p); });
    return nb::cast(nb::ndarray<nb::numpy>(bytes, shape.size(), shape.data(), owner, nullptr,
                                           dtype->dlpack));
  }
};

class Module {
 public:
  // Plain mmap: XNNPACK copies the weights it needs while a method loads, so locking the pages of
  // a file of hundreds of megabytes in memory would only keep a second copy of them there.
  Module(const nb::bytes& path, bool single_threaded)
      : module_(std::string(path.c_str(), path.size()),
                executorch::extension::Module::LoadMode::Mmap),
        single_threaded_(single_threaded) {
    nb::gil_scoped_release release;
    Capture capture;
    auto use = use_pool();
    const auto alone = stay_on_this_thread();
    check(module_.load(et::Program::Verification::InternalConsistency), capture);
    load_forward(capture);
    const auto meta = module_.method_meta("forward");
    check(meta.error(), capture);
    for (size_t i = 0; i < meta->num_inputs(); ++i) {
      inputs_.push_back(make_spec(meta->input_tensor_meta(i), "input " + std::to_string(i)));
    }
    for (size_t i = 0; i < meta->num_outputs(); ++i) {
      outputs_.push_back(make_spec(meta->output_tensor_meta(i), "output " + std::to_string(i)));
    }
  }

  nb::list inputs() const { return describe(inputs_); }
  nb::list outputs() const { return describe(outputs_); }

  nb::list run(const nb::sequence& arrays) {
    const std::vector<Array> kept = accept(arrays);
    std::vector<Output> outputs;
    {
      nb::gil_scoped_release release;
      std::lock_guard<std::mutex> lock(mutex_);
      outputs = execute(kept);
    }
    nb::list result;
    for (Output& output : outputs) result.append(output.to_numpy());
    return result;
  }

 private:
  std::optional<NoThreadPoolGuard> stay_on_this_thread() const {
    std::optional<NoThreadPoolGuard> guard;
    if (single_threaded_) guard.emplace();
    return guard;
  }

  void load_forward(const Capture& capture) {
    check(module_.load_forward(), capture);
    generation_ = pool_generation;
  }

  // What the runtime does not check, or answers by aborting the process.
  std::vector<Array> accept(const nb::sequence& arrays) const {
    const auto refuse = [](et::Error code, const std::string& reason) {
      throw EngineError(code, reason);
    };
    std::vector<Array> accepted;
    for (nb::handle item : arrays) {
      const size_t i = accepted.size();
      const std::string what = "input " + std::to_string(i);
      if (i == inputs_.size()) break;
      const Spec& spec = inputs_[i];
      Array array;
      if (!nb::ndarray_check(item) || !nb::try_cast(item, array) ||
          array.dtype() != spec.dtype->dlpack) {
        refuse(et::Error::InvalidType, what + " must be a numpy array of " + spec.dtype->name);
      }
      if (array.ndim() != spec.shape.size()) {
        refuse(et::Error::InvalidArgument, what + " must have " +
                                               std::to_string(spec.shape.size()) +
                                               " dimensions, not " + std::to_string(array.ndim()));
      }
      for (size_t d = 0; d < array.ndim(); ++d) {
        if (array.shape(d) == 0) refuse(et::Error::InvalidArgument, what + " is empty");
        if (array.shape(d) > std::numeric_limits<int32_t>::max()) {
          refuse(et::Error::InvalidArgument, what + " is too large");
        }
      }
      if (!is_contiguous(array)) {
        refuse(et::Error::InvalidArgument, what + " must be C-contiguous");
      }
      accepted.push_back(std::move(array));
    }
    if (nb::len(arrays) != inputs_.size()) {
      refuse(et::Error::InvalidArgument, "the model takes " + std::to_string(inputs_.size()) +
                                             " inputs, not " + std::to_string(nb::len(arrays)));
    }
    return accepted;
  }

  std::vector<Output> execute(const std::vector<Array>& arrays) {
    Capture capture;
    auto use = use_pool();
    const auto alone = stay_on_this_thread();
    // Without a pool there is no pointer to one that could dangle.
    if (!single_threaded_ && generation_ != pool_generation) {
      module_.unload_forward();
      load_forward(capture);
    }
    std::vector<TensorPtr> tensors;  // an EValue refers to its tensor and does not keep it
    std::vector<et::EValue> values;
    for (size_t i = 0; i < arrays.size(); ++i) {
      std::vector<int32_t> sizes(arrays[i].shape_ptr(), arrays[i].shape_ptr() + arrays[i].ndim());
      tensors.push_back(make_tensor_ptr(std::move(sizes), const_cast<void*>(arrays[i].data()),
                                        inputs_[i].dtype->scalar));
      values.emplace_back(*tensors.back());
    }
    auto result = module_.forward(values);
    check(result.error(), capture);
    std::vector<Output> outputs;
    for (const et::EValue& value : *result) {
      const std::string what = "output " + std::to_string(outputs.size());
      const auto& tensor = value.toTensor();
      Output output{&dtype_of(tensor.scalar_type(), what),
                    {tensor.sizes().begin(), tensor.sizes().end()},
                    std::make_unique<char[]>(tensor.nbytes())};
      std::memcpy(output.data.get(), tensor.const_data_ptr(), tensor.nbytes());
      outputs.push_back(std::move(output));
    }
    return outputs;
  }

  executorch::extension::Module module_;
  const bool single_threaded_;
  std::mutex mutex_;
  uint64_t generation_ = 0;
  std::vector<Spec> inputs_;
  std::vector<Spec> outputs_;
};

// By default XNNPACK keeps one scratch buffer for the whole process, and a lock on it while a model
// runs: two modules would take turns. With a buffer for each model they run side by side.
void use_workspace_per_model() {
  constexpr int kPerModel = 1;  // WorkspaceSharingMode in backends/xnnpack/runtime, not shipped
  Capture capture;
  et::BackendOptions<1> options;
  check(options.set_option("workspace_sharing_mode", kPerModel), capture);
  check(et::set_option("XnnpackBackend", options.view()), capture);
}

PyObject* error_type = nullptr;

}  // namespace

NB_MODULE(_engine, m) {
  nb::set_leak_warnings(false);  // an engine that lives until the process ends is no leak
  debug = std::getenv("SEARCHLIB_DEBUG_RUNTIME") != nullptr;
  previous_emit = et::get_pal_impl()->emit_log_message;
  et::register_pal(et::PalImpl::create(emit, __FILE__));

  error_type = PyErr_NewException("searchlib.encoder._engine.Error", PyExc_RuntimeError, nullptr);
  m.attr("Error") = nb::handle(error_type);
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const EngineError& error) {
      // The runtime quotes file names and file contents, which need not be UTF-8.
      nb::object message = nb::steal(
          PyUnicode_DecodeUTF8(error.what(), std::strlen(error.what()), "backslashreplace"));
      nb::object args = nb::make_tuple(message, static_cast<uint32_t>(error.code));
      PyErr_SetObject(error_type, args.ptr());
    }
  });

  use_workspace_per_model();

  m.attr("EXECUTORCH_VERSION") = EXECUTORCH_VERSION;
  m.def("get_threads", &get_threads, nb::call_guard<nb::gil_scoped_release>());
  m.def("set_threads", &set_threads, nb::arg("count"), nb::call_guard<nb::gil_scoped_release>());
  nb::class_<Module>(m, "Module")
      .def(nb::init<const nb::bytes&, bool>(), nb::arg("path"), nb::kw_only(),
           nb::arg("single_threaded") = false)
      .def_prop_ro("inputs", &Module::inputs)
      .def_prop_ro("outputs", &Module::outputs)
      .def("run", &Module::run, nb::arg("inputs"));
}
