"""GPU descriptions for compilation without a GPU, from NVIDIA's data sheets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """GPU properties read by XLA's compiler; sizes are in bytes.

    Attributes:
      name: device name reported by the driver.
      capability: compute capability, (major, minor).
      processors: number of streaming multiprocessors (SMs).
      units: float32 units per SM.
      threads: maximum number of resident threads per SM.
      shared: shared memory per SM.
      shared_optin: maximum shared memory per block, after opting in.
      bandwidth: memory bandwidth, bytes/s.
      cache: size of the L2 cache.
      memory: size of the device memory.
      clock: clock rate, GHz.
    """

    name: str
    capability: tuple[int, int]
    processors: int
    units: int
    threads: int
    shared: int
    shared_optin: int
    bandwidth: int
    cache: int
    memory: int
    clock: float

    @property
    def config(self) -> str:
        """XLA GpuTargetConfigProto of the GPU, in text format."""
        major, minor = self.capability
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.name}"
            dnn_version_info {{ major: 9 minor: 8 }}
            runtime_version {{ major: 12 minor: 9 }}
            gpu_device_info {{
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              core_count: {self.processors}
              fpus_per_core: {self.units}
              clock_rate_ghz: {self.clock}
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: {self.threads}
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_optin}
              shared_memory_per_core: {self.shared}
              memory_bandwidth: {self.bandwidth}
              l2_cache_size: {self.cache}
              device_memory_size: {self.memory}
            }}
        """


GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 108, 64, 2048, 164 << 10, 163 << 10, 1555 * 10**9, 40 << 20, 40 << 30, 1.41),
    "l4": Gpu("NVIDIA L4", (8, 9), 58, 128, 1536, 100 << 10, 99 << 10, 300 * 10**9, 48 << 20, 22 << 30, 2.04),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 228 << 10, 227 << 10, 3352 * 10**9, 50 << 20, 79 << 30, 1.98),
}
