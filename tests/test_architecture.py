"""The house keeps its shape: imports go down, each text and each kind of file has one place."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "audiomcq"
FLOORS = {
    1: (
        "prompts",
        "answers",
        "answer_anchors",
        "answer_matching",
        "answer_openings",
        "answer_statements",
        "answer_text",
        "answer_words",
        "audio",
        "clip_paths",
        "raw_rows",
        "decoding",
        "containers",
        "patient_files",
        "clip_workers",
        "clip_memory",
        "errors",
        "interruption",
        "records",
        "storage",
        "stats",
        "baselines",
        "endpoints",
        "templating",
        "figure_style",
    ),
    2: (
        "examples",
        "more_clips",
        "clip_check",
        "row_files",
        "schema",
        "hub_rows",
        "row_sources",
        "chosen_rows",
        "datasets",
        "streamed_clips",
        "streaming",
        "generation_options",
        "models",
        "model_parts",
        "omni_processors",
        "conversations",
        "row_notes",
        "collation",
        "sft_collation",
    ),
    3: (
        "packing",
        "held_groups",
        "listening_objectives",
        "shared_attention",
        "chunked_head",
        "sampling",
        "decode_plain",
        "decode_kernels",
        "decode_adapters",
        "decode_layer",
        "rollout_engine",
        "shared_prefix",
        "sharding",
        "training_kernels",
        "checkpointing",
        "phases",
        "arguments",
        "model_shape",
        "memory_parts",
        "memory",
        "configs",
        "rollout_options",
        "served_adapter",
        "option_help",
        "options",
        "run_record",
        "broken_rows",
        "divergence",
        "guards",
        "safe_trainer",
        "hardware",
        "trainer_setup",
        "run_ending",
        "kept_rollouts",
        "run",
        "launch",
    ),
    4: ("rewards", "inference", "rollout_server", "served_rollouts"),
    5: ("sft", "grpo", "listening", "contribution", "evaluation", "construction"),
    6: ("tiny", "publishing", "study"),
    7: ("commands", "cli", "__main__"),
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    """The module or package directly below audiomcq that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(code: str, package: str) -> set[str]:
    """The modules of this project that code in a package imports when it runs, absolute or relative, also inside functions."""
    names, tree = set(), ast.parse(code)
    blocks = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for_types = {id(node) for block in blocks for node in ast.walk(block)}
    for node in (each for each in ast.walk(tree) if id(each) not in for_types):
        if isinstance(node, ast.ImportFrom):
            beginning = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*beginning, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("audiomcq.")}


def imported_rooms(path: Path) -> set[str]:
    package = ".".join(("audiomcq", *path.relative_to(SOURCE).parent.parts))
    return {name.split(".")[1] for name in imports_of(path.read_text(), package)} & set(FLOOR_OF)


def find_cycle(arrows: dict[str, set[str]]) -> list[str]:
    """The first cycle that is found among rooms, as the rooms on it; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for other in sorted(arrows.get(name, ())):
                if cycle := walk(other, [*way, name]):
                    return cycle
            done.add(name)
        return []

    return next((cycle for name in sorted(arrows) if (cycle := walk(name, []))), [])


def test_every_module_has_a_floor_and_every_floor_its_modules() -> None:
    assert {room(path) for path in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_never_go_up(path: Path) -> None:
    above = {name for name in imported_rooms(path) if FLOOR_OF[name] > FLOOR_OF[room(path)]}
    assert not above, f"{path.name} on floor {FLOOR_OF[room(path)]} imports {above}"


def test_rooms_on_one_floor_do_not_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for path in [*MODULES, *SOURCE.glob("*/__init__.py")]:
        arrows.setdefault(room(path), set()).update(imported_rooms(path) - {room(path)})
    assert find_cycle(arrows) == []


def test_nothing_but_itself_imports_the_synthetic_clips_and_the_tiny_model() -> None:
    """A wheel has none of it: they are for the demo, the notebooks and the tests."""
    for path in [*MODULES, *SOURCE.rglob("__init__.py")]:
        assert room(path) == "tiny" or "tiny" not in imported_rooms(path), path


def test_relative_imports_and_circles_are_seen() -> None:
    assert imports_of("from ..evaluation import tables", "audiomcq.contribution") == {"audiomcq.evaluation.tables"}
    assert imports_of("from . import split\nimport audiomcq.sft", "audiomcq.contribution") == {
        "audiomcq.contribution.split",
        "audiomcq.sft",
    }
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_prompt_and_tag_texts_stand_in_prompts_alone(path: Path) -> None:
    if path.name != "prompts.py":
        text = path.read_text()
        assert "You are an audio understanding model" not in text
        assert "<answer>" not in text


def imported_modules(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_audio_files_are_opened_by_audio_alone(path: Path) -> None:
    # tiny/data.py writes files and opens none.
    if path.name not in ("audio.py", "decoding.py", "data.py"):
        assert not imported_modules(path) & {"soundfile", "av"}
    if path.name not in ("audio.py", "decoding.py", "containers.py"):
        assert not imported_modules(path) & {"audiomcq.decoding", "audiomcq.containers"}


def test_nothing_prints_in_the_package() -> None:
    for path in MODULES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
