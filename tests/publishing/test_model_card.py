"""A card says what run.json and results.json say, leaves nothing open, and its metadata reads back to the same numbers."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard, parse_eval_result_entries

from audiomcq import grpo, sft
from audiomcq.configs import AudioSFTConfig
from audiomcq.examples import row_key
from audiomcq.options import parse_stage
from audiomcq.prompts import QUESTION_TEMPLATE, SYSTEM_PROMPT
from audiomcq.publishing.base import Licence, find_base, run_records
from audiomcq.publishing.model import PublishModelArguments, model_files, push_run
from audiomcq.publishing.model_card import CardFacts, model_card
from audiomcq.publishing.model_scores import MEASURES, METRICS
from hub.cards import card_problems
from small_runs import write_results

RECIPE = Path(__file__).parents[2] / "recipes" / "weak_to_strong"
SMALL = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "use_cpu": "true",
    "disable_tqdm": "true",
    "warmup_steps": 0,
}
MIXED = {"paradigm": "mixed_to_strong", "mixed_seed": 1}
LORA = {"use_peft": "true", "lora_r": 4, "lora_target_modules": r".*language_model.*\.(q_proj|v_proj)"}


def train(stage: str, **options) -> None:
    words = [str(word) for key, value in {**SMALL, **options}.items() for word in (f"--{key}", value)]
    argv = ["--config", str(RECIPE / "tiny" / f"{stage}.yaml"), *words]
    {"sft": sft, "grpo": grpo}[stage].train(*parse_stage(stage, Path("unused.yaml"), argv))


@pytest.fixture(scope="module")
def two_stages(rows_folder: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRPO stage on top of an SFT stage that trained one parameter group."""
    folder = tmp_path_factory.mktemp("stages")
    common = {"dataset": rows_folder, **MIXED}
    train("sft", model_name_or_path=model_folder, output_dir=folder / "sft", train_modules="llm", max_rows=5, **common)
    short = {"num_generations": 2, "max_completion_length": 4, "max_steps": 1}
    train("grpo", model_name_or_path=folder / "sft", output_dir=folder / "grpo", **common, **short)
    return folder / "grpo"


def options(folder: Path, **changes) -> PublishModelArguments:
    return PublishModelArguments(**{"folder": str(folder), "repo_id": "org/model", "license": "mit", **changes})


def card_of(arguments: PublishModelArguments) -> ModelCard:
    return ModelCard(model_files(arguments)["README.md"].decode())


@pytest.fixture(scope="module")
def measured(two_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path | bytes], dict]:
    """Everything that is published with results, and the results.json."""
    results = write_results(tmp_path_factory.mktemp("scores"), "grpo")
    (results.parent / "scores.png").write_bytes(b"a figure")
    arguments = options(
        two_stages, base_model="org/base", results=str(results), evaluated_on="org/tones", leaderboard=True
    )
    return model_files(arguments), json.loads(results.read_text())


def table(card: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: first cell -> the others."""
    section = card.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line.strip("| ")) for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_every_number_of_the_results_section_is_that_of_results_json(measured) -> None:
    files, results = measured
    scores = results["models"]["grpo"]
    section = files["README.md"].decode().split("## Results\n")[1].split("\n## ")[0]
    rows = table(files["README.md"].decode(), "Results")
    shown = {name: label for name, label in MEASURES.items() if scores[name]}
    assert set(rows) == {"measure", *shown.values()}
    expected = {str(scores["n_total"]), str(scores["n_strong"]), str(scores["n_parsed"]), "95"}
    for name, label in shown.items():
        bounds = [scores[name]["interval"][side] for side in ("low", "high")]
        assert rows[label] == [f"{100 * scores[name]['value']:.1f}", f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"]
        expected |= {f"{100 * value:.1f}" for value in (scores[name]["value"], *bounds)}
    expected |= {f"{100 * value:.1f}" for value in results["baselines"].values()}
    assert set(re.findall(r"\d+(?:\.\d+)?", section)) == expected


def test_model_index_and_eval_results_read_back_to_the_same_numbers(measured) -> None:
    files, results = measured
    scores = results["models"]["grpo"]
    index = ModelCard(files["README.md"].decode()).data.eval_results
    assert {entry.metric_name: entry.metric_value for entry in index} == {
        label: scores[name]["value"] for name, label in MEASURES.items() if scores[name]
    }
    assert {(entry.dataset_type, entry.dataset_split) for entry in index} == {("org/tones", "test")}
    assert {entry.metric_name: entry.metric_type for entry in index} == {
        label: METRICS[name] for name, label in MEASURES.items() if scores[name]
    }
    assert len({entry.metric_type for entry in index}) == len(index), "two accuracies on one data set contradict"
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/audiomcq.yaml"]))
    assert {entry.task_id: entry.value for entry in entries} == {
        task: scores[name]["value"] for task, name in (("all", "accuracy"), ("strong", "strong"), ("weak", "weak"))
    }
    assert {entry.dataset_id for entry in entries} == {"org/tones"}


def test_the_training_section_says_what_both_runs_recorded(measured, two_stages: Path) -> None:
    rows = table(measured[0]["README.md"].decode(), "Training")
    for column, stage in enumerate(("sft", "grpo")):
        record = json.loads((two_stages.parent / stage / "run.json").read_text())
        settings = record["settings"]
        assert rows["time"][column] == f"{record['seconds']} s"
        assert rows["hardware"][column] == f"{record['processes']} x {record['device']}"
        assert rows["rows"][column].startswith(f"{record['rows']} (")
        assert rows["`learning_rate`"][column] == str(settings["learning_rate"])
        assert rows["`seed`"][column] == str(settings["seed"])
        assert rows["steps"][column] == str(settings["max_steps"])
        for group, count in record["parameter_groups"].items():
            numbers = [int(number.replace(" ", "")) for number in rows[group][column].split(" of ")]
            assert numbers == [count["trainable"], count["parameters"]]
    assert (rows["`max_rows`"], rows["`num_generations`"]) == (["5", "–"], ["–", "2"])
    assert rows["rows"][0].startswith("5 (")
    assert rows["audio_tower"][0].startswith("0 of")
    assert not rows["audio_tower"][1].startswith("0 of")


def test_the_card_passes_the_hubs_rules_and_leaves_nothing_open(measured) -> None:
    card = measured[0]["README.md"].decode()
    assert card_problems("model", card) == ([], [])
    open_ends = (r"\{\{|\{%|\}\}", "(?i)more information", "TODO", "(?i)undefined", r"\bNone\b", "licence: license")
    assert not [pattern for pattern in open_ends if re.search(pattern, card)]
    assert SYSTEM_PROMPT in card
    for link in ("https://arxiv.org/abs/2509.21060", "https://huggingface.co/inclusionAI/AudioMCQ-Weak-To-Strong"):
        assert f"({link})" in card
    assert f"```text\n{QUESTION_TEMPLATE}\n```" in card
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "audio-text-to-text", "mit")
    assert (data.base_model, data.base_model_relation) == ("org/base", "finetune")


def test_no_file_names_a_folder_of_this_machine(measured, two_stages: Path, model_folder: Path) -> None:
    for name, file in measured[0].items():
        content = file if isinstance(file, bytes) else file.read_bytes()
        assert str(two_stages.parent).encode() not in content, name
        assert str(model_folder.parent).encode() not in content, name


def test_what_is_not_known_is_said_and_never_made_up(two_stages: Path) -> None:
    card = card_of(options(two_stages, license=None))
    assert "not measured" in card.text
    assert "not stated by the base model" in card.text
    assert card.data.license is card.data.base_model is card.data.eval_results is card.data.datasets is None
    assert card_problems("model", str(card))[0] == []


LICENCE_TEXT = """TINY RESEARCH LICENSE AGREEMENT
3. c. ... retain in all copies the following attribution notices within a "Notice" text file: "Tiny is licensed under the Tiny
RESEARCH LICENSE AGREEMENT, Copyright (c) Tiny Cloud. All Rights Reserved."
4. b. ... you shall prominently display "Built with Tiny" or "Improved using Tiny" in the documentation.
"""


def test_the_licence_of_the_base_model_travels_with_the_weights(two_stages: Path, model_folder: Path) -> None:
    written = {
        "README.md": "---\nlicense: other\nlicense_name: tiny-1\nlicense_link: LICENSE\n---\n",
        "LICENSE": LICENCE_TEXT,
        "NOTICE": "Parts of Tiny are by others.",
    }
    for name, text in written.items():
        (model_folder / name).write_text(text)
    try:
        files = model_files(options(two_stages, license=None))
    finally:
        for name in written:
            (model_folder / name).unlink()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "tiny-1", "LICENSE")
    assert card_problems("model", str(card)) == ([], [])
    assert files["LICENSE"] == LICENCE_TEXT.encode()
    notice = files["NOTICE"].decode()
    attribution = (
        "Tiny is licensed under the Tiny RESEARCH LICENSE AGREEMENT, Copyright (c) Tiny Cloud. All Rights Reserved."
    )
    assert attribution in notice and attribution in card.text
    assert "Built with Tiny." in notice and "**Built with Tiny.**" in card.text
    assert "modified version of tiny" in notice and "by training (SFT, then GRPO) with audiomcq" in notice
    assert notice.rstrip().endswith("Parts of Tiny are by others.")


def test_a_licence_without_its_file_links_to_the_base_model_or_to_nothing(
    two_stages: Path, model_folder: Path
) -> None:
    readme = model_folder / "README.md"
    readme.write_text("---\nlicense: other\nlicense_name: tiny-1\nlicense_link: LICENSE\n---\n")
    try:
        links = [
            card_of(options(two_stages, license=None, base_model=base)).data.license_link
            for base in (None, "org/base")
        ]
    finally:
        readme.unlink()
    assert links == [None, "https://huggingface.co/org/base/blob/main/LICENSE"]


def test_a_licence_of_ones_own_needs_its_name_and_what_is_missing_is_said(
    two_stages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"license other: the Hub asks for its name; give --license_name"):
        model_files(options(two_stages, license="other"))
    data = card_of(options(two_stages, license="other", license_name="mine-1")).data
    assert (data.license, data.license_name) == ("other", "mine-1")
    assert "give --license_link" in caplog.text
    model_files(options(two_stages, license=None))
    assert "no licence: the base model" in caplog.text


def test_the_languages_are_those_of_the_datas_card_or_the_publishers_own(two_stages: Path, rows_folder: Path) -> None:
    readme = rows_folder / "README.md"
    readme.write_text("---\nlanguage: [pt, de]\n---\n")
    try:
        stated = card_of(options(two_stages))
        own = card_of(options(two_stages, languages=["fr"]))
    finally:
        readme.unlink()
    assert [stated.data.language, own.data.language] == [["de", "pt"], ["fr"]]
    assert card_of(options(two_stages)).data.language is None
    assert card_problems("model", str(stated)) == ([], [])


def test_the_card_of_a_whole_model_says_that_its_talker_is_the_base_models(two_stages: Path) -> None:
    records = run_records(two_stages)
    base = find_base(records, options(two_stages, base_model="org/base"))
    card = model_card(CardFacts("org/whole", records, base, "qwen2_5_omni", Licence({"license": "mit"})))
    assert card.data.pipeline_tag == "any-to-any"
    assert "Talker and vocoder are those of the base model, byte for byte; speech output" in card.text
    assert card_problems("model", str(card)) == ([], [])


def test_scores_without_silence_and_labels_say_so(two_stages: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path, "grpo")
    content = json.loads(results.read_text())
    content["models"]["grpo"] |= dict.fromkeys(("n_strong", "strong", "weak", "silent", "audio_gain"))
    results.write_text(json.dumps(content))
    card = card_of(options(two_stages, results=str(results), evaluated_on="org/tones"))
    assert set(table(card.text, "Results")) == {"measure", "accuracy"}
    assert "Silent accuracy and audio gain: not measured." in card.text
    assert "None" not in card.text


def test_a_part_of_a_benchmark_is_called_so_and_listed_on_no_leaderboard(two_stages: Path, tmp_path: Path) -> None:
    coverage = {"label": "MMAR (800 of 1000 items)", "complete": False, "n_missing_audio": 200}
    results = write_results(tmp_path, "grpo", questions={"benchmark": coverage})
    files = model_files(options(two_stages, results=str(results), evaluated_on="org/tones"))
    card = ModelCard(files["README.md"].decode())
    assert ".eval_results/audiomcq.yaml" not in files
    assert "MMAR (800 of 1000 items), the audio of 200 was missing" in card.text
    assert {entry.dataset_name for entry in card.data.eval_results} == {coverage["label"]}
    whole = write_results(tmp_path, "grpo", questions={"benchmark": {**coverage, "complete": True}})
    scored = options(two_stages, results=str(whole), evaluated_on="org/tones")
    assert ".eval_results/audiomcq.yaml" not in model_files(scored), "the Hub takes it for its own benchmarks alone"
    scored.leaderboard = True
    files = model_files(scored)
    assert ".eval_results/audiomcq.yaml" in files and b"Part of the benchmark" not in files["README.md"]
    scored.results = str(write_results(tmp_path, "grpo", questions={"benchmark": coverage}))
    with pytest.raises(ValueError, match=r"leaderboard: MMAR \(800 of 1000 items\) alone was asked"):
        model_files(scored)


def test_a_config_is_its_own_task_and_unanswered_questions_are_said(two_stages: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path, "grpo")
    content = json.loads(results.read_text())
    content["models"]["grpo"]["n_missing"] = 7
    results.write_text(json.dumps(content))
    scored = {"results": str(results), "evaluated_on": "org/tones", "evaluated_config": "hard", "leaderboard": True}
    files = model_files(options(two_stages, **scored))
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/audiomcq.yaml"]))
    assert [entry.task_id for entry in entries] == ["hard"]
    assert "7 questions without an answer count as wrong" in entries[0].notes
    assert "7 were not answered and count as wrong" in files["README.md"].decode()


def write_answers(folder: Path, rows_folder: Path, rows: Dataset, licence: str | None) -> Path:
    """Predictions as answer.py leaves them: wrong on silence from the third question on."""
    source = folder / "rows"
    shutil.copytree(rows_folder, source)
    lines = [json.loads(line) | ({"license": licence} if licence else {}) for line in (source / "train.jsonl").open()]
    (source / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = folder / "grpo.jsonl"
    said = []
    for index, row in enumerate(rows):
        for control in ("audio", "silence"):
            wrong = control == "silence" and index >= 2
            text = "I cannot | hear it" if wrong else f"<answer>{row['answer']}</answer>"
            said.append({"row_key": row_key(row), "control": control, "order": "given", "completion": text})
    file.write_text("".join(json.dumps(line) + "\n" for line in said))
    settings = {
        "model": "m",
        "benchmark": None,
        "dataset": str(source),
        "dataset_config": None,
        "dataset_split": "train",
    }
    run = {"settings": settings, "controls": ["audio", "silence"]}
    (folder / "grpo.run.json").write_text(json.dumps(run))
    return file


@pytest.mark.parametrize("licence", ["CC BY 4.0", "research only"])
def test_a_card_shows_a_question_with_and_without_its_clip_if_that_may_be_given_on(
    two_stages: Path, rows_folder: Path, rows: Dataset, tmp_path: Path, licence: str
) -> None:
    files = model_files(options(two_stages, example=str(write_answers(tmp_path, rows_folder, rows, licence))))
    card = files["README.md"].decode()
    shown = table(card.replace("### One question, with and without its clip", "## Example"), "Example")
    assert rows[2]["question"] in card
    assert shown["with the clip"] == [f"`<answer>{rows[2]['answer']}</answer>`"]
    assert shown["on silence"] == ["`I cannot \\| hear it`"]
    if licence == "CC BY 4.0":
        assert files["example.flac"] == Path(rows[2]["audio"]["path"]).read_bytes()
        assert "resolve/main/example.flac" in card and "The clip: CC BY 4.0" in card
    else:
        assert "example.flac" not in files and "<audio" not in card


def test_the_figure_of_the_results_goes_with_them_and_contact_and_data_are_named(measured, two_stages: Path) -> None:
    assert measured[0]["results.png"].name == "scores.png"
    assert "https://huggingface.co/org/model/resolve/main/results.png" in measured[0]["README.md"].decode()
    card = card_of(options(two_stages, contact="ann@example.org", datasets=["org/tones"]))
    assert "Questions and corrections: ann@example.org, or the Community tab" in card.text
    assert card.data.datasets == ["org/tones"]


def test_an_adapter_that_could_not_be_pushed_afterwards_is_not_trained(
    two_stages: Path, rows_folder: Path, tmp_path: Path
) -> None:
    push = {"push_to_hub": "true", "hub_model_id": "org/model", "paradigm": "single_stage"}
    with pytest.raises(
        SystemExit, match=r"a LoRA adapter needs a base model on the Hub.*--base_model.*--export merged"
    ):
        train("sft", dataset=rows_folder, model_name_or_path=two_stages, output_dir=tmp_path / "lora", **LORA, **push)
    assert not (tmp_path / "lora").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"results_model": "missing"}, "has no model 'missing'; it has grpo, another"),
        ({"evaluated_on": None}, "give --evaluated_on"),
        ({"repo_id": "model"}, "repo_id 'model' is not of the form owner/name"),
    ],
)
def test_results_that_do_not_belong_to_the_model_and_a_place_that_is_none_are_refused(
    two_stages: Path, tmp_path: Path, changes: dict, says: str
) -> None:
    arguments = {"results": str(write_results(tmp_path, "grpo")), "evaluated_on": "org/tones", **changes}
    with pytest.raises(ValueError, match=re.escape(says)):
        model_files(options(two_stages, **arguments))


def test_results_without_the_counts_that_a_card_shows_are_refused(two_stages: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path, "grpo")
    content = json.loads(results.read_text())
    del content["models"]["grpo"]["n_parsed"]
    results.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="model grpo: has no 'n_parsed'"):
        model_files(options(two_stages, results=str(results), evaluated_on="org/tones"))


def test_results_and_runs_with_other_prompts_are_refused(two_stages: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path, "grpo", prompt_version="audiomcq-0")
    with pytest.raises(ValueError, match="measured with prompts audiomcq-0"):
        model_files(options(two_stages, results=str(results), evaluated_on="org/tones"))
    record = json.loads((two_stages / "run.json").read_text())
    for change, says in (
        ({"prompt_version": "audiomcq-0"}, "was trained with prompts"),
        ({"finished": False}, "resume"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=says):
            model_files(options(tmp_path))
    with pytest.raises(ValueError, match=r"no run\.json there"):
        model_files(options(tmp_path / "no" / "where"))


def test_an_adapter_names_a_base_that_others_can_load_or_is_refused(
    rows_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    train("sft", dataset=rows_folder, model_name_or_path=model_folder, output_dir=tmp_path / "lora", **LORA)
    with pytest.raises(ValueError, match=r"needs a base model on the Hub.*--base_model"):
        model_files(options(tmp_path / "lora"))
    files = model_files(options(tmp_path / "lora", base_model="org/base"))
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    card = ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.base_model_relation) == ("peft", "adapter")
    assert "llm with LoRA" in card.text
    assert r"`.*language_model.*\.(q_proj\|v_proj)`" in card.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hub_token": "hf_secret"}, "hf auth login"),
        ({"hub_strategy": "checkpoint"}, "a run is pushed once"),
        ({"push_to_hub": True, "hub_model_id": "name"}, "with hub_model_id owner/name; it is name"),
    ],
)
def test_a_token_in_options_a_push_of_checkpoints_and_a_push_to_nowhere_are_refused(
    tmp_path: Path, wrong: dict, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as error:
        AudioSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **wrong)
    assert "hf_secret" not in str(error.value)


def test_a_run_that_does_not_ask_for_it_is_not_pushed_and_has_no_card(two_stages: Path) -> None:
    push_run(AudioSFTConfig(output_dir=str(two_stages), use_cpu=True, bf16=False))  # would need the network
    assert not (two_stages / "README.md").exists()
