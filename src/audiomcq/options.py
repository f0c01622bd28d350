"""Read the options of every recipe from a YAML file and the command line; errors name file, key and value."""

import difflib
import os
import sys
import types
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import date
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

from audiomcq.arguments.training import AudioArguments, DataArguments, GRPOArguments, SFTArguments
from audiomcq.errors import explain_os_error
from audiomcq.option_help import Program, help_text

if TYPE_CHECKING:
    from trl import ModelConfig, TrlParser

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_SHOWN = 60


class _StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys: PyYAML would keep the last without a warning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(
    kinds: tuple[type, ...],
    default_config: Path | None = None,
    argv: list[str] | None = None,
    settings: Path | None = None,
    inheriting: Callable[[], tuple[type, ...]] | None = None,
    defaults: dict[str, Any] | None = None,
    program: Program | None = None,
) -> tuple[Any, ...]:
    """Read options from a YAML file (`--config FILE` or `--config=FILE`) and the command line, which wins.

    A YAML file may inherit from another with `base:` (a path relative to its own folder). `--help` lists our options
    and ends the program; `--help-all` also lists those of TRL and transformers. No YAML file is read that nobody named:
    its rows and its model would be somebody else's. The first line of the log says which settings apply.

    Args:
        kinds: dataclasses of the options.
        default_config: YAML file to use without `--config`, where it belongs to the program, as app.yaml to an app.
        argv: words of the command line; by default this program's.
        settings: a recipe's script. Without any option, the YAML files in the folders next to it are named.
        inheriting: returns the dataclasses to read instead of `kinds`: subclasses with the options of TRL and
            transformers. Importing those takes seconds, which `--help` saves.
        defaults: values of options that the YAML file and the command line may change.
        program: what help calls it; by default the file that was started, with its docstring.

    Returns:
        one object of each kind.

    Raises:
        SystemExit: help was asked for and given.
        ValueError: the file cannot be read, a key is unknown, or a value does not fit; all of them are named.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help-all" in words:
        _print_help(help_text(inheriting() if inheriting else kinds, program=program))
    if {"-h", "--help"}.intersection(words):
        _print_help(help_text(kinds, inheriting is not None, program))
    named, words = _config_of(words)
    if settings is not None and named is None and default_config is None and not words:
        raise ValueError(name_settings(settings))
    kinds = inheriting() if inheriting else kinds
    file = named or default_config
    parser = _make_parser(kinds)
    values = _values(Path(file), kinds) if file is not None else {}
    parser.set_defaults_with_config(**{**(defaults or {}), **values})
    try:
        *options, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except Exception as error:
        # Types are checked, so what is left is a value that an option's own checks refuse, or those of the libraries
        # stumble over
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(what if file is None else f"{what} (options of {file} and the command line)") from error
    if unknown:
        raise ValueError(_unknown(unknown[0].partition("=")[0].lstrip("-"), _hints(kinds), "on the command line"))
    if (settings is not None or file is not None) and int(os.environ.get("RANK", 0)) == 0:
        sys.stderr.write(f"{_say_what_applies(file, words)}\n")
    return tuple(options)


def parse_stage(
    stage: Literal["sft", "grpo"],
    settings: Path | None = None,
    argv: list[str] | None = None,
    paradigm: str | None = None,
    program: Program | None = None,
) -> tuple[DataArguments, Any, "ModelConfig"]:
    """Read the options of a training stage: its rows, TRL's configuration with our options, and the model.

    Args:
        settings, argv, program: as of `parse`.
        paradigm: the one of the recipe, where neither YAML file nor command line names one. With it the recipe's published
            settings, those of 7B, apply without `--config`, unless the command line names rows or a model.

    Raises:
        ValueError: no rows or no model are named; see also `parse`.
    """

    def inheriting() -> tuple[type, ...]:
        from trl import ModelConfig

        from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig

        return DataArguments, AudioSFTConfig if stage == "sft" else AudioGRPOConfig, ModelConfig

    own = SFTArguments if stage == "sft" else GRPOArguments
    defaults = {"paradigm": paradigm} if paradigm else {}
    own_kinds = (DataArguments, own, AudioArguments)
    published = _published_settings(settings, argv) if paradigm and settings else None
    data, args, model = parse(own_kinds, published, argv, settings, inheriting, defaults, program)
    for option, value in (("dataset", data.dataset), ("model_name_or_path", model.model_name_or_path)):
        if not value:
            shipped = f"; {name_settings(settings)}" if settings else ""
            raise ValueError(f"{option}: name {'the rows' if option == 'dataset' else 'the model'} to train{shipped}")
    return data, args, model


def _published_settings(script: Path, argv: list[str] | None) -> Path | None:
    """Return the YAML file with the paper's settings of a recipe; None where the rows or the model are the user's own."""
    words = [word.partition("=")[0] for word in (sys.argv[1:] if argv is None else argv)]
    file = script.parent / "qwen2_5_omni_7b" / f"{script.stem}.yaml"
    return file if file.is_file() and not {"--dataset", "--model_name_or_path"}.intersection(words) else None


def _print_help(text: str) -> NoReturn:
    sys.stdout.write(text)
    raise SystemExit(0)


def _make_parser(kinds: tuple[type, ...]) -> "TrlParser":
    from transformers.hf_argparser import DataClassType
    from trl import TrlParser

    hints = _hints(kinds)

    class Parser(TrlParser):
        def add_argument(self, *names: Any, **options: Any) -> Any:
            action = super().add_argument(*names, **options)
            single = action.nargs in (None, "?") and action.choices is None
            if single and types.NoneType in get_args(hints.get(action.dest)):
                action.type = _or_null(action.type or str)
            return action

        def error(self, message: str) -> NoReturn:
            raise ValueError(message)

    return Parser([DataClassType(kind) for kind in kinds], allow_abbrev=False)


def _or_null(kind: Any) -> Callable[[str], Any]:
    """Return what reads a word of the command line as `kind` does, and `null` as a YAML file has it."""

    @wraps(kind)
    def read(word: str) -> Any:
        return None if word == "null" else kind(word)

    return read


def name_settings(script: Path) -> str:
    """Name the YAML files that a recipe ships, or say where they are: an installed package has none."""
    files = sorted(script.parent.glob(f"*/{script.stem}.yaml"))
    if files:
        return (
            f"no settings: give --config and one of {', '.join(map(_from_here, files))}, or the options themselves "
            "(--help lists them)"
        )
    pattern = Path("recipes", script.parent.name, "*", f"{script.stem}.yaml")
    return (
        f"no settings: give --config FILE, or the options themselves (--help lists them); examples are {pattern} of the "
        "repository, which an installed package leaves out"
    )


def _say_what_applies(file: str | Path | None, words: list[str]) -> str:
    """Say in one line where the options come from: a YAML file, the command line, or the defaults."""
    given = " ".join(word.partition("=")[0] for word in words if word.startswith("--"))
    if file is None:
        return f"settings: {given} of the command line and, for the rest, the defaults that --help lists (no --config)"
    return f"settings: {_from_here(Path(file))}" + (f", changed by {given}" if given else "")


def _from_here(file: Path) -> str:
    """Return a path as one would type it."""
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _config_of(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the file given by `--config`, and the other words."""
    file, others = None, []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != "--config":
            others.append(word)
            continue
        if file is not None:
            raise ValueError("--config stands there twice; give one file")
        file = value if equals else next(left, "")
        if not file or file.startswith("--"):
            raise ValueError("--config needs a YAML file after it")
    return file, others


def _values(file: Path, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Read the options of a YAML file, each in the type of its field; set the environment variables under `env`."""
    content = read_settings(file)
    environment = content.pop("env", None) or {}
    if not isinstance(environment, dict):
        raise ValueError(f"{file}: env is {_shown(environment)}, not a mapping of names to values")
    hints, values = _hints(kinds), {}
    for key, value in content.items():
        if key not in hints:
            raise ValueError(_unknown(key, hints, f"in {file}"))
        try:
            values[key] = _converted(value, hints[key])
        except TypeError:
            raise ValueError(
                f"{file}: {key} is {_shown(value)}, expected {_named(hints[key])}{_remedy(value)}"
            ) from None
    for name, value in environment.items():
        try:
            os.environ[name] = str(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: env {_shown(name)}: {error}") from error
    return values


def read_settings(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read the options in a YAML file, merged over those of its base files; their names and types are not checked."""
    file = Path(os.path.normpath(file))
    if file in above:
        raise ValueError(f"{above[0]}: its base leads back to {file}; take it out of one of them")
    content = _read(file)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ValueError(f"{file}: base is {_shown(base)}, expected the path of another YAML file")
    below = read_settings(file.parent / base, (*above, file))
    if isinstance(below.get("env"), dict) and isinstance(content.get("env"), dict):
        content["env"] = {**below["env"], **content["env"]}
    return {**below, **content}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        shipped = file.parts[:1] == ("recipes",) and not Path("recipes").exists()
        where = "; shipped settings are in a clone of the repository, not in an installed package" if shipped else ""
        raise ValueError(f"config {explain_os_error(error, file)}{where}") from error
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f", line {place.line + 1}, column {place.column + 1}" if place else ""
        raise ValueError(f"{file}{where}: no valid YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        # Not UTF-8, control characters, an impossible date, too deep: PyYAML has no one class for it
        raise ValueError(f"{file}: no valid YAML ({str(error) or type(error).__name__})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {_shown(content)}, expected lines of `option: value`")
    return content


def _hints(kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return the type of each option; options that are null by default may be null."""
    hints: dict[str, Any] = {}
    for kind in kinds:
        annotated = get_type_hints(kind)
        for field in fields(kind):
            if field.init:
                nullable = field.default is None and field.default_factory is MISSING
                hints[field.name] = annotated[field.name] | None if nullable else annotated[field.name]
    return hints


def _converted(value: Any, kind: Any) -> Any:
    """Convert a value of a YAML file to a type. A list may be given as a single value, a number in quotes.

    Raises:
        TypeError: it is none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, parts)
    if origin is Literal:
        return _one_of(value, parts)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of(value, [each.value for each in kind])
    if kind is list or origin is list:
        each = parts[0] if parts else Any
        return [_converted(item, each) for item in (value if isinstance(value, list) else [value])]
    if kind is dict or origin is dict:
        return _instance(value, dict)
    if kind is bool:
        return value if isinstance(value, bool) else _one_of(_WORDS.get(str(value).lower()), (True, False))
    if kind in (int, float):
        return _number(value, kind)
    return _instance(value, kind if isinstance(kind, type) else object)


def _first_that_fits(value: Any, kinds: tuple[Any, ...]) -> Any:
    # The very type first: an option that may be a text or a switch takes "1" as a text
    for kind in sorted(kinds, key=lambda kind: type(value) is not (get_origin(kind) or kind)):
        try:
            return _converted(value, kind)
        except TypeError:
            continue
    raise TypeError


def _number(value: Any, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        number = float(value)
        exact = kind(value) if kind is float or isinstance(value, str) else int(number)
    except (ValueError, OverflowError):
        raise TypeError from None
    if number != number or (kind is int and exact != number):
        raise TypeError
    return exact


def _instance(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _one_of(value: Any, allowed: Any) -> Any:
    for each in allowed:
        if type(each) is type(value) and each == value:
            return value
    raise TypeError


def _named(kind: Any) -> str:
    """Return the name of a type for messages."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_named(part) for part in parts))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(each.value) for each in kind)}"
    if kind is list or origin is list:
        return f"a list, each {_named(parts[0])}" if parts else "a list"
    if kind is dict or origin is dict:
        return "a mapping"
    return "null" if kind is type(None) else _PLAIN.get(kind, str(kind))


def _remedy(value: Any) -> str:
    """Suggest quotes for a value that YAML did not read as a text."""
    return "; put it in quotes if it is meant as a text" if isinstance(value, int | float | date) else ""


def _unknown(key: Any, known: dict[str, Any], where: str) -> str:
    near = difflib.get_close_matches(str(key), known, 1)
    return f"unknown option {_shown(key)} {where}" + (f"; did you mean {near[0]}?" if near else "; leave it out")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
