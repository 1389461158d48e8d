"""Modules that hold modules (`Sequential`, `ModuleList`, `ModuleDict`) and parameters (`ParameterList`,
`ParameterDict`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, cast, overload

from kiln.errors import ArgumentError, InvalidValueError, KilnIndexError
from kiln.nn.module import Module
from kiln.nn.parameter import Parameter
from kiln.tensor import Tensor


def _position(name: str, index: Any, size: int, end: int = 0) -> int:
    """`index` counted from the front; KilnIndexError unless it is below size + end."""
    try:
        i = index.__index__()
    except AttributeError:
        raise ArgumentError(f"an index must be an int or a slice, not {type(index).__name__}", op=name) from None
    if not -size <= i < size + end:
        raise KilnIndexError(f"index {i} of {size} entries is out of range", op=name)
    return int(i) + size if i < 0 else int(i)


class _Listed(Module):
    """What `Sequential` and `ModuleList` share: submodules that are reached by their place."""

    _modules: dict[str, Module]  # type: ignore[assignment]

    def _set(self, modules: Iterable[Module]) -> None:
        """Hold these, called "0", "1", ..."""
        self._modules.clear()
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def _key(self, index: Any) -> str:
        return list(self._modules)[_position(type(self).__name__, index, len(self))]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        """One entry, or with a slice a container of the same modules."""
        if isinstance(index, slice):
            return self._part(list(self._modules.items())[index])
        return self._modules[self._key(index)]

    def _part(self, named: list[tuple[str, Module]]) -> Module:
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._key(index)]:
            del self._modules[name]
        self._set(list(self._modules.values()))

    def pop(self, index: int) -> Module:
        """Take one entry out."""
        found: Module = self[index]
        del self[index]
        return found

    def append(self, module: Module) -> Self:
        """Add an entry at the end."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add an entry before another one."""
        if not isinstance(module, Module):
            raise ArgumentError(f"expected a module, got {type(module).__name__}", op=type(self).__name__)
        modules = list(self._modules.values())
        modules.insert(_position(type(self).__name__, index, len(self), end=1), module)
        self._set(modules)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add entries at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)


class Sequential(_Listed):
    """Modules one after the other, called "0", "1", ... or by the keys of an ordered dict."""

    @overload
    def __init__(self, modules: OrderedDict[str, Module], /) -> None: ...

    @overload
    def __init__(self, *modules: Module) -> None: ...

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            named = list(modules[0].items())
        else:
            named = [(str(i), module) for i, module in enumerate(modules)]
        for name, module in named:
            if module is None:
                raise ArgumentError("a step of Sequential is None", op="Sequential")
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def _part(self, named: list[tuple[str, Module]]) -> Module:
        return type(self)(OrderedDict(named))

    def __add__(self, other: Any) -> Sequential:
        if not isinstance(other, Sequential):
            raise ArgumentError(f"a Sequential and a {type(other).__name__} can't be joined", op="Sequential")
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> Sequential:
        """The same modules several times over."""
        if not isinstance(times, int):
            raise ArgumentError(f"can't be repeated a {type(times).__name__} times", op="Sequential")
        if times <= 0:
            raise InvalidValueError(f"can't be repeated {times} times", op="Sequential")
        return Sequential(*list(self) * times)

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Self:
        self._set(self * times)
        return self


class ModuleList(_Listed):
    """A list of modules."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        self.extend(() if modules is None else modules)

    def _part(self, named: list[tuple[str, Module]]) -> Module:
        return type(self)([module for _, module in named])

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """Equal neighbours are shown once, with their count."""
        groups: list[tuple[int, int, str]] = []
        for i, text in enumerate(map(repr, self)):
            if groups and groups[-1][2] == text:
                groups[-1] = (groups[-1][0], i, text)
            else:
                groups.append((i, i, text))
        if not groups:
            return f"{self._get_name()}()"
        lines = []
        for first, last, text in groups:
            head = f"({first}): " if first == last else f"({first}-{last}): {last - first + 1} x "
            lines.append(head + text.replace("\n", "\n  "))
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Module):
    """A dict of modules, in the order in which they were added."""

    _modules: dict[str, Module]  # type: ignore[assignment]

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Forget all."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Take one out."""
        return self._modules.pop(key)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace several."""
        for key, module in _pairs("ModuleDict.update", modules):
            self[key] = module


def _pairs(name: str, given: Any) -> list[tuple[str, Any]]:
    """Keys and values of a mapping or of an iterable of pairs."""
    if isinstance(given, (Mapping, ModuleDict, ParameterDict)):
        return list(given.items())
    try:
        pairs = [tuple(pair) for pair in given]
    except TypeError:
        raise ArgumentError(f"takes a mapping or pairs, not {type(given).__name__}", op=name) from None
    for pair in pairs:
        if len(pair) != 2:
            raise InvalidValueError(f"takes pairs of a name and a value, got {len(pair)} items", op=name)
    return cast("list[tuple[str, Any]]", pairs)


def _held(value: Any) -> Any:
    """What a container of parameters keeps of a value: plain tensors become parameters."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _shown(name: str, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"  ({name}): Object of type: {type(value).__name__}"
    size = "x".join(map(str, value.shape))
    kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
    return f"  ({name}): {kind} containing: [kiln.{value.dtype} of size {size}]"


class ParameterList(Module):
    """A list of parameters (tensors become parameters; other values are kept as they are)."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        self._size = 0
        self.extend(() if values is None else values)

    def _name(self, index: Any) -> str:
        return str(_position("ParameterList", index, self._size))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(self._size)])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)([self[i] for i in range(self._size)[index]])
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._name(index), _held(value))

    def append(self, value: Any) -> Self:
        """Add one at the end."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several at the end."""
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise ArgumentError(f"takes an iterable, not {type(values).__name__}", op="ParameterList.extend")
        for value in list(values):
            self.append(value)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take one out."""
        values = list(self)
        found = values.pop(_position("ParameterList", index, self._size))
        for i in range(self._size):
            delattr(self, str(i))
        self._size = 0
        self.extend(values)
        return found

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def __repr__(self) -> str:
        lines = [_shown(str(i), value) for i, value in enumerate(self)]
        return f"{self._get_name()}(\n" + "\n".join(lines) + "\n)" if lines else f"{self._get_name()}()"


class ParameterDict(Module):
    """A dict of parameters (tensors become parameters; other values are kept as they are)."""

    def __init__(self, parameters: Any = None) -> None:
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise ArgumentError(f"a name must be a string, not {type(key).__name__}", op="ParameterDict")
        if key not in self._keys and hasattr(self, key):
            raise InvalidValueError(f"ParameterDict has an attribute {key!r} already")
        self._keys[key] = None
        setattr(self, key, _held(value))

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str) -> Any:
        """Take one out."""
        found = self[key]
        del self[key]
        return found

    def popitem(self) -> tuple[str, Any]:
        """Take the last one out."""
        if not self._keys:
            raise KeyError("the dict is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a name, or `default`."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a name, which becomes `default` if there was none."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict with `default` for each name."""
        return ParameterDict([(key, default) for key in keys])

    def copy(self) -> ParameterDict:
        """A new dict of the same parameters."""
        return ParameterDict(list(self.items()))

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values."""
        return [(key, self[key]) for key in self._keys]

    def values(self) -> Iterable[Any]:
        """The values."""
        return [self[key] for key in self._keys]

    def update(self, parameters: Any) -> None:
        """Add or replace several."""
        for key, value in _pairs("ParameterDict.update", parameters):
            self[key] = value

    def __or__(self, other: ParameterDict) -> ParameterDict:
        joined = self.copy()
        joined.update(other)
        return joined

    def __ior__(self, other: ParameterDict) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        lines = [_shown(key, value) for key, value in self.items()]
        return f"{self._get_name()}(\n" + "\n".join(lines) + "\n)" if lines else f"{self._get_name()}()"
