"""Process settings for the CPU and the compilation cache, which only a program's entry point applies, and compiler options."""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path

import jax

from alexnet_jax.console import count
from alexnet_jax.cpus import available_cpus
from alexnet_jax.errors import UserError, check_number

_MULTI_THREAD_FLAG = "xla_cpu_multi_thread_eigen"
_MALLOC_OPTIONS = ((-4, 0), (-1, -1), (-2, 2**26))
"""Options of `mallopt`: no separately mapped buffers (M_MMAP_MAX = 0), a heap that never shrinks (M_TRIM_THRESHOLD = -1), and the
same for the heaps of other arenas (M_TOP_PAD, their largest size)."""
_ARENA_MAX = -8
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
    "xla_cpu_prefer_vector_width": "512",
}
MAX_DEVICES_PER_CPU = 8
"""Maximum number of virtual devices per CPU: XLA ends the process if they do not reach a collective within 40 seconds."""
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2**21


def configure_cpu(devices: int = 1, *, data_parallel: bool = True) -> None:
    """Set the number of virtual CPU devices of this process, XLA's threads and malloc; call before JAX is first used.

    Sets JAX's options of CPU devices, PJRT_NPROC and XLA_FLAGS, and calls `retain_freed_memory`. The commands call this function;
    the rest of the library uses the devices that JAX has and changes no setting of the process.

    A device that waits in a collective blocks one of XLA's threads. With one thread per CPU, all threads can be blocked while
    no thread is left for the work they wait for, which is a deadlock. PJRT_NPROC therefore raises the number of threads, to no
    more than needed, because surplus threads compete for the CPUs. With no more CPUs than devices, Eigen uses a single thread
    per device, which is also faster than sharing the threads. CPUs are those that this process may use. An existing value of
    PJRT_NPROC is kept.

    With one device, a function runs in the thread that calls it (`jax_cpu_enable_async_dispatch` is false). Only this thread then
    allocates large buffers, so the threads that compute can have separate arenas, see `retain_freed_memory`.

    In multi-process training, call `jax.distributed.initialize` first.

    Args:
      devices: number of CPU devices of this process; two run the towers of `TWO_TOWER` on separate devices.
      data_parallel: whether gradients are summed over devices, which needs many concurrent collectives; the exchange between
        towers needs few.

    Raises:
      UserError: if there are too many devices for the CPUs, or JAX already uses the CPU with fewer devices.

    Examples:
      >>> configure_cpu(devices=2)
      >>> len(jax.devices("cpu")) >= 2
      True
    """
    cpus, multi_process = available_cpus(), jax.distributed.is_initialized()
    check_number("--devices", devices, at_least=1, at_most=MAX_DEVICES_PER_CPU * cpus)
    if devices > 1 or multi_process:
        blocked_threads = 8 if data_parallel or multi_process else 1
        os.environ.setdefault("PJRT_NPROC", str(max(cpus, (1 + blocked_threads) * devices)))
    flags = os.environ.get("XLA_FLAGS", "")
    is_file = bool(flags) and not flags.lstrip().startswith("--")  # XLA reads flags from it, and takes no others
    if devices > 1 and cpus <= devices and _MULTI_THREAD_FLAG not in flags and not is_file:
        os.environ["XLA_FLAGS"] = f"{flags} --{_MULTI_THREAD_FLAG}=false".strip()
    single_device = devices == 1 and not multi_process
    retain_freed_memory(arenas=1 + cpus if single_device else 1)
    if single_device:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError as error:  # the backends are initialized
        if jax.default_backend() == "cpu" and jax.local_device_count() < devices:
            problem = f"JAX already uses {count(jax.local_device_count(), 'CPU device')} and cannot change this"
            raise UserError(f"{problem}: call configure_cpu(devices={devices}) before JAX is first used") from error


def bind_threads(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Bind each of XLA's threads to one CPU if they run on a virtual machine with Linux; call after JAX is first used.

    Otherwise, threads that wait for each other can stay on one virtual CPU for seconds while another is idle, in which steps take
    up to twice the time; how often depends on the machine (`experiments/benchmarks/bound_threads.py`). Does nothing on other
    machines, with GPUs, or if there are fewer threads than CPUs, because another process could bind its threads to the same ones.

    Args:
      cpuinfo: file with the flags of the CPUs, among them that of a virtual machine.
    """
    if jax.default_backend() != "cpu" or not cpuinfo.exists() or " hypervisor" not in cpuinfo.read_text():
        return
    threads: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            if (task / "comm").read_text().startswith("tf_XLAEigen"):
                threads.append(int(task.name))
    cpus = sorted(os.sched_getaffinity(0))
    for number, thread in enumerate(sorted(threads) if len(threads) >= len(cpus) else ()):
        os.sched_setaffinity(thread, {cpus[number % len(cpus)]})


def check_platform() -> None:
    """Check that JAX can use a device.

    It cannot if JAX_PLATFORMS names a platform that does not exist, or if JAX is installed for GPUs, but the driver is too old or
    CUDA_VISIBLE_DEVICES hides all of them.

    Raises:
      UserError: if it cannot.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.jax_platforms  # type: ignore[reportAttributeAccessIssue]
        # Without JAX's advice, which is to uninstall packages.
        reason = " ".join(str(error).split()).partition(" (you may need")[0].split(". ")[0].rstrip(".")
        if not platforms:
            if "Unable to initialize backend" not in reason:
                raise
            advice = "update the driver and check CUDA_VISIBLE_DEVICES, or set JAX_PLATFORMS=cpu to use the CPU"
            raise UserError(f"JAX cannot use its devices ({reason}): {advice}") from error
        problem = f"JAX_PLATFORMS={platforms}, but there is no such device" + (f" ({reason})" if reason else "")
        raise UserError(f"{problem}: install JAX for it, or unset JAX_PLATFORMS") from error


def enable_compilation_cache() -> None:
    """Enable JAX's persistent compilation cache in the user's cache folder, so that later runs start faster.

    The folder is `user_cache_folder()`. JAX's cache key includes the program, versions, flags, the kind of device and, on a CPU,
    its instruction set. Does nothing if JAX already has a cache folder or if the folder is not writable.
    """
    folder = user_cache_folder()
    if folder is not None and jax.config.jax_compilation_cache_dir is None:  # type: ignore[reportAttributeAccessIssue]
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
                # Cache every program: a training run compiles few, and all are small.
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def user_cache_folder() -> Path | None:
    """Return the package's folder for files that can be made again, which may not exist; None if the user has no home folder.

    It is $XDG_CACHE_HOME/alexnet-jax or ~/.cache/alexnet-jax.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet-jax"
    except RuntimeError:
        return None


def retain_freed_memory(arenas: int = 1) -> None:
    """Configure malloc to retain freed buffers instead of returning them to the OS; call before other threads allocate memory.

    Otherwise every training step requests its memory from the OS again, page by page. The memory is in pages of 2 MB, if the OS
    has them. `experiments/benchmarks/cpu_settings.py` measures what both save. Does nothing without glibc.

    Args:
      arenas: maximum number of malloc's arenas, which are heaps with a lock each. XLA's convolutions allocate thousands of small
        buffers in a step, and threads that share an arena wait for each other. But only the arena of the main thread retains
        buffers of more than 64 MB, so there should be only one if other threads allocate those.
    """
    with contextlib.suppress(AttributeError):  # mallopt exists in glibc only
        libc = ctypes.CDLL(None)
        for option, value in (*_MALLOC_OPTIONS, (_ARENA_MAX, arenas)):
            libc.mallopt(option, value)
        _use_huge_pages(libc)


def _use_huge_pages(libc: ctypes.CDLL) -> None:
    """Reserve addresses for a heap of half of the machine's memory, and advise the kernel to use huge pages for it.

    The advice holds for addresses that the heap has. No memory is used before it is written to.
    """
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    address = libc.malloc(size)
    if address:  # a limit of the process, such as `ulimit -d`, can be smaller
        start = -(-address // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(start, size - _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(address)


@cache
def compiler_options(platform: str) -> dict[str, str]:
    """Return the `compiler_options` of `jax.jit` for training and evaluation steps.

    On a CPU, the options select Eigen instead of YNNPACK for convolutions, and vectors of 512 bits where the CPU has them.
    `experiments/benchmarks/cpu_settings.py` measures what both save.

    Args:
      platform: platform of the devices, such as "cpu" or "gpu".

    Returns:
      XLA option names and values, without those that XLA does not support; empty on other platforms.
    """
    return {name: value for name, value in _CPU_OPTIONS.items() if platform == "cpu" and _is_supported(name, value)}


def _is_supported(name: str, value: str) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # some options are experimental and may be missing in other XLA versions
        return False
    return True
