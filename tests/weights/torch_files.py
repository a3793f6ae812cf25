"""Writer of files like those of `torch.save`, without PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from contextlib import contextmanager

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}


@contextmanager
def fake_torch():
    """Make the names that a file refers to importable while it is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*_):
        raise AssertionError("called by a reader")

    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType(rebuild.__code__, globals(), name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    saved = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch, utils
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Storage:
    def __init__(self, array, key):
        self.array, self.key = array, key


class _Tensor:
    def __init__(self, array, storage, utils):
        self.array, self.storage, self.utils = array, storage, utils

    def __reduce__(self):
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        return self.utils._rebuild_tensor_v2, (self.storage, 0, self.array.shape, strides, False, {})


def torch_file(value, *, legacy=False, protocol=2):
    """Return the content of a file with `value`, in which arrays are tensors."""
    storages = []
    with fake_torch() as (torch, utils):

        def convert(item):
            if isinstance(item, dict):
                return {key: convert(each) for key, each in item.items()}
            if isinstance(item, np.ndarray):
                storages.append(_Storage(np.ascontiguousarray(item), str(len(storages))))
                return _Tensor(storages[-1].array, storages[-1], utils)
            return item

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj):
                if not isinstance(obj, _Storage):
                    return None
                kind = getattr(torch, STORAGES[obj.array.dtype.name])
                return ("storage", kind, obj.key, "cpu", obj.array.size, *((None,) if legacy else ()))

        data = io.BytesIO()
        Pickler(data, protocol).dump(convert(value))
    file = io.BytesIO()
    if legacy:
        for number in (MAGIC, PROTOCOL, {"little_endian": True}):
            pickle.dump(number, file, 2)
        file.write(data.getvalue())
        pickle.dump([storage.key for storage in storages], file, 2)
        for storage in storages:
            file.write(storage.array.size.to_bytes(8, "little") + storage.array.tobytes())
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("net/data.pkl", data.getvalue())
            for storage in storages:
                archive.writestr(f"net/data/{storage.key}", storage.array.tobytes())
    return file.getvalue()
