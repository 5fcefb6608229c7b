"""Interpret the pickles of `torch.save` as data: containers, numbers, text and descriptions of tensors.

A pickle is a program that may name any function and call it. This interpreter calls nothing that a file names. It
builds dictionaries, lists, tuples, numbers and texts, and descriptions of tensors from the few names that PyTorch uses
for them. Any other object, such as the `argparse.Namespace` of a training checkpoint, becomes a `Foreign`, which keeps
the name alone.

Work and memory are proportional to the length of the pickle. Objects are shared rather than copied, nothing that a
pickle can nest is hashed, compared or printed, and only texts and small numbers are keys of dictionaries.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import IO, Any, NamedTuple, cast

import ml_dtypes
import numpy as np

MAX_OPERATIONS = 2**23  # a training checkpoint of the largest network here has less than a million
_LINE = 2**16  # largest number of bytes of a text operation
_NAME = 256  # largest number of characters of a function's name, its module included
_INTEGER = 2**63  # sizes, offsets and keys of dictionaries are smaller
_MEMOIZED_INTEGER = 1024  # largest number of bytes of any integer
_MAX_AXES = 64  # of an array in NumPy

DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_PROGRAM = "__torch__."  # the start of the names of a TorchScript program's own classes
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")


class Storage(NamedTuple):
    """A run of numbers outside the pickle."""

    dtype: np.dtype
    key: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Foreign:
    """An object that is neither data nor a tensor, or a function that the pickle names; `name` is its full name."""

    __slots__ = ("is_function", "name")

    def __init__(self, name: str, is_function: bool = False):
        self.name, self.is_function = name, is_function


class Module(dict[str, Any]):
    """The attributes of a module of a TorchScript program, whose code is not part of the pickle."""


class Content(NamedTuple):
    """The value of a pickle.

    Attributes:
      value: of dictionaries, lists, tuples, numbers, texts, `Tensor` and `Foreign`. Parts may be shared and cyclic.
      storages: all that the pickle names, by key.
      foreign: names of the objects that were not built, in the order of their first use.
      has_tensors: whether the pickle describes any tensor.
      is_program: whether the file is a TorchScript program.
    """

    value: Any
    storages: dict[str, Storage]
    foreign: tuple[str, ...]
    has_tensors: bool
    is_program: bool = False


def load(file: io.BufferedIOBase) -> Content:
    """Return the value of the next pickle in a file, which is then at the pickle's end.

    Raises:
      pickle.UnpicklingError, ValueError and other errors of a damaged pickle.
    """
    bounded = _Bounded(file)
    machine = _Machine(bounded.remaining)
    for number, (operation, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], bounded))):
        if number > MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPERATIONS:,} operations")
        machine.perform(operation.name, argument, number)
    return machine.content()


class _Bounded:
    """A file that checks the number of requested bytes before memory is allocated for them."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, start = file, file.tell()
        self._end = file.seek(0, io.SEEK_END)
        self.remaining = self._end - start
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self._end - self._file.tell():
            raise pickle.UnpicklingError(f"{count:,} bytes are announced, but the file ends before them")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline(_LINE)

    def tell(self) -> int:
        return self._file.tell()


class _Machine:
    """The stack, the marks and the memo of a pickle under interpretation."""

    def __init__(self, length: int):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.foreign: dict[str, None] = {}
        self.has_tensors = False
        self.copies = length  # entries that calls may still copy: no honest pickle has more than bytes

    def content(self) -> Content:
        return Content(self._pop(), self.storages, tuple(self.foreign), self.has_tensors)

    def perform(self, name: str, argument: Any, number: int) -> None:
        """Perform an operation, given its name in `pickletools`, its argument and its place in the pickle."""
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(_literal(name, argument))
        elif name in _PUTS:
            index = len(self.memo) if name == "MEMOIZE" else argument
            if not 0 <= index <= number:
                raise pickle.UnpicklingError(f"its memo begins at {index:,}")
            self.memo[index] = self._top()
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        else:
            raise pickle.UnpicklingError(f"it has the operation {name}, which torch.save does not write")

    # --- the stack ------------------------------------------------------------------------------------------

    def _top(self) -> Any:
        if not self.stack or (self.marks and self.marks[-1] == len(self.stack)):
            raise pickle.UnpicklingError("its stack is empty")
        return self.stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self.stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise pickle.UnpicklingError("it has no mark")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()  # as Python's unpickler does
        else:
            self._pop()

    def pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self._top())

    # --- containers -----------------------------------------------------------------------------------------

    def new_list(self, _: Any) -> None:
        self.stack.append([])

    def new_dictionary(self, _: Any) -> None:
        self.stack.append({})

    def new_set(self, _: Any) -> None:
        self.stack.append(Foreign("builtins.set"))

    def tuple_to_mark(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def list_to_mark(self, _: Any) -> None:
        self.stack.append(self._pop_to_mark())

    def dictionary_to_mark(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.stack.append({})
        self._set_items(items)

    def set_to_mark(self, _: Any) -> None:
        self._pop_to_mark()
        self.stack.append(Foreign("builtins.frozenset"))

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def extend(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._extend(items)

    def add_items(self, _: Any) -> None:
        self._pop_to_mark()
        if not isinstance(self._top(), Foreign):
            raise pickle.UnpicklingError("it adds items to an object that is not a set")

    def set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._set_items(items)

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise pickle.UnpicklingError("it appends to an object that is not a list")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if len(items) % 2:
            raise pickle.UnpicklingError("a key of a dictionary has no value")
        if isinstance(target, dict):
            _fill(target, items)
        elif not isinstance(target, Foreign):
            raise pickle.UnpicklingError("it sets an item of an object that is not a dictionary")

    # --- functions and objects ------------------------------------------------------------------------------

    def name_function(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_function(module, name)

    def name_function_on_stack(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_function(module, name)

    def _push_function(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) >= _NAME:
            raise pickle.UnpicklingError("it does not name a function")
        self.stack.append(Foreign(f"{module}.{name}", is_function=True))
        if not _is_known(f"{module}.{name}"):
            self.foreign[f"{module}.{name}"] = None

    def call(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Foreign) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls an object that is not a function")
        if function.is_function and function.name.startswith(_PROGRAM):
            self.stack.append(Module())
            return
        build = _BUILDERS.get(function.name) if function.is_function else None
        self.stack.append(build(self, arguments) if build else Foreign(function.name))

    def call_with_keywords(self, _: Any) -> None:
        keywords = self._pop()
        if not isinstance(keywords, dict):
            raise pickle.UnpicklingError("it calls a function with keywords that are not a dictionary")
        self.call(None)

    def call_to_mark(self, _: Any) -> None:
        function, *arguments = self._pop_to_mark()
        self.stack += [function, tuple(arguments)]
        self.call(None)

    def name_and_call(self, argument: str) -> None:
        arguments = tuple(self._pop_to_mark())
        self.name_function(argument)
        self.stack.append(arguments)
        self.call(None)

    def set_state(self, _: Any) -> None:
        """Drop the state of an object: an OrderedDict's `_metadata`, or the attributes of a foreign object.

        A module of a TorchScript program keeps it.
        """
        attributes = self._pop()
        target = self._top()
        if isinstance(target, Module) and isinstance(attributes, dict) and not target:
            _fill(target, _flat(attributes))
            return
        if not isinstance(target, dict) and (not isinstance(target, Foreign) or target.is_function):
            raise pickle.UnpicklingError("it changes an object that has no state")

    def name_storage(self, _: Any) -> None:
        pid = self._pop()
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("a storage is not described as PyTorch does")
        _, kind, key, _, numel, *view = pid
        name = kind.name.removeprefix("torch.") if isinstance(kind, Foreign) else ""
        if not _is_count(numel) or not isinstance(key, str | int) or any(part is not None for part in view):
            raise pickle.UnpicklingError("a storage is not described as PyTorch does")
        if name not in DTYPES:
            self.foreign[name] = None
            self.stack.append(Foreign(name))
            return
        storage = Storage(np.dtype(DTYPES[name]), str(key), numel)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"storage '{storage.key}' is of two types")
        self.stack.append(storage)

    # --- what PyTorch's functions return --------------------------------------------------------------------

    def build_tensor(self, arguments: tuple[Any, ...]) -> Any:
        storage, offset, size, stride = arguments[:4]
        if isinstance(storage, Foreign):  # of numbers that NumPy does not have
            return Foreign(storage.name)
        if not (isinstance(storage, Storage) and _are_counts(size) and _are_counts(stride) and _is_count(offset)):
            raise pickle.UnpicklingError("a tensor is not described as PyTorch does")
        if len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor is not described as PyTorch does")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel:
            raise pickle.UnpicklingError(f"a tensor of size {size} reaches beyond its storage '{storage.key}'")
        self.has_tensors = True
        return Tensor(storage, offset, size, stride)

    def build_parameter(self, arguments: tuple[Any, ...]) -> Any:
        if not arguments or not isinstance(arguments[0], Tensor | Foreign):
            raise pickle.UnpicklingError("a parameter is not described as PyTorch does")
        return arguments[0]

    def build_from_type(self, arguments: tuple[Any, ...]) -> Any:
        """Return a tensor with attributes, which PyTorch pickles as (function, type, arguments, state)."""
        function, kind, inner, *_ = arguments
        is_plain = isinstance(kind, Foreign) and kind.name in ("torch.Tensor", "torch.nn.parameter.Parameter")
        if not is_plain:
            return Foreign(kind.name if isinstance(kind, Foreign) else "torch._utils._rebuild_from_type_v2")
        self.stack += [function, inner]
        if not isinstance(function, Foreign) or function.name not in _TENSOR_FUNCTIONS:
            raise pickle.UnpicklingError("a tensor is not described as PyTorch does")
        self.call(None)
        return self._pop()

    def build_size(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 1 or not isinstance(arguments[0], tuple | list):
            return ()
        self._count_copies(len(arguments[0]))
        return tuple(arguments[0])

    def build_dictionary(self, arguments: tuple[Any, ...]) -> Any:
        """Return a dictionary of pairs; the factory of a `defaultdict` is no sequence."""
        dictionary: dict[Any, Any] = {}
        for source in arguments:
            if isinstance(source, dict | list):
                self._count_copies(len(source))
                _fill(dictionary, _flat(source))
        return dictionary

    def _count_copies(self, count: int) -> None:
        self.copies -= count
        if self.copies < 0:
            raise pickle.UnpicklingError("it copies its own parts many times")


def _fill(dictionary: dict[Any, Any], items: list[Any]) -> None:
    """Set keys and values that alternate in a list.

    Tensors have texts as keys. Other keys are left out, except small integers, since the cost of hashing them is not
    bounded: a tuple can have itself many times as a part, and integers can be made to collide.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**32):
            dictionary[key] = value


def _flat(source: dict[Any, Any] | list[Any]) -> list[Any]:
    """Return keys and values, which then alternate, of a dictionary or of a list of pairs."""
    if any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in source) and isinstance(source, list):
        raise pickle.UnpicklingError("a dictionary is not made of pairs")
    pairs = source.items() if isinstance(source, dict) else source
    return [part for pair in pairs for part in pair]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < _INTEGER


def _are_counts(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _MAX_AXES and all(map(_is_count, value))


def _literal(name: str, argument: Any) -> Any:
    if isinstance(argument, int) and argument.bit_length() > 8 * _MEMOIZED_INTEGER:
        raise pickle.UnpicklingError("it has an integer of more than a thousand bytes")
    if name in _LEGACY_TEXTS and isinstance(argument, str):
        # Python 2 wrote texts as bytes, which `pickletools` returns as Latin-1.
        return argument.encode("latin-1").decode()
    return argument


def _is_known(name: str) -> bool:
    storage = name.removeprefix("torch.")
    return name in _BUILDERS or storage in DTYPES or name in _PLAIN_TYPES or name.startswith(_PROGRAM)


_IGNORED = ("PROTO", "FRAME", "STOP")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LEGACY_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", *_LEGACY_TEXTS),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "EMPTY_LIST": _Machine.new_list,
    "EMPTY_DICT": _Machine.new_dictionary,
    "EMPTY_SET": _Machine.new_set,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_to_mark,
    "DICT": _Machine.dictionary_to_mark,
    "FROZENSET": _Machine.set_to_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name_function,
    "STACK_GLOBAL": _Machine.name_function_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "OBJ": _Machine.call_to_mark,
    "INST": _Machine.name_and_call,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.name_storage,
}
_BUILDERS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    **dict.fromkeys(_DICTIONARIES, _Machine.build_dictionary),
    "torch.Size": _Machine.build_size,
    "torch._utils._rebuild_tensor": _Machine.build_tensor,
    "torch._utils._rebuild_tensor_v2": _Machine.build_tensor,
    "torch._utils._rebuild_parameter": _Machine.build_parameter,
    "torch._utils._rebuild_parameter_with_state": _Machine.build_parameter,
    "torch._tensor._rebuild_from_type_v2": _Machine.build_from_type,
}
_TENSOR_FUNCTIONS = tuple(name for name, build in _BUILDERS.items() if build is _Machine.build_tensor)
_PLAIN_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter")
