"""What the Hub says about YAML: the head of a card (`/api/validate-yaml`; errors refuse it, warnings do not) and evaluation files.

After the documented rules of the Hub (hub-docs: `datasetcard.md`, `modelcard.md`, `spaces-config-reference.md`, `eval-results.md`)
and its public lists (huggingface.js: `pipelines.ts`, `eval.ts`).
"""

import re

import yaml

LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
    cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c
    ms-pl mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma apple-amlr apple-ascl open-mdw unknown other
    """.split()  # noqa: SIM905 (a column of words reads better)
)
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "n>1T"}
PIPELINES = frozenset(
    """
    biology text-classification token-classification table-question-answering question-answering zero-shot-classification
    translation summarization feature-extraction text-generation text2text-generation fill-mask sentence-similarity
    text-to-speech text-to-audio automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text
    voice-activity-detection depth-estimation image-classification object-detection image-segmentation text-to-image
    image-to-text image-to-image image-to-video unconditional-image-generation video-classification reinforcement-learning
    robotics tabular-classification tabular-regression tabular-to-text table-to-text multiple-choice text-ranking
    text-retrieval time-series-forecasting text-to-video image-text-to-text image-text-to-image image-text-to-video
    visual-question-answering document-question-answering zero-shot-image-classification graph-ml mask-generation
    zero-shot-object-detection text-to-3d image-to-3d image-feature-extraction video-text-to-text video-to-video
    keypoint-detection visual-document-retrieval any-to-any other
    """.split()  # noqa: SIM905
)
RELATIONS = {"finetune", "adapter", "quantized", "merge"}
FRAMEWORKS = frozenset(
    """
    exgentic inspect-ai math-arena mteb olmocr-bench harbor archipelago apex-evals screenspot-pro swe-bench swe-bench-pro
    nemo-evaluator yc-bench open-asr-leaderboard mdpbench parsebench video-mme-v2 claw-eval wildclawbench
    """.split()  # noqa: SIM905
)
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SPACE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "title": str, "emoji": str, "sdk_version": (str, int, float), "python_version": (str, int, float), "app_file": str,
    "app_port": int, "base_path": str, "fullWidth": bool, "header": str, "short_description": str, "pinned": bool,
    "models": list, "datasets": list, "tags": list, "suggested_hardware": str, "custom_headers": dict, "preload_from_hub": list,
}  # fmt: skip


def front_matter(content: str) -> tuple[dict | None, str | None]:
    """The YAML head of a card, or what is wrong with it. A card without one has none of either."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
    if not match:
        return None, None
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return None, f"Invalid YAML: {error}"
    return (data, None) if isinstance(data, dict) else (None, "the metadata is not a mapping")


def card_problems(kind: str, content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card of a "model", "dataset" or "space"."""
    data, broken = front_matter(content)
    if broken:
        return [broken], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    errors, warnings = list(common_errors(data)), []
    if "licence" in data:
        warnings.append('"licence" is not a key of cards, did you mean "license"?')
    if kind == "dataset":
        errors += dataset_errors(data)
        warnings += [
            f'"size_categories": {size!r} is unknown' for size in texts(data, "size_categories") if size not in SIZES
        ]
    if kind == "model":
        errors += model_errors(data)
    if kind == "space":
        errors += space_errors(data)
    return errors, warnings


def texts(data: dict, key: str) -> list:
    value = data.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


def common_errors(data: dict):
    for name in texts(data, "license"):
        if name not in LICENSES:
            yield f'"license" must be one of the known licences, not {name!r}'
    if data.get("license") == "other" and not data.get("license_name"):
        yield '"license_name" is required where "license" is other'
    for key in ("tags", "language", "datasets", "base_model", "task_categories", "metrics"):
        if not all(isinstance(value, str) and value for value in texts(data, key)):
            yield f'"{key}" must be a string or a list of strings'
    for code in texts(data, "language"):
        if isinstance(code, str) and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual", code):
            yield f'"language" must be ISO 639 codes, not {code!r}'
    for key in ("datasets", "base_model"):
        for repo_id in texts(data, key):
            if isinstance(repo_id, str) and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo_id):
                yield f'"{key}": {repo_id!r} is not the id of a repository'


def space_errors(data: dict):
    if data.get("sdk") not in ("gradio", "docker", "static"):
        yield '"sdk" must be one of gradio, docker, static'
    for key, kind in SPACE_FIELDS.items():
        if key in data and (not isinstance(data[key], kind) or (isinstance(data[key], bool) and kind is not bool)):
            yield f'"{key}" of a Space has the wrong type: {data[key]!r}'
    for key in ("colorFrom", "colorTo"):
        if data.get(key, "red") not in COLOURS:
            yield f'"{key}" must be one of {", ".join(sorted(COLOURS))}'
    if len(str(data.get("short_description") or "")) > 60:
        yield '"short_description" must have at most 60 characters'
    if re.search(r"\w", str(data.get("emoji") or "")):
        yield '"emoji" must be an emoji'


def dataset_errors(data: dict):
    configs, infos = data.get("configs", []), data.get("dataset_info", [])
    if not isinstance(configs, list) or not all(
        isinstance(c, dict) and isinstance(c.get("config_name"), str) for c in configs
    ):
        yield '"configs" must be a list of mappings with a config_name'
        return
    names = [config["config_name"] for config in configs]
    if len(set(names)) < len(names):
        yield '"configs" names a config twice'
    if sum(config.get("default") is True for config in configs) > 1:
        yield '"configs" has more than one default'
    for config in configs:
        yield from data_files_errors(config)
    for info in infos if isinstance(infos, list) else [infos]:
        yield from info_errors(info)


def data_files_errors(config: dict):
    files = config.get("data_files", [])
    for part in files if isinstance(files, list) else [files]:
        paths = part.get("path") if isinstance(part, dict) and isinstance(part.get("split"), str) else part
        if not all(
            isinstance(path, str) and path for path in (paths if isinstance(paths, list) and paths else [paths])
        ):
            yield f'"data_files" of {config["config_name"]} need split and path'


def info_errors(info: object):
    """Features are a list of named mappings (or absent), splits a list with names and numbers."""
    if not isinstance(info, dict):
        yield '"dataset_info" must be a mapping or a list of mappings'
        return
    features, splits = info.get("features", []), info.get("splits", [])
    if not isinstance(features, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in features
    ):
        yield '"dataset_info" features must be a list of mappings with a name'
    if not isinstance(splits, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in splits
    ):
        yield '"dataset_info" splits must be a list of mappings with a name'
        return
    for split in splits:
        if not all(isinstance(split.get(key, 0), int) for key in ("num_bytes", "num_examples")):
            yield f'"dataset_info" sizes of {split["name"]} must be numbers'


def model_errors(data: dict):
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINES:
        yield f'"pipeline_tag" {data["pipeline_tag"]!r} is unknown'
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        yield f'"base_model_relation" must be one of {", ".join(sorted(RELATIONS))}'
    index = data.get("model-index", [])
    if not isinstance(index, list):
        yield '"model-index" must be a list'
        return
    for entry in index:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            yield '"model-index" entries need a name'
        elif not isinstance(entry.get("results"), list):
            yield '"model-index" entries need a list of results'
        else:
            for result in entry["results"]:
                yield from result_errors(result)


def result_errors(result: object):
    if not isinstance(result, dict):
        yield '"model-index" results must be mappings'
        return
    for part, keys in (("task", ("type",)), ("dataset", ("type", "name"))):
        if not all(isinstance((result.get(part) or {}).get(key), str) for key in keys):
            yield f'"model-index" results need {part} with {", ".join(sorted(keys))}'
    metrics = result.get("metrics")
    for metric in metrics if isinstance(metrics, list) and metrics else [{}]:
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str) or metric.get("value") is None:
            yield '"model-index" metrics need type and value'
    nulls = [
        f"{part}.{key}"
        for part in ("task", "dataset")
        for key, value in (result.get(part) or {}).items()
        if value is None
    ]
    if nulls:
        yield f'"model-index": {nulls[0]} must not be null'


def evaluation_problems(kind: str, path: str, content: str) -> list[str]:
    """Errors in eval.yaml of a data set and in the .eval_results of a model; none of other files."""
    benchmark = kind == "dataset" and path == "eval.yaml"
    if not benchmark and not (kind == "model" and re.fullmatch(r"\.eval_results/[^/]+\.ya?ml", path)):
        return []
    try:
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        return [f"Invalid YAML in {path}: {error}"]
    return list(benchmark_errors(data) if benchmark else eval_result_errors(data))


def benchmark_errors(data: object):
    if not isinstance(data, dict):
        yield "eval.yaml must be a mapping"
        return
    for key in ("name", "description"):
        if not isinstance(data.get(key), str) or not data[key]:
            yield f"Invalid input at {key}"
    if data.get("evaluation_framework") not in FRAMEWORKS:
        yield "Invalid input at evaluation_framework"
    tasks = data.get("tasks")
    if (
        not isinstance(tasks, list)
        or not tasks
        or not all(isinstance(t, dict) and isinstance(t.get("id"), str) for t in tasks)
    ):
        yield "Invalid input at tasks"


def eval_result_errors(data: object):
    if not isinstance(data, list) or not data:
        yield "evaluation results must be a list"
        return
    for place, entry in enumerate(data):
        dataset, source = (entry.get(key) if isinstance(entry, dict) else None for key in ("dataset", "source"))
        if not isinstance(dataset, dict) or not all(isinstance(dataset.get(key), str) for key in ("id", "task_id")):
            yield f"Invalid input at {place}.dataset"
            continue
        if not isinstance(entry.get("value"), int | float) or isinstance(entry["value"], bool):
            yield f"Invalid input at {place}.value"
        if not isinstance(entry.get("date", ""), str) or not re.fullmatch(
            r"(\d{4}-\d{2}-\d{2}.*)?", entry.get("date", "")
        ):
            yield f"Invalid input at {place}.date"
        if source is not None and not (isinstance(source, dict) and str(source.get("url", "")).startswith("http")):
            yield f"Invalid input at {place}.source"
