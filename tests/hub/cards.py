"""What `/api/validate-yaml` says about the YAML head of a card: errors refuse it, warnings do not.

After the documented rules of the Hub (hub-docs, `datasetcard.md` and `modelcard.md`).
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
    grok2-community gemma unknown other
    """.split()  # noqa: SIM905 (a column of words reads better)
)
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "n>1T"}
PIPELINES = {
    *("audio-text-to-text", "any-to-any", "automatic-speech-recognition", "audio-classification", "text-generation"),
    *("question-answering", "multiple-choice", "image-text-to-text", "audio-to-audio", "text-to-speech", "other"),
}
RELATIONS = {"finetune", "adapter", "quantized", "merge"}


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
    if kind == "space" and data.get("sdk") not in ("gradio", "docker", "static"):
        errors.append('"sdk" must be one of gradio, docker, static')
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


def dataset_errors(data: dict):
    names = [config.get("config_name") for config in texts(data, "configs") if isinstance(config, dict)]
    if len(names) != len(texts(data, "configs")) or not all(isinstance(name, str) for name in names):
        yield '"configs" must be a list of mappings with a config_name'
    if len(set(names)) < len(names):
        yield '"configs" names a config twice'
    for config in texts(data, "configs"):
        for part in config.get("data_files") or [] if isinstance(config, dict) else []:
            if not isinstance(part, str) and not {"split", "path"} <= set(part):
                yield f'"data_files" of {config.get("config_name")} need split and path'


def model_errors(data: dict):
    if "pipeline_tag" in data and data["pipeline_tag"] not in PIPELINES:
        yield f'"pipeline_tag" {data["pipeline_tag"]!r} is unknown'
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        yield f'"base_model_relation" must be one of {", ".join(sorted(RELATIONS))}'
    for entry in texts(data, "model-index"):
        if not isinstance(entry, dict) or not entry.get("name"):
            yield '"model-index" entries need a name'
            continue
        for result in entry.get("results") or []:
            for part, keys in (("task", {"type"}), ("dataset", {"type", "name"})):
                if not keys <= set(result.get(part) or {}):
                    yield f'"model-index" results need {part} with {", ".join(sorted(keys))}'
            for metric in result.get("metrics") or [{}]:
                if not {"type", "value"} <= set(metric):
                    yield '"model-index" metrics need type and value'
