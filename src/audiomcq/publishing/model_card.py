"""Fill in a model's card from the records of its runs (run.json) and its scores (results.json). No number is typed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    DatasetCard,
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import EntryNotFoundError

from audiomcq.evaluation.tables import is_estimate
from audiomcq.models import FAMILIES
from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN, PROMPT_VERSION, QUESTION_TEMPLATE, SYSTEM_PROMPT
from audiomcq.publishing.hub import CARD_FILE
from audiomcq.records import COUNT, MAPPING, NUMBER, TEXT, check_fields, or_null, read_json
from audiomcq.run_record import RUN_FILE, read_record
from audiomcq.templating import MISSING, fill_template, percent

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
EVAL_FILE = ".eval_results/audiomcq.yaml"
TASK = "audio-text-to-text"

MEASURES = {
    "accuracy": "accuracy",
    "strong": "accuracy, strong rows",
    "weak": "accuracy, weak rows",
    "silent": "silent accuracy",
    "audio_gain": "audio gain",
    "strong_audio_gain": "audio gain, strong rows",
}
BENCHMARK_TASKS = {"accuracy": "all", "strong": "strong", "weak": "weak"}
"""Config of the data set for each measure that a leaderboard can list."""

_HYPER_PARAMETERS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "dtype",
    "bf16",
    "max_audio_seconds",
    "shuffle_choices",
    "cot",
    "strong_weight",
    "num_generations",
    "max_completion_length",
    "temperature",
    "top_k",
    "top_p",
    "beta",
    "loss_type",
    "scale_rewards",
    "rewards",
    "reward_weights",
    "seed",
)
_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
_NAMES = {"sft": "supervised fine-tuning (SFT)", "grpo": "reinforcement (GRPO)"}


@dataclass(frozen=True)
class Evaluation:
    """One model's entry of a results.json, with the data set that was evaluated.

    Attributes:
        scores: the entry, as recipes/evaluate/score.py writes it.
        baselines: accuracies without a model.
        dataset, config, split: of the benchmark; `dataset` is its Hub id.
        coverage: how much of a benchmark was asked (`questions.benchmark` there), None for rows of one's own.
    """

    scores: dict[str, Any]
    baselines: dict[str, float]
    dataset: str
    config: str | None = None
    split: str = "test"
    coverage: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether the scores are those of the whole data set."""
        return self.part is None

    @property
    def part(self) -> str | None:
        """The part of a benchmark that was asked, None for a whole one and for rows of one's own."""
        return None if self.coverage is None or self.coverage["complete"] else self.coverage["label"]

    @property
    def missing(self) -> int:
        """The number of questions without a prediction, which count as wrong."""
        return self.scores.get("n_missing", 0)


@dataclass(frozen=True)
class Base:
    """The base model of a training run.

    Attributes:
        name: Hub id, or the bare name of a local folder.
        on_hub: whether others can load it by this name.
        revision: commit on the Hub.
        source: Hub id or folder that contains its own card.
    """

    name: str
    on_hub: bool
    revision: str | None
    source: str


def run_records(folder: Path) -> list[dict[str, Any]]:
    """Read the run.json of each stage of a checkpoint, first stage first, with the number of steps.

    Raises:
        ValueError: the folder contains no finished run, or one with other prompts than those of this package.
    """
    run = next((place for place in (folder, folder.parent) if (place / RUN_FILE).is_file()), None)
    if run is None:
        raise ValueError(f"{folder}: no {RUN_FILE} there; give the output folder of a training recipe")
    record = read_record(run)
    check_fields(record, {"prompt_version": TEXT}, str(run / RUN_FILE))
    source_model = {"model_name_or_path": TEXT}
    check_fields(record["settings"], source_model, f"{run / RUN_FILE}: settings", frozenset(source_model))
    if not record["finished"]:
        raise ValueError(f"{folder}: this run has not finished; resume it with --resume_from_checkpoint true")
    if record.get("prompt_version") != PROMPT_VERSION:
        raise ValueError(
            f"{folder} was trained with prompts {record.get('prompt_version')}, the card would say {PROMPT_VERSION}: publish it "
            "with the version of audiomcq that trained it"
        )
    state = folder / "trainer_state.json"
    steps = read_json(state, {"global_step": COUNT}, frozenset({"global_step"})) if state.is_file() else {}
    record["steps"] = steps.get("global_step")
    source = Path(record["settings"]["model_name_or_path"])
    earlier = run_records(source) if any((place / RUN_FILE).is_file() for place in (source, source.parent)) else []
    return [*earlier, record]


def find_base(records: list[dict[str, Any]], base_model: str | None = None) -> Base:
    """Return the model that the first stage started from; `base_model` is its Hub id if the run had a local copy."""
    source = records[0]["settings"]["model_name_or_path"]
    commit = records[0].get("model_commit")
    name = base_model or (source if commit else Path(source).name)
    return Base(name, bool(base_model or commit), commit, source)


def base_licence(base: Base) -> dict[str, str]:
    """Read `license`, `license_name` and `license_link` from the base model's card, as far as it has them."""
    stated = _read_card_metadata(base.source, ModelCard)
    found = {name: stated.get(name) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in found.items() if value}


def data_languages(records: list[dict[str, Any]]) -> list[str]:
    """Collect the languages in the cards of all stages' data; empty if no card has any."""
    found: set[str] = set()
    for record in records:
        dataset = record["settings"]["dataset"]
        if record.get("dataset_commit") or Path(dataset).is_dir():
            stated = _read_card_metadata(dataset, DatasetCard).get("language") or []
            found |= {stated} if isinstance(stated, str) else set(stated)
    return sorted(found)


def _read_card_metadata(source: str, kind: type[ModelCard] | type[DatasetCard]) -> dict[str, Any]:
    """Read the metadata of a card in a folder or on the Hub; empty if there is no card."""
    card = Path(source) / CARD_FILE
    if card.parent.is_dir() and not card.is_file():
        return {}
    try:
        return kind.load(card if card.is_file() else source, ignore_metadata_errors=True).data.to_dict()
    except (OSError, EntryNotFoundError):
        return {}


def read_evaluation(
    results: Path, model: str, dataset: str | None, config: str | None = None, split: str = "test"
) -> Evaluation:
    """Read one model's entry of a results.json.

    Raises:
        ValueError: the model is not in it, it was asked with other prompts, or no data set is given.
    """
    kinds = {"models": MAPPING, "baselines": MAPPING, "prompt_version": TEXT, "questions": MAPPING}
    content = read_json(results, kinds, frozenset({"models", "baselines", "prompt_version"}))
    if model not in content["models"]:
        raise ValueError(
            f"{results} has no model {model!r}; it has {', '.join(content['models'])}: give --results_model"
        )
    if content["prompt_version"] != PROMPT_VERSION:
        raise ValueError(
            f"{results} was measured with prompts {content['prompt_version']}, not {PROMPT_VERSION}: answer and score again"
        )
    if not dataset:
        raise ValueError(f"{results}: give --evaluated_on, the Hub id of the data set that was answered")
    scores = dict.fromkeys(MEASURES, or_null(("a value with its interval", is_estimate)))
    counts = {"n_total": COUNT, "n_parsed": COUNT, "n_strong": or_null(COUNT)}
    check_fields(content["models"][model], {**scores, **counts}, f"{results}: model {model}", frozenset(counts))
    check_fields(content["baselines"], dict.fromkeys(content["baselines"], NUMBER), f"{results}: baselines")
    coverage = content.get("questions", {}).get("benchmark")
    return Evaluation(content["models"][model], content["baselines"], dataset, config, split, coverage)


def model_card(
    repo_id: str,
    records: list[dict[str, Any]],
    base: Base,
    model_type: str,
    licence: dict[str, str],
    languages: list[str],
    adapter: bool = False,
    revision: str | None = None,
    evaluation: Evaluation | None = None,
) -> ModelCard:
    """Fill in the card of a checkpoint.

    Args:
        records: see `run_records`.
        model_type: that of the checkpoint's config, or that of an adapter's base model.
        licence: from `base_licence`, or set by the publisher.
        languages: from `data_languages`, or set by the publisher.
        revision: branch that is pushed to, which the usage example then has.
    """
    family = FAMILIES[model_type]
    omni = "Thinker" in family.architecture
    whole = omni and not model_type.endswith("thinker") and not adapter
    metadata = _make_metadata(repo_id, records, base, licence, languages, adapter, whole, evaluation)
    weights = "whole model, the trained thinker in it" if whole else family.architecture
    text = fill_template(
        TEMPLATE,
        metadata=metadata.to_yaml(),
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        revision_argument=f'revision="{revision}", ' if revision else "",
        base=base,
        stages=[_describe_stage(each) for each in records],
        training=_make_training_table(records),
        weights="LoRA adapter" if adapter else weights,
        licence=licence.get("license_name") or licence.get("license"),
        adapter=adapter,
        omni=omni,
        whole=whole,
        architecture=family.architecture,
        prompt_version=PROMPT_VERSION,
        system_prompt=SYSTEM_PROMPT,
        question_template=QUESTION_TEMPLATE,
        system_literal=json.dumps(SYSTEM_PROMPT),
        question_literal=json.dumps(QUESTION_TEMPLATE),
        answer_tags=(ANSWER_OPEN, ANSWER_CLOSE),
        evaluation=evaluation,
        measures=MEASURES,
    )
    return ModelCard(text)


def _make_metadata(
    repo_id: str,
    records: list[dict[str, Any]],
    base: Base,
    licence: dict[str, Any],
    languages: list[str],
    adapter: bool,
    whole: bool,
    evaluation: Evaluation | None,
) -> ModelCardData:
    """Make the metadata of the card, its YAML head."""
    relation = "adapter" if adapter else "finetune"
    stages = [each["stage"] for each in records]
    return ModelCardData(
        **licence,
        language=languages or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="any-to-any" if whole else TASK,
        base_model=base.name if base.on_hub else None,
        base_model_relation=relation if base.on_hub else None,
        datasets=sorted({each["settings"]["dataset"] for each in records if each.get("dataset_commit")}) or None,
        tags=["audio", "audio-question-answering", "audiomcq", *stages, "trl", "arxiv:2509.21060"],
        metrics=["accuracy"] if evaluation else None,
        model_name=repo_id.split("/")[-1] if evaluation else None,
        eval_results=_make_model_index(evaluation) if evaluation else None,
    )


def eval_results_file(evaluation: Evaluation) -> str:
    """Format `.eval_results/audiomcq.yaml`: the accuracies that a leaderboard can list, as fractions.

    For a config of the data set that is only its accuracy, under the name of the config.
    """
    scores = evaluation.scores
    tasks = BENCHMARK_TASKS if evaluation.config in (None, "all") else {"accuracy": evaluation.config}
    missing = f", {evaluation.missing} questions without an answer count as wrong" if evaluation.missing else ""
    entries = []
    for measure, task in tasks.items():
        if scores[measure]:
            interval = f"95 % interval [{_format_interval(scores[measure])}] %"
            notes = f"{MEASURES[measure]}, {interval}, prompts {PROMPT_VERSION}{missing}"
            value = scores[measure]["value"]
            entries.append(EvalResultEntry(dataset_id=evaluation.dataset, task_id=task, value=value, notes=notes))
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def _make_model_index(evaluation: Evaluation) -> list[EvalResult]:
    """Make the card's `model-index`, which the Hub shows next to it."""
    common: dict[str, Any] = {
        "task_type": TASK,
        "task_name": "Multiple-choice questions about audio",
        "dataset_type": evaluation.dataset,
        "dataset_name": evaluation.part or evaluation.dataset.split("/")[-1],
        "dataset_config": evaluation.config,
        "dataset_split": evaluation.split,
    }
    found = []
    for measure, label in MEASURES.items():
        if estimate := evaluation.scores.get(measure):
            kind = "audio_gain" if "gain" in measure else "accuracy"
            found.append(EvalResult(**common, metric_type=kind, metric_name=label, metric_value=estimate["value"]))
    return found


def _format_interval(estimate: dict[str, Any]) -> str:
    """Format an interval in percent."""
    return f"{percent(estimate['interval']['low'])}, {percent(estimate['interval']['high'])}"


def _describe_stage(record: dict[str, Any]) -> dict[str, Any]:
    """Describe a stage of training: title, paradigm, and the trained parts."""
    settings = record["settings"]
    adapted = " with LoRA" if settings["use_peft"] else ""
    trained = [name for name, count in record["parameter_groups"].items() if count["trainable"]]
    return {
        **record,
        "title": _NAMES[record["stage"]] + adapted,
        "paradigm": settings["paradigm"],
        "trained": [name + adapted for name in trained],
    }


def _make_training_table(records: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Make the lines of the training table: a label and a cell per stage.

    They are data, steps, hyper-parameters, hardware and time.
    """
    table = [
        ("data", [_describe_data(each) for each in records]),
        ("rows", [_describe_rows(each) for each in records]),
        ("steps", [_format_cell(each["steps"]) for each in records]),
    ]
    for name in (*_HYPER_PARAMETERS, *(_LORA if any(each["settings"]["use_peft"] for each in records) else ())):
        cells = [_format_cell(each["settings"].get(name)) for each in records]
        if set(cells) != {MISSING}:
            table.append((f"`{name}`", cells))
    table.append(("hardware", [f"{each['processes']} x {each['device']}" for each in records]))
    table.append(("time", [f"{each['seconds']} s" for each in records]))
    return table


def _describe_data(record: dict[str, Any]) -> str:
    """Describe the data of a stage: the data set at its commit, or the name of a local folder."""
    settings = record["settings"]
    commit = record.get("dataset_commit")
    # Nobody else can load a folder of this machine, and its path is private
    name = f"{settings['dataset']} at `{commit}`" if commit else f"{Path(settings['dataset']).name} (local)"
    config = f", config `{settings['dataset_config']}`" if settings["dataset_config"] else ""
    return f"{name}{config}, split `{settings['dataset_split']}`"


def _describe_rows(record: dict[str, Any]) -> str:
    """Describe the rows of a stage by audio contribution."""
    parts = ", ".join(f"{count} {label}" for label, count in record["rows_by_contribution"].items())
    return f"{record['rows']} ({parts.replace('None', 'unlabelled')})"


def _format_cell(value: Any) -> str:
    """Format a setting as the cell of a table."""
    if value is None:
        return MISSING
    if isinstance(value, int | float):
        return str(value)
    # As code, since stars in a pattern would be Markdown; bars would end the cell
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "`{}`".format(text.replace("|", "\\|"))
