"""The notebooks: run top to bottom in a fresh kernel, short enough to read, committed without outputs."""

import ast
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
from datasets import Dataset
from nbclient import NotebookClient
from nbformat import NotebookNode
from peft import LoraConfig
from transformers import BitsAndBytesConfig, Qwen2_5OmniThinkerForConditionalGeneration

from audiomcq.arguments.memory import MemoryArguments
from audiomcq.configs import AudioGRPOConfig, AudioSFTConfig
from audiomcq.datasets import load_rows
from audiomcq.examples import CONTRIBUTION
from audiomcq.hardware import check_hardware
from audiomcq.memory import GB, needed
from audiomcq.memory_parts import count_generation, count_gradients, count_moments, count_state, lay_out, read_numbers
from audiomcq.model_shape import measure_shape, read_config
from audiomcq.models import FAMILIES, load_lalm
from audiomcq.sft import AudioSFTTrainer
from small_runs import sft_config

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FINE_TUNE, MEASURE = PATHS
MOST_LINES = 15
ABSOLUTE = re.compile(r"(?<![\w./:])(/(home|Users|root|tmp|mnt|data|work|content|opt|var)/|[A-Z]:\\)")
ONLY_LOOPBACK = """\
import sys

def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if host not in ("127.0.0.1", "::1", "localhost", None):
        raise OSError(f"{host}: kept from the network by the test")

sys.addaudithook(watch)
"""
NOTHING_IS_REACHED = """\
import socket

try:
    socket.getaddrinfo("huggingface.co", 443)
except OSError as error:
    assert "by the test" in str(error)
else:
    raise AssertionError("the network is reached")
"""
NO_MODEL_IS_LEFT = """\
import gc

gc.collect()
[type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__.endswith("ForConditionalGeneration")]
"""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> Iterator[NotebookNode]:
    return (cell for cell in read(path).cells if cell.cell_type == kind)


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Execute in a kernel of its own whose sockets reach nothing but this machine, with an empty cache."""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NOTHING_IS_REACHED, id="guard"))
    guard = folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(ONLY_LOOPBACK)
    # Clients that are told they are offline would not even try
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {
        "TINY": "1",
        "PYTHONPATH": os.pathsep.join([str(guard), str(ROOT / "src")]),
        "HF_HOME": str(folder / "cache"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    return notebook


def outputs(notebook: NotebookNode, cell_id: str | None = None) -> list[NotebookNode]:
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code" and cell_id in (None, cell.id)
        for output in cell.outputs
    ]


def shown(notebook: NotebookNode, mime: str, cell_id: str | None = None) -> list[str]:
    return [output.data[mime] for output in outputs(notebook, cell_id) if mime in output.get("data", {})]


def players(notebook: NotebookNode) -> int:
    """Audio players with sound in them."""
    return sum(bool(re.search(r"<audio.*src=\"data:audio/wav;base64,[\w+/]{1000}", html, re.DOTALL))
               for html in shown(notebook, "text/html"))  # fmt: skip


def check_clean(notebook: NotebookNode) -> None:
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert "Traceback" not in output.get("text", "")
        assert "Empty DataFrame" not in output.get("data", {}).get("text/plain", "")


@pytest.mark.slow
def test_the_fine_tuning_notebook_runs_from_rows_to_a_merged_checkpoint(tmp_path: Path) -> None:
    notebook = read(FINE_TUNE)
    places = {cell.id: index for index, cell in enumerate(notebook.cells)}
    for name in ("grpo-answers", "sft-answers"):
        left = nbformat.v4.new_code_cell(NO_MODEL_IS_LEFT, id=f"left-{name}")
        notebook.cells.insert(places[name] + 1, left)
    run(notebook, tmp_path)
    check_clean(notebook)
    for name in ("sft-answers", "grpo-answers"):
        assert shown(notebook, "text/plain", f"left-{name}") == ["[]"], "a stage's model stays in memory"
    output = tmp_path / "outputs" / "fine_tune"
    results = json.loads((output / "scores" / "results.json").read_text())
    assert list(results["models"]) == ["1 before", "2 after SFT", "3 after GRPO"]
    for model in results["models"].values():
        assert model["n_total"] == results["questions"]["n_total"] >= 20
        assert {"value", "interval"} == set(model["accuracy"]) == set(model["silent"]) == set(model["audio_gain"])
    before, after = results["models"]["2 after SFT"], results["models"]["3 after GRPO"]
    assert after["strong"]["value"] - before["strong"]["value"] > 0.1, "the notebook says that a tiny run shows this"
    assert abs(after["strong_audio_gain"]["value"]) < 0.1, "and that it is not from listening"
    (table,) = shown(notebook, "text/markdown", "scores")
    assert re.search(r"\| 3 after GRPO \|.*\d\.\d \[-?\d+\.\d, \d+\.\d\]", table)
    for cell in ("sft-loss", "grpo-reward", "grpo-format", "scores-plot"):
        assert len(shown(notebook, "image/png", cell)[0]) > 10_000
    assert players(notebook) == 1
    seen = [json.loads(line)["row_key"] for line in (output / "predictions" / "1 before.jsonl").open()]
    assert len(set(seen)) == results["questions"]["n_total"]
    _, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(output / "merged", output_loading_info=True)
    assert not info["missing_keys"]


@pytest.fixture
def on_a_t4(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cells of settings choose on a T4."""
    card = SimpleNamespace(total_memory=15_828_320_256, major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: card)
    monkeypatch.delenv("TINY", raising=False)
    chosen: dict[str, Any] = {}
    sources = {cell.id: cell.source for cell in cells(FINE_TUNE, "code")}
    for name in ("settings", "hardware", "sizes"):
        exec(sources[name], chosen)
    return chosen


def test_on_a_t4_the_fine_tuning_notebook_chooses_what_a_t4_can_do(on_a_t4: dict[str, Any], tmp_path: Path) -> None:
    assert (on_a_t4["dtype"], on_a_t4["common"]["fp16"], on_a_t4["common"]["bf16"]) == ("float16", True, False)
    assert on_a_t4["four_bits"].load_in_4bit
    assert on_a_t4["common"]["gradient_checkpointing"]
    for kind, own in ((AudioSFTConfig, on_a_t4["sft"]), (AudioGRPOConfig, on_a_t4["grpo"])):
        # Built where no card is; whether fp16 can be honoured is asked of the card's own device
        args = kind(output_dir=str(tmp_path), **on_a_t4["common"] | own | {"fp16": False, "use_cpu": True})
        there = SimpleNamespace(
            **{**vars(args), "fp16": True, "device": torch.device("cuda"), "deepspeed_plugin": None}
        )
        check_hardware(there, on_a_t4["dtype"], adapted=True, quantized=True)


def count_phases(chosen: dict[str, Any]) -> dict[str, float]:
    """GB that a card should have for each phase of the notebook with these settings."""
    common, sft, grpo, asked = (chosen[name] for name in ("common", "sft", "grpo", "asking"))
    shape = measure_shape(read_config(chosen["model"]))
    shape = replace(shape, parameters={**shape.parameters, "unused": 0})  # no phase loads the vision tower
    training = MemoryArguments(
        lora_r=16,
        load_in_4bit=True,
        dtype="float16",
        precision="fp16",
        seconds=common["max_audio_seconds"],
        fused=False,
    )
    stages = {
        "SFT": replace(
            training, stage="sft", batch=sft["per_device_train_batch_size"],
            gradient_accumulation_steps=sft["gradient_accumulation_steps"],
        ),
        "GRPO": replace(
            training, batch=grpo["per_device_train_batch_size"], generations=grpo["num_generations"],
            completion_tokens=grpo["max_completion_length"], gradient_accumulation_steps=grpo["gradient_accumulation_steps"],
        ),
    }  # fmt: skip
    peaks = {name: max(moment.total for moment in count_moments(each, shape)) for name, each in stages.items()}
    # Weights in 16 bits, and for answers the prompts of a batch and their continuations, which are computed as rollouts are
    whole = replace(training, load_in_4bit=False, batch=asked["batch_size"], generations=1, completion_tokens=64)
    numbers = read_numbers(replace(whole, lora_r=0, train_modules=[]), shape)
    weights = count_state(whole, shape, numbers)["weights"]
    stays, passing = count_generation(whole, shape, numbers, lay_out(whole, shape))
    answers = weights + sum(stays.values()) + sum(passing.values())
    held = {"answers": answers, "SFT": peaks["SFT"], "merge before GRPO": weights, "GRPO": peaks["GRPO"]}
    return {name: round(needed(size) / GB, 1) for name, size in held.items()}


def test_the_memory_that_the_notebook_states_for_a_t4_is_counted_from_its_settings(on_a_t4: dict[str, Any]) -> None:
    counted = count_phases(on_a_t4)
    assert max(counted.values()) < 15
    stated = next(cell.source for cell in cells(FINE_TUNE, "markdown") if cell.id == "memory")
    assert f"| {' | '.join(counted)} |" in stated
    assert f"| {' | '.join(map(str, counted.values()))} |" in stated
    page = " ".join((ROOT / "docs" / "hardware.md").read_text().split())
    answers, sft, merging, rollouts = counted.values()
    assert (
        f"{answers} GB (answers), {sft} GB (SFT), {merging} GB (merging the SFT adapter) and {rollouts} GB (GRPO)"
        in page
    )


def test_what_is_counted_of_4_bits_and_their_adapter_is_what_a_tiny_model_holds(
    full_layout: Path, rows: Dataset, tmp_path: Path
) -> None:
    shape = measure_shape(read_config(str(full_layout)))
    whole = MemoryArguments(stage="sft", lora_r=16, dtype="float16", precision="no")
    numbers = read_numbers(whole, shape)
    half = load_lalm(full_layout, dtype="float16", vision=False).model
    adapter = 4 * numbers.adapters
    unread = 2 * 2 * shape.hidden  # marks of the audio's start and end, which no forward reads and no count has
    assert count_state(whole, shape, numbers)["weights"] - adapter + unread == size_of(half.parameters())
    trainer = AudioSFTTrainer(
        str(full_layout),
        sft_config(tmp_path, max_steps=1, model_init_kwargs={"dtype": "float16"}),
        train_dataset=rows,
        peft_config=LoraConfig(r=16, target_modules=FAMILIES["qwen2_5_omni"].lora_targets),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True),
    )
    trainer.train()
    counted = count_state(replace(whole, load_in_4bit=True), shape, numbers)
    parameters = list(trainer.model.parameters())
    scales = [each.quant_state.absmax for each in parameters if hasattr(each, "quant_state")]
    assert counted["weights"] + unread == size_of([*parameters, *scales])
    trained = [each for each in parameters if each.requires_grad]
    # Gradients are freed after the step, and are as large as the weights
    assert count_gradients(whole, numbers, numbers.count) == size_of(trained)
    states = [value for state in trainer.optimizer.optimizer.state.values() for value in state.values() if value.ndim]
    assert counted["optimizer"] == size_of(states)


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


@pytest.mark.check
def test_the_measuring_notebook_finds_nothing_in_voters_that_guess(tmp_path: Path) -> None:
    notebook = run(read(MEASURE), tmp_path)
    check_clean(notebook)
    output = tmp_path / "outputs" / "audio_contribution"
    report = json.loads((output / "report" / "report.json").read_text())
    asked = {(voter["voter"], voter["control"]) for voter in report["voters"]}
    assert len(asked) == 9
    assert {voter["votes"] for voter in report["voters"]} == {report["rows"]} == {60}
    for voter in report["s_audio"].values():
        low, high = voter["interval"]
        assert low <= 0 <= high
    assert abs(report["shares"]["all"]["corrected"]) < 0.15
    labels = load_rows(output / "labelled.parquet")[CONTRIBUTION]
    assert {label: labels.count(label) for label in set(labels)} == {
        side: report["shares"]["all"][side] for side in ("weak", "strong")
    }
    assert "<audio" in (output / "report" / "report.html").read_text()
    assert len(shown(notebook, "image/png", "report")[0]) > 10_000
    kinds = shown(notebook, "text/markdown", "listen")
    assert [any(text.startswith(f"**{kind}**") for text in kinds) for kind in ("weak", "strong")] == [True, True]
    assert players(notebook) == 1 + len(kinds)
    tables = [html for html in shown(notebook, "text/html", "listen") if "<table" in html]
    assert len(tables) == len(kinds)
    for table in tables:
        assert re.findall(r"<th>([^<]+)</th>", table)[:2] == ["silence", "audio"], (
            "chosen without the clip and with it"
        )
        assert table.count("&lt;answer&gt;") == 2 * 3, "by each of three voters"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_are_valid_and_stand_line_by_line_as_nbformat_writes_them(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.read_text() == nbformat.writes(notebook) + "\n"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_cells_have_names_that_stay(path: Path) -> None:
    names = [cell.id for cell in read(path).cells]
    assert len(set(names)) == len(names)
    # An editor's own ids are digits and letters at random; these are words.
    assert not [name for name in names if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_switch_stands_in_a_parameters_cell(path: Path) -> None:
    (settings,) = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", ())]
    assert 'TINY = os.environ.get("TINY") == "1"' in settings.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_path_of_a_machine_stands_in_a_notebook(path: Path) -> None:
    for cell in read(path).cells:
        assert not ABSOLUTE.search(cell.source), cell.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_code_cells_are_short_and_define_nothing(path: Path) -> None:
    """What would need a function belongs into the package."""
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.id
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node for node in ast.walk(ast.parse(cell.source.replace(";", ""))) if isinstance(node, defined)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_import_what_is_public_and_there(path: Path) -> None:
    imported = [
        (node.module, alias.name)
        for cell in cells(path, "code")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("audiomcq")
        for alias in node.names
    ]
    assert len(imported) >= 5
    for module, name in imported:
        assert not [part for part in (*module.split("."), name) if part.startswith("_")]
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_in_notebooks_lead_to_files(path: Path) -> None:
    targets = [t for cell in cells(path, "markdown") for t in re.findall(r"\]\(([^)#]+)\)", cell.source)]
    assert targets
    for target in targets:
        assert target.startswith("https:") or (path.parent / target).exists(), target
