"""Reader of pickles that builds numbers, text, lists, tuples, dictionaries and arrays only, and never runs code of the file.

A pickle is a program: it can call any function. Here, the only functions are those that NumPy and PyTorch use to store arrays,
replaced by inert ones of this module, whatever the pickle calls them with.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

MAX_DEPTH = 100
"""Maximum depth of nested lists and dictionaries."""
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class PickleError(ValueError):
    """Pickle that is damaged, or contains anything but plain values and arrays; the message is the reason."""


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
    data: bytes,
    *,
    functions: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
    ignore_unknown: bool = False,
) -> Any:
    """Return the object of a pickle, which consists of plain values and arrays.

    Text of Python 2 is returned as bytes.

    Args:
      data: the pickle.
      functions: further functions that the pickle may call, by module and name; they must be safe for any arguments.
      persistent_load: function that returns the object of a persistent ID.
      ignore_unknown: whether objects of other classes are replaced by `Ignored` objects instead of being refused. They are never
        created, and other functions never called.

    Raises:
      PickleError: if the pickle is damaged, or contains other objects.
    """
    return load_next(io.BytesIO(data), functions=functions, persistent_load=persistent_load, ignore_unknown=ignore_unknown)


def load_next(
    file: io.BytesIO,
    *,
    functions: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
    ignore_unknown: bool = False,
) -> Any:
    """Return the object of the next pickle of a file, as `load_arrays` does."""
    start = file.tell()
    try:
        size = len(file.getbuffer())
        for opcode, argument, _ in pickletools.genops(file):
            # Python allocates a memo of any size that the pickle names.
            if opcode.name in _MEMO_OPCODES and argument is not None and argument > size:
                raise PickleError("the pickle is damaged or contains other objects than arrays")
        file.seek(start)
        allowed = {**_FUNCTIONS, **(functions or {})}
        return _Plain().convert(_Unpickler(file, allowed, persistent_load, ignore_unknown).load())
    except PickleError:
        raise
    except RecursionError as error:
        raise PickleError("the pickle is nested too deeply") from error
    except Exception as error:  # unpickling a damaged file may raise any exception
        raise PickleError("the pickle is damaged or contains other objects than arrays") from error


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
        return self._persistent(pid) if self._persistent else _refuse()


def _refuse() -> NoReturn:
    raise PickleError("the pickle refers to another file")


class _Plain:
    """Conversion of the objects of a pickle, some of which may occur several times."""

    def __init__(self) -> None:
        self._converted: dict[int, tuple[Any, Any]] = {}  # with the value, so that its id is not used again

    def convert(self, value: Any, depth: int = 0) -> Any:
        """Return the value with arrays in place of `_Array` objects."""
        if depth > MAX_DEPTH:
            raise PickleError("the pickle is nested too deeply")
        if id(value) not in self._converted:
            self._converted[id(value)] = (value, self._convert(value, depth + 1))
        return self._converted[id(value)][1]

    def _convert(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.convert(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self.convert(item, depth) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return self._array(value, depth) if isinstance(value, _Array) else value

    def _array(self, array: _Array, depth: int) -> Any:
        *_, shape, dtype, fortran, data = array.state
        if not isinstance(dtype, _Dtype) or not all(isinstance(length, int) and length >= 0 for length in shape):
            raise PickleError("the pickle is damaged or contains other objects than arrays")
        if dtype.dtype == object:  # an array of Python objects, as np.save stores a dictionary
            values = self.convert(list(data), depth)
            return values[0] if shape == () and len(values) == 1 else values
        return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")
