"""Fill in a model's card from the records of its runs (run.json) and its scores (results.json). No number is typed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from audiomcq.models import FAMILIES
from audiomcq.prompts import ANSWER_CLOSE, ANSWER_OPEN, PROMPT_VERSION, QUESTION_TEMPLATE, SYSTEM_PROMPT
from audiomcq.publishing.base import Base, Licence
from audiomcq.publishing.example import Example
from audiomcq.publishing.model_scores import MEASURES, TASK, Evaluation, make_model_index
from audiomcq.templating import MISSING, fill_template

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_HYPER_PARAMETERS = (
    "max_rows",
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
class CardFacts:
    """What a card is filled in from, besides the options and the repository.

    Attributes:
        records: see `run_records`.
        model_type: that of the checkpoint's config, or that of an adapter's base model.
        languages, datasets: ISO 639 codes and Hub ids of the data.
        adapters: number of LoRA adapters that are published as one; 0 for plain weights.
        revision: branch that is pushed to, which the usage example then has.
        figure: name of the file with the figure of the results.
    """

    repo_id: str
    records: Sequence[Mapping[str, Any]]
    base: Base
    model_type: str
    licence: Licence
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()
    adapters: int = 0
    revision: str | None = None
    evaluation: Evaluation | None = None
    figure: str | None = None
    example: Example | None = None
    contact: str = ""
    architecture: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", FAMILIES[self.model_type].architecture)

    @property
    def omni(self) -> bool:
        """Whether the architecture is the thinker of an Omni model."""
        return "Thinker" in self.architecture

    @property
    def whole(self) -> bool:
        """Whether it is a whole Omni model, with talker and vocoder."""
        return self.omni and not self.model_type.endswith("thinker") and not self.adapters


def model_card(facts: CardFacts) -> ModelCard:
    """Fill in the card of a checkpoint."""
    kind = "whole model, the trained thinker in it" if facts.whole else facts.architecture
    joined = f", of {facts.adapters} stages added up" if facts.adapters > 1 else ""
    licence = facts.licence.metadata
    counts = facts.records[-1]["parameter_groups"].values()
    text = fill_template(
        TEMPLATE,
        metadata=_make_metadata(facts).to_yaml(),
        name=facts.repo_id.split("/")[-1],
        facts=facts,
        revision_argument=f'revision="{facts.revision}", ' if facts.revision else "",
        stages=[_describe_stage(each) for each in facts.records],
        models=[_describe_model(each, facts) for each in facts.records],
        training=_make_training_table(facts.records),
        weights=f"LoRA adapter{joined}" if facts.adapters else kind,
        licence=licence.get("license_name") or licence.get("license"),
        parameters=sum(each["parameters"] for each in counts),
        prompt_version=PROMPT_VERSION,
        system_prompt=SYSTEM_PROMPT,
        question_template=QUESTION_TEMPLATE,
        system_literal=json.dumps(SYSTEM_PROMPT),
        question_literal=json.dumps(QUESTION_TEMPLATE),
        answer_tags=(ANSWER_OPEN, ANSWER_CLOSE),
        measures=MEASURES,
    )
    return ModelCard(text)


def _make_metadata(facts: CardFacts) -> ModelCardData:
    """Make the metadata of the card, its YAML head."""
    licence: dict[str, Any] = facts.licence.metadata
    lora = ["lora"] if any(each["settings"]["use_peft"] for each in facts.records) else []
    relation = "adapter" if facts.adapters else "finetune"
    datasets = {each["settings"]["dataset"] for each in facts.records if each.get("dataset_commit")}
    return ModelCardData(
        **licence,
        language=list(facts.languages) or None,
        library_name="peft" if facts.adapters else "transformers",
        pipeline_tag="any-to-any" if facts.whole else TASK,
        base_model=facts.base.name if facts.base.on_hub else None,
        base_model_relation=relation if facts.base.on_hub else None,
        datasets=sorted(datasets | set(facts.datasets)) or None,
        tags=[
            *(
                "audio",
                "audio-question-answering",
                "audiomcq",
                *dict.fromkeys(each["stage"] for each in facts.records),
            ),
            *(*lora, "trl", "arxiv:2509.21060"),
        ],
        metrics=["accuracy"] if facts.evaluation else None,
        model_name=facts.repo_id.split("/")[-1] if facts.evaluation else None,
        eval_results=make_model_index(facts.evaluation) if facts.evaluation else None,
    )


def _describe_model(record: Mapping[str, Any], facts: CardFacts) -> tuple[str, str]:
    """Describe where the model of a stage is: here, in the repository that its run names, or nowhere."""
    published = record.get("published") or {}
    if record is facts.records[-1]:
        return record["stage"], "this repository"
    if not published:
        return record["stage"], "not published by itself"
    branch = f", branch `{published['revision']}`" if published.get("revision") else ""
    return record["stage"], f"[{published['repo_id']}](https://huggingface.co/{published['repo_id']}){branch}"


def _describe_stage(record: Mapping[str, Any]) -> dict[str, Any]:
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


def _make_training_table(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
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


def _describe_data(record: Mapping[str, Any]) -> str:
    """Describe the data of a stage: the data set at its commit, or the name of a local folder."""
    settings = record["settings"]
    commit = record.get("dataset_commit")
    # Nobody else can load a folder of this machine, and its path is private
    name = f"{settings['dataset']} at `{commit}`" if commit else f"{Path(settings['dataset']).name} (local)"
    config = f", config `{settings['dataset_config']}`" if settings["dataset_config"] else ""
    return f"{name}{config}, split `{settings['dataset_split']}`"


def _describe_rows(record: Mapping[str, Any]) -> str:
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
