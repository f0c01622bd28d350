"""What `--help` prints: every option with its values, its meaning and its default, below the dataclass that declares it."""

import argparse
import inspect
import sys
import types
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

_LIBRARIES = ("trl", "transformers")
_WORDS = {bool: "true|false", int: "INT", float: "NUMBER", str: "TEXT", dict: "JSON"}


class Program(NamedTuple):
    """What help says of a program: its name and what it does."""

    name: str
    does: str


def help_text(kinds: tuple[type, ...], abridged: bool = False, program: Program | None = None) -> str:
    """Describe the options of dataclasses, ours before those of the libraries.

    Args:
        abridged: whether there are more than these: the last line then says how to see them.
        program: by default the file that was started, with its docstring.
    """
    parser = argparse.ArgumentParser(
        prog=program.name if program else None,
        usage="%(prog)s [--config FILE] [--OPTION VALUE ...]",
        description=program.does if program else sys.modules["__main__"].__doc__,
        epilog="--help-all shows the options inherited from TRL and transformers too." if abridged else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    general = parser.add_argument_group("Every recipe")
    general.add_argument("--config", metavar="FILE", help="YAML file of options. Those of the command line win.")
    general.add_argument("--help", action="store_true", help="List the options and stop.")
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for owner, options in _by_owner(kinds).items():
        group = parser.add_argument_group(_title(owner))
        for option in options:
            hint = hints[option.name]
            said = f"{option.metadata.get('help', '')}{_default(option)}".strip()
            many = "+" if _takes_many(hint) else None
            group.add_argument(f"--{option.name}", metavar=_values(hint), nargs=many, help=said.replace("%", "%%"))
    return parser.format_help()


def _by_owner(kinds: tuple[type, ...]) -> dict[type, list[Field]]:
    """Group options by the class below which they are shown: the most general of ours that declares one, else a
    library's.
    """
    owners = dict.fromkeys(owner for kind in kinds for owner in kind.__mro__)
    groups: dict[type, list[Field]] = {owner: [] for owner in sorted(owners, key=_is_inherited)}
    for kind in kinds:
        for option in fields(kind):
            if option.init:
                declaring = [each for each in kind.__mro__ if option.name in inspect.get_annotations(each)]
                own = [each for each in declaring if not _is_inherited(each)]
                groups[(own or declaring)[-1]].append(option)
    return {owner: options for owner, options in groups.items() if options}


def _is_inherited(owner: type) -> bool:
    return owner.__module__.partition(".")[0] in _LIBRARIES


def _title(owner: type) -> str:
    if _is_inherited(owner):
        return f"{owner.__module__.partition('.')[0]}.{owner.__name__}"
    return (owner.__doc__ or owner.__name__).splitlines()[0].rstrip(".")


def _values(kind: Any) -> str:
    """Describe the values of a type in one word."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(_values(part) for part in parts if part is not type(None)))
    if origin is Literal:
        return "|".join(map(str, parts))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    if origin is list:
        return _values(parts[0])
    return _WORDS.get(origin or kind, "VALUE")


def _takes_many(kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(map(_takes_many, get_args(kind)))
    return list in (kind, get_origin(kind))


def _default(option: Field) -> str:
    value = option.default if option.default_factory is MISSING else option.default_factory()
    if value is MISSING or value in ("", [], {}):
        return ""
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, float):
        value = f"{value:g}"
    elif isinstance(value, list):
        value = " ".join(map(str, value))
    return f" (default: {value.value if isinstance(value, Enum) else value})"
