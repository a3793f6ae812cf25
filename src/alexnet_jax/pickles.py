"""Reader of pickles that builds numbers, text, lists, tuples, dictionaries and arrays only, and never runs code of the file.

A pickle is a program: it can call any function. Here, the only functions are those that NumPy and PyTorch use to store arrays,
replaced by inert ones of this module, whatever the pickle calls them with.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MAX_DEPTH = 100
"""Maximum depth of nested lists and dictionaries."""
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class PickleError(ValueError):
    """Pickle that is damaged, or contains anything but plain values and arrays; the message is the reason."""

    def __init__(self, reason: str = "the pickle is damaged or contains other objects than arrays"):
        super().__init__(reason)


class Ignored:
    """Object of an unknown class, without content."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore the item."""

    def extend(self, items: Any) -> None:
        """Ignore the items."""

    def add(self, item: Any) -> None:
        """Ignore the item."""


class _Dict(dict):
    """Dictionary without attributes, in place of an OrderedDict."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """dtype of an array, from NumPy's arguments."""

    def __init__(self, code: str | bytes, *_: Any):
        self.code, self.order = code if isinstance(code, str) else code.decode("ascii"), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order if isinstance(order, str) else order.decode("ascii")

    @property
    def dtype(self) -> np.dtype:
        if len(self.code) > 4 or self.code[:1] not in "biufO" or self.order not in "<>|=":
            raise PickleError(f"the pickle contains an array of dtype {self.code[:20]!r}")
        return np.dtype(object) if self.code[:1] == "O" else np.dtype(f"{self.order}{self.code}")


class _Array:
    """Array, whose content NumPy stores as the state of an empty array."""

    def __init__(self, *_: Any):
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def _encode(text: str, *_: Any) -> bytes:
    return text.encode("latin1")  # how Python 3 pickles bytes in protocols 0 to 2


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _Dict,
    ("builtins", "set"): Ignored,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in ("numpy.core", "numpy._core")},
    ("numpy", "ndarray"): Ignored,
    ("numpy", "dtype"): _Dtype,
}


def load_arrays(
    data: bytes | io.BytesIO,
    *,
    functions: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
    ignore_unknown: bool = False,
) -> Any:
    """Return the object of a pickle, which consists of plain values and arrays.

    Text of Python 2 is returned as bytes.

    Args:
      data: the pickle, or a file whose next pickle is read.
      functions: further functions that the pickle may call, by module and name; they must be safe for any arguments.
      persistent_load: function that returns the object of a persistent ID.
      ignore_unknown: whether objects of other classes are replaced by `Ignored` objects instead of being refused. They are never
        created, and other functions never called.

    Raises:
      PickleError: if the pickle is damaged, or contains other objects.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    start = file.tell()
    try:
        size = len(file.getbuffer())
        for opcode, argument, _ in pickletools.genops(file):
            # Python allocates a memo of any size that the pickle names.
            if opcode.name in _MEMO_OPCODES and argument is not None and argument > size:
                raise PickleError
        file.seek(start)
        allowed = {**_FUNCTIONS, **(functions or {})}
        return _to_plain(_Unpickler(file, allowed, persistent_load, ignore_unknown).load())
    except PickleError:
        raise
    except RecursionError as error:
        raise PickleError("the pickle is nested too deeply") from error
    except Exception as error:  # unpickling a damaged file may raise any exception
        raise PickleError from error


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        file: io.BytesIO,
        functions: Mapping[tuple[str, str], Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
        ignore_unknown: bool,
    ):
        super().__init__(file, encoding="bytes")
        self._functions, self._persistent, self._ignore_unknown = functions, persistent, ignore_unknown

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if function := self._functions.get((module_name, global_name)):
            return function
        if self._ignore_unknown:
            return Ignored
        raise PickleError(f"the pickle calls {ascii(f'{module_name}.{global_name}')[1:-1][:80]}, which is not allowed")

    def persistent_load(self, pid: Any, /) -> Any:
        if self._persistent is None:
            raise PickleError("the pickle refers to another file")
        return self._persistent(pid)


def _to_plain(loaded: Any) -> Any:
    """Return the object of a pickle with arrays in place of `_Array` objects, some of which may occur several times."""
    converted: dict[int, tuple[Any, Any]] = {}  # with the value, so that its id is not used again

    def convert(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise PickleError("the pickle is nested too deeply")
        if id(value) not in converted:
            converted[id(value)] = (value, convert_once(value, depth + 1))
        return converted[id(value)][1]

    def convert_once(value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: convert(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [convert(item, depth) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if not isinstance(value, _Array):
            return value
        *_, shape, dtype, fortran, data = value.state
        if not isinstance(dtype, _Dtype) or not all(isinstance(length, int) and length >= 0 for length in shape):
            raise PickleError
        if dtype.dtype == object:  # an array of Python objects, as np.save stores a dictionary
            values = convert(list(data), depth)
            return values[0] if shape == () and len(values) == 1 else values
        return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")

    return convert(loaded, 0)
