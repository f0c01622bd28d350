"""The benchmarks: where their questions and clips are, how their rows read, how they ask and how they score.

Names are long where two sets share one: `mmsu-2506.04779` is not VoiceBench's "mmsu". `items.py` loads them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audiomcq.evaluation.official import (
    ScoringRule,
    Submit,
    letter_rule,
    printed_option_rule,
    same_text_rule,
    strip_prefix,
    submit_letter,
    submit_option,
    token_set_rule,
    unprefixed_option_rule,
)
from audiomcq.evaluation.sakura import split_line
from audiomcq.evaluation.versions import MMAR_VERSIONS, MMAU_TEST_MINI_VERSIONS, SAKURA_VERSIONS
from audiomcq.examples import CONTRIBUTION
from audiomcq.prompts import AUDIOMCQ_STYLE, MMSU_STYLE, PromptStyle

Read = Callable[[dict[str, Any]], dict[str, Any]]
"""Convert one line of a benchmark's own file: to id, type, question, choices, answer, audio (a path or a list of several, if
given), groups. An item without choices is no multiple-choice question."""
Unfold = Callable[[dict[str, Any], str], list[dict[str, Any]]]
"""Make a line with several questions about one clip into a line for each, given the name of its folder or Hub table."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as data.

    Attributes:
        name: its name in YAML files, columns and results.
        title: its name in tables, followed by its version.
        hub_id: its repository on the Hub.
        questions: glob of the question files in that repository; None where the Hub has a table with the audio in it.
        split: split of the table.
        read: converts one line of its question file or table to our columns.
        rule: its official scoring rule; None where it cannot be computed here: it needs a model that judges or embeds.
        submit: derives the text to submit from an answer.
        official_prompt: the prompt it publishes, None where it publishes none. Ours (`audiomcq`) asks for the option's
            text.
        n_items: published items, None where the number is not known.
        has_gold: False where the answers are withheld: export and submit.
        average_over: the group over whose parts the official accuracy is averaged.
        defects: known problems of its data, in addition to those of its rule.
        versions: names of the known versions of its question file by `content_fingerprint`; empty where no complete
            file has been seen.
        tables: its repositories on the Hub, where it has several; each has a table with the audio in it, and
            `questions` is the layout of its files elsewhere.
        unfold: makes a line of its file into the items that `read` converts.
    """

    name: str
    title: str
    hub_id: str
    read: Read
    rule: ScoringRule | None
    licence: str
    citation: str
    submit: Submit = submit_option
    questions: str | None = None
    split: str = "test"
    official_prompt: PromptStyle | None = None
    n_items: int | None = None
    has_gold: bool = True
    average_over: str | None = None
    defects: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    unfold: Unfold = lambda raw, where: [raw]

    def prompt(self, official: bool = False) -> PromptStyle:
        """Return the benchmark's own prompt, or ours.

        Raises:
            ValueError: the benchmark's own prompt is requested and it publishes none.
        """
        if not official:
            return AUDIOMCQ_STYLE
        if self.official_prompt is None:
            raise ValueError(f"{self.title} publishes no prompt: leave the official prompt off, ours is used")
        return self.official_prompt


def _read_mmau(raw: dict[str, Any]) -> dict[str, Any]:
    if "other_attributes" in raw:  # the Hub's table: other names, and a letter printed before each option
        choices = [strip_prefix(choice) for choice in raw["choices"]]
        raw = {**json.loads(raw["other_attributes"]), **raw, "question": raw["instruction"], "choices": choices}
        raw["answer"] = strip_prefix(raw.get("answer") or "")
    names = {"category": "category", "sub_category": "sub-category", "difficulty": "difficulty", "source": "dataset"}
    return {
        "id": raw["id"],
        "type": raw["task"],
        "question": raw["question"],
        "choices": raw["choices"],
        "answer": raw.get("answer"),
        "audio": raw.get("audio_id"),
        "groups": {name: raw.get(column) for name, column in names.items()},
    }


def _read_mmar(raw: dict[str, Any]) -> dict[str, Any]:
    groups = {name: raw.get(name.replace("_", "-")) for name in ("category", "sub_category", "language", "source")}
    common = {name: raw[name] for name in ("id", "question", "choices", "answer")}
    return common | {"type": raw["modality"], "audio": raw["audio_path"], "groups": groups}


def _read_mmsu(raw: dict[str, Any]) -> dict[str, Any]:
    names = ("category", "sub_category", "sub_sub_category", "task_name", "linguistics_sub_discipline")
    return {
        "id": raw["id"],
        "type": "speech",
        "question": raw["question"],
        "choices": [raw[f"choice_{letter}"] for letter in "abcd" if raw.get(f"choice_{letter}")],
        "answer": raw["answer_gt"],
        "audio": raw.get("audio_path"),
        "groups": {name: raw.get(name, raw.get(name.replace("_", "-"))) for name in names},
    }


def _read_dcase2025(raw: dict[str, Any]) -> dict[str, Any]:
    # The file names no subset; each subset's clips have names of their own
    clip = Path(raw["audio_url"]).name
    subset = "TSQA" if clip.startswith("fold") else "CQA" if clip.startswith("audio") else "BQA"
    common = {name: raw[name] for name in ("id", "question", "answer")}
    groups = {"subset": subset, "question_type": raw.get("question_type")}
    return common | {"choices": raw["choice"], "type": subset, "audio": raw["audio_url"], "groups": groups}


def _read_dcase2026(raw: dict[str, Any]) -> dict[str, Any]:
    common = {"id": raw["id"], "question": raw["question_text"], "choices": raw["multi_choice"]}
    return common | {"answer": raw.get("answer"), "type": "audio", "audio": raw["audio_path"], "groups": {}}


_NOT_CHOICE = ("open", "instruction following")
"""Categories of MMAU-Pro that its program scores by a judge and by rules of their own, whatever stands among the choices."""


def _read_mmau_pro(raw: dict[str, Any]) -> dict[str, Any]:
    clips, choices = [path for path in raw["audio_path"] if path], raw["choices"] or []
    # As its program does: one choice is none
    asked = len(choices) > 1 and raw["category"] not in _NOT_CHOICE
    groups = {"clips": str(len(clips)), "length": raw.get("length_type"), "sub_category": raw.get("sub-cat")}
    common = {name: raw[name] for name in ("id", "question", "answer")}
    return common | {
        "type": raw["category"],
        "choices": choices if asked else [],
        "audio": clips,
        "groups": groups,
    }


def _read_sakura(raw: dict[str, Any]) -> dict[str, Any]:
    common = {name: raw[name] for name in ("id", "question", "choices", "answer")}
    groups = {"hop": raw["hop"], "attribute_label": raw["attribute_label"]}
    return common | {"type": raw["track"], "audio": f"audio/{raw['file']}", "groups": groups}


def _read_audiomcq(raw: dict[str, Any]) -> dict[str, Any]:
    common = {name: raw[name] for name in ("id", "source_dataset", "question", "choices", "answer")}
    groups = {"source": raw["source_dataset"], "audio_contribution": raw.get(CONTRIBUTION)}
    return common | {"type": raw["question_type"], "groups": groups}


MMAU_TEST_MINI = Benchmark(
    name="mmau-test-mini",
    title="MMAU test-mini",
    hub_id="gamma-lab-umd/MMAU-test-mini",
    read=_read_mmau,
    rule=token_set_rule,
    licence="CC-BY-NC-4.0 (questions and clips), Apache-2.0 (code)",
    citation="Sakshi et al., MMAU: A Massive Multi-Task Audio Understanding and Reasoning Benchmark, arXiv 2410.19168",
    n_items=1000,
    defects=(
        "gold positions are skewed and gold answers long: see always first and longest beside random",
        "the file was revised 16 times; scores on files of different content are not comparable",
    ),
    versions=MMAU_TEST_MINI_VERSIONS,
)
MMAU_TEST = replace(
    MMAU_TEST_MINI,
    name="mmau-test",
    title="MMAU test",
    hub_id="gamma-lab-umd/MMAU-test",
    licence="MIT (questions and clips), Apache-2.0 (code)",
    n_items=9000,
    has_gold=False,
    defects=("the answers are withheld: submit the export to the organisers' Space sonalkum/MMAU-Eval",),
    versions={},
)
MMAR = Benchmark(
    name="mmar",
    title="MMAR",
    hub_id="BoJack/MMAR",
    questions="MMAR-meta.json*",
    read=_read_mmar,
    rule=token_set_rule,
    licence="CC-BY-NC-4.0",
    citation="Ma et al., MMAR: A Challenging Benchmark for Deep Reasoning in Speech, Audio, Music, and Their Mix, "
    "arXiv 2505.13032",
    n_items=1000,
    defects=("clips are cut from videos, some are gone: an incomplete download is not the MMAR score",),
    versions=MMAR_VERSIONS,
)
MMSU = Benchmark(
    name="mmsu-2506.04779",
    title="MMSU (arXiv 2506.04779)",
    hub_id="ddwang2000/MMSU",
    split="train",
    read=_read_mmsu,
    rule=letter_rule,
    submit=submit_letter,
    official_prompt=MMSU_STYLE,
    licence="MIT",
    citation="Wang et al., MMSU: A Massive Multi-task Spoken Language Understanding and Reasoning Benchmark, arXiv 2506.04779",
    n_items=5000,
    defects=(
        "VoiceBench has another set that it calls mmsu",
        "options that are permutations of each other: scores made with a token-set rule are void (AudioMCQ, April 2026)",
    ),
)
MMAU_PRO = Benchmark(
    name="mmau-pro",
    title="MMAU-Pro, multiple choice",
    hub_id="gamma-lab-umd/MMAU-Pro",
    questions="test*.parquet",
    read=_read_mmau_pro,
    rule=None,
    licence="CC-BY-NC-4.0",
    citation="Kumar et al., MMAU-Pro: A Challenging and Comprehensive Benchmark for Holistic Evaluation of Audio General "
    "Intelligence, arXiv 2508.13992",
    n_items=5305,
    defects=(
        "official: not reproduced because the organisers' program takes the option whose NV-Embed-v2 embedding is nearest to the "
        "completion, and so never counts an answer as unreadable (sonalkum/MMAUPro@2269762)",
        "open-ended and instruction-following items are set aside: the organisers score them by a judge model and by rules about the "
        "form of a text, and their overall figure has them in it",
        "spatial items are heard in mono: channels are averaged for every model here",
    ),
)
DCASE2025_TASK5 = Benchmark(
    name="dcase2025-task5",
    title="DCASE 2025 Task 5",
    hub_id="PeacefulData/2025_DCASE_AudioQA_Official",
    questions="**/*dev*/**/*.json*",
    read=_read_dcase2025,
    rule=printed_option_rule,
    licence="MIT (questions); the clips' own licences apply",
    citation="Yang et al., Multi-Domain Audio Question Answering Toward Acoustic Content Reasoning in The DCASE 2025 Challenge, "
    "arXiv 2505.07365",
    average_over="subset",
    defects=(
        "the repository is gated and its layout was not seen: where its question files are not found, name one as the source",
        "the number of items per subset is not known here, so that a partly loaded set cannot be told from the whole",
    ),
)
DCASE2026_TASK5_DEV = Benchmark(
    name="dcase2026-task5-dev",
    title="DCASE 2026 Task 5 dev",
    hub_id="Harland/DCASE2026-Task5-DevSet",
    questions="dev.jsonl",
    read=_read_dcase2026,
    rule=unprefixed_option_rule,
    licence="Apache-2.0",
    citation="DCASE 2026 Task 5, Audio-Dependent Question Answering, arXiv 2607.18718",
    n_items=1607,
    defects=("30 clips are also in MMAU test-mini; some questions come from MMAU, MMAR and MMSU",),
)
DCASE2026_TASK5_EVAL = replace(
    DCASE2026_TASK5_DEV,
    name="dcase2026-task5-eval",
    title="DCASE 2026 Task 5 eval",
    hub_id="Harland/ADQA-Bench",
    questions="eval-noanswer.jsonl",
    n_items=3000,
    has_gold=False,
    defects=("the answers are withheld: submit the export to the organisers",),
)
SAKURA = Benchmark(
    name="sakura",
    title="SAKURA",
    hub_id="SLLM-multi-hop",
    tables=tuple(f"SLLM-multi-hop/{track}QA" for track in ("Animal", "Emotion", "Gender", "Language")),
    questions="**/metadata.csv",
    read=_read_sakura,
    unfold=split_line,
    rule=None,
    licence="none stated (questions and clips)",
    citation="Yang et al., SAKURA: On the Multi-hop Reasoning of Large Audio-Language Models Based on Speech and Audio "
    "Information, arXiv 2505.13237",
    n_items=4000,
    defects=(
        "the official score is the judgement of a language model (gpt-4o-2024-11-20, whose reading of an answer changes "
        "with the model and its prompt), so that there is no official accuracy here; strict accuracy reads the chosen option",
        "the tables on the Hub were not seen; their columns are taken to be those of metadata.csv, with an audio column",
    ),
    versions=SAKURA_VERSIONS,
)
AUDIOMCQ_ROWS = Benchmark(
    name="audiomcq-rows",
    title="rows of one's own",
    hub_id="",
    read=_read_audiomcq,
    rule=same_text_rule,
    licence="that of the rows",
    citation="He et al., Measuring Audio's Impact on Correctness, arXiv 2509.21060",
)

_ALL = (
    MMAU_TEST_MINI,
    MMAU_TEST,
    MMAR,
    MMSU,
    MMAU_PRO,
    DCASE2025_TASK5,
    DCASE2026_TASK5_DEV,
    DCASE2026_TASK5_EVAL,
    SAKURA,
    AUDIOMCQ_ROWS,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark:
    """Find a benchmark by its name.

    Raises:
        ValueError: there is none; the known ones are listed with their titles, since names such as "mmsu" are used
            twice.
    """
    if name not in BENCHMARKS:
        known = "; ".join(f"{benchmark.name} = {benchmark.title}" for benchmark in BENCHMARKS.values())
        raise ValueError(f"no benchmark {name!r}. Known: {known}")
    return BENCHMARKS[name]
