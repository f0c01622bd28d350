"""Options are read strictly: whatever a YAML file holds, the outcome is a valid config or one line that names file, key and value."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiomcq.arguments.contribution import ProbeArguments
from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.arguments.training import DataArguments
from audiomcq.configs import AudioSFTConfig
from audiomcq.errors import EXIT_CODE, UserErrorExit, exit_on_user_error
from audiomcq.options import _hints, parse, parse_stage, read_settings
from test_recipes import OPTIONS, ROOT, YAMLS, options_of

CPU = ["--use_cpu", "true", "--output_dir", "unused"]


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def wrong(file: Path, kind: type = ProbeArguments) -> str:
    with pytest.raises(ValueError) as error:
        parse((kind,), file, [])
    return str(error.value)


def test_a_file_holds_over_its_base_and_the_command_line_over_both(tmp_path: Path) -> None:
    (tmp_path / "sizes").mkdir()
    write(tmp_path, "voters: org/a\nenv: {A_OF_BASE: 1, A_OF_BOTH: 1}\n").rename(tmp_path / "lowest.yaml")
    write(tmp_path, "base: ../lowest.yaml\nbatch_size: 4\nmax_new_tokens: 5\n").rename(tmp_path / "sizes" / "low.yaml")
    file = write(tmp_path, "base: sizes/low.yaml\nbatch_size: 9\nenv: {A_OF_BOTH: 2}\n")
    (args,) = parse((ProbeArguments,), file, ["--max_new_tokens", "7"])
    assert (args.voters, args.batch_size, args.max_new_tokens) == (["org/a"], 9, 7)
    assert (os.environ.pop("A_OF_BASE"), os.environ.pop("A_OF_BOTH")) == ("1", "2")


def test_null_on_the_command_line_undoes_what_a_file_says(tmp_path: Path) -> None:
    file = write(tmp_path, "max_rows: 5\naudio_contribution: strong\naudio_root: clips\n")
    (args,) = parse(
        (DataArguments,), file, ["--max_rows", "null", "--audio_contribution", "null", "--audio_root=null"]
    )
    assert (args.max_rows, args.audio_contribution, args.audio_root) == (None, None, None)
    with pytest.raises(ValueError, match="invalid int value: 'five'"):
        parse((DataArguments,), file, ["--max_rows", "five"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("base: nowhere.yaml\n", "nowhere.yaml: no such file or folder"),
        ("base: 5\n", "base is 5, expected the path of another YAML file"),
        ("base: config.yaml\n", "its base leads back to"),
    ],
)
def test_a_base_that_is_none_is_named(content: str, says: str, tmp_path: Path) -> None:
    assert says in wrong(write(tmp_path, content))


def test_a_recipe_without_any_option_names_its_settings_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    script = ROOT / "recipes" / "contribution_filter" / "split.py"
    with pytest.raises(ValueError) as error:
        parse((ProbeArguments,), argv=[], settings=script)
    for size in ("paper", "tiny"):
        assert f"recipes/contribution_filter/{size}/split.yaml" in str(error.value)
    assert parse((ProbeArguments,), argv=["--batch_size", "3"], settings=script)[0].batch_size == 3


def test_one_line_says_which_settings_apply(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, script = write(tmp_path, "batch_size: 3\n"), tmp_path / "probe.py"
    for default, words, says in (
        (file, [], f"settings: {file}\n"),
        (None, [f"--config={file}"], f"settings: {file}\n"),
        (None, ["--mode=generate", "--config", str(file), "--voters", "a", "b"], f"settings: {file}, changed by --mode --voters\n"),
        (None, ["--voters", "a"], "settings: --voters of the command line and, for the rest, the defaults that --help lists (no --config)\n"),
    ):  # fmt: skip
        parse((ProbeArguments,), default, words, None if default else script)
        assert capsys.readouterr().err == says


def test_a_further_process_does_not_say_which_settings_apply(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RANK", "1")
    parse((ProbeArguments,), write(tmp_path, "batch_size: 3\n"), [])
    assert capsys.readouterr().err == ""


def test_an_installed_package_says_where_the_settings_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        parse((ProbeArguments,), argv=[], settings=tmp_path / "contribution_filter" / "split.py")
    assert "examples are recipes/contribution_filter/*/split.yaml of the repository" in str(error.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no settings: give --config and one of recipes/weak_to_strong/qwen2_5_omni_3b_lora/sft.yaml, "),
        (["--model_name_or_path", "org/m", *CPU], "dataset: name the rows to train; no settings: give --config"),
        (["--dataset", "my.jsonl", *CPU], "model_name_or_path: name the model to train; no settings: give --config"),
    ],
)
def test_training_takes_no_rows_and_no_model_that_nobody_named(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError) as error:
        parse_stage("sft", ROOT / "recipes" / "weak_to_strong" / "sft.py", words)
    assert str(error.value).startswith(says)


def test_a_recipe_says_its_paradigm_and_settings_may_say_another() -> None:
    words = ["--dataset", "my.jsonl", "--model_name_or_path", "org/m", *CPU]
    data, _, _ = parse_stage("sft", argv=words, paradigm="mixed_to_strong")
    assert (data.paradigm, data.audio_root) == ("mixed_to_strong", None)
    assert parse_stage("sft", argv=words)[0].paradigm == "single_stage"
    config = ["--config", str(ROOT / "recipes" / "single_stage" / "tiny" / "sft.yaml")]
    assert parse_stage("sft", argv=[*config, *words], paradigm="mixed_to_strong")[0].paradigm == "single_stage"


@pytest.mark.parametrize("words", [["--config", "FILE"], ["--config=FILE"]], ids=["two words", "one word"])
def test_a_config_is_named_in_either_way_and_the_command_line_wins(words: list[str], tmp_path: Path) -> None:
    file = write(tmp_path, "batch_size: 4\nmax_new_tokens: 5\nvoters: org/a\n")
    default = tmp_path / "default.yaml"
    (args,) = parse(
        (ProbeArguments,), default, [word.replace("FILE", str(file)) for word in words] + ["--batch_size", "7"]
    )
    assert (args.batch_size, args.max_new_tokens, args.voters) == (7, 5, ["org/a"])
    default.write_text("batch_size: 9\n")
    assert parse((ProbeArguments,), default, [])[0].batch_size == 9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config"], "--config needs a YAML file after it"),
        (["--config="], "--config needs a YAML file after it"),
        (["--config", "--batch_size", "3"], "--config needs a YAML file after it"),
        (["--config", "a.yaml", "--config=b.yaml"], "--config stands there twice; give one file"),
        (["--config", "nowhere.yaml"], "config nowhere.yaml: no such file or folder; check the path"),
        (["--config", "/"], "config /: Is a directory"),
        (["--batchsize", "3"], "unknown option 'batchsize' on the command line; did you mean batch_size?"),
        (["more"], "unknown option 'more' on the command line"),
        (["--batch_size", "three"], "argument --batch_size/--batch-size: invalid int value: 'three'"),
        (["--batch_size"], "expected one argument"),
    ],
)
def test_a_wrong_command_line_is_said_in_one_line(words: list[str], says: str) -> None:
    with pytest.raises(UserErrorExit) as end, exit_on_user_error():
        parse((ProbeArguments,), None, words)
    assert says in str(end.value) and "\n" not in str(end.value)
    assert end.value.code == EXIT_CODE == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("voters: [a\nbatch_size: 3\n", ", line 2, column 11: no valid YAML (expected ',' or ']', but got ':')"),
        ("batch_size:\t3\n\tx: 1", ", line 1, column 12: no valid YAML (found character '\\t'"),
        ("a: *nowhere", "no valid YAML (found undefined alias 'nowhere')"),
        ("!!python/object:os.system {}", "no valid YAML (could not determine a constructor"),
        ("dtype: 2020-13-45", "no valid YAML (month must be in 1..12)"),
        (b"dtype: \xff\xfe", "no valid YAML ('utf-8' codec can't decode"),
        ("dtype: \x07", "no valid YAML (unacceptable character"),
        ("[" * 400, "no valid YAML ("),
        ("batch_size: 3\nbatch_size: 4", ", line 2, column 1: no valid YAML (the key 'batch_size' stands there twice)"),
        ("", ": holds nothing, expected lines of `option: value`"),
        ("5", ": holds 5, expected lines"),
        ("- batch_size: 3", ": holds [{'batch_size': 3}], expected lines"),
        ("batchsize: 3", "unknown option 'batchsize' in {file}; did you mean batch_size?"),
        ("xyzzy: 3", "unknown option 'xyzzy' in {file}; leave it out"),
        ("5: 3", "unknown option 5 in {file}; leave it out"),
        ("batch_size: three", ": batch_size is 'three', expected a whole number"),
        ("batch_size: 3.5", ": batch_size is 3.5, expected a whole number"),
        ("batch_size: true", ": batch_size is True, expected a whole number"),
        ("batch_size:", ": batch_size is nothing, expected a whole number"),
        ("batch_size: [3]", ": batch_size is [3], expected a whole number"),
        ("flush_seconds: .nan", ": flush_seconds is nan, expected a number"),
        ("flush_seconds: {a: 1}", ": flush_seconds is {'a': 1}, expected a number"),
        ("dtype: 16", ": dtype is 16, expected a text; put it in quotes if it is meant as a text"),
        ("dataset_config: 2024-01-01", "expected a text or null; put it in quotes if it is meant as a text"),
        ("dtype: no", ": dtype is False, expected a text; put it in quotes"),
        ("voters: {a: 1}", ": voters is {'a': 1}, expected a list, each a text"),
        ("voters: [a, [b]]", ": voters is ['a', ['b']], expected a list, each a text"),
        ("voters: &x [*x]", ": voters is [[...]], expected a list, each a text"),
        ("env: 3", ": env is 3, not a mapping of names to values"),
        ("env: {1: x}", ": env 1: "),
        ("env: {'a=b': x}", ": env 'a=b': "),
        ("batch_size: 0", "batch_size 0: give at least 1"),
    ],
    ids=range(32),
)  # fmt: skip
def test_a_wrong_file_is_said_in_one_line_with_file_key_and_value(
    text: str | bytes, says: str, tmp_path: Path
) -> None:
    file = write(tmp_path, text)
    kind = AnswerArguments if text == "batch_size: 0" else ProbeArguments
    with pytest.raises(UserErrorExit) as end, exit_on_user_error():
        parse((kind,), file, [])
    assert says.replace("{file}", str(file)) in str(end.value)
    assert "\n" not in str(end.value)
    assert str(file) in str(end.value) or kind is AnswerArguments


def test_values_come_in_the_type_of_their_option(tmp_path: Path) -> None:
    text = """
    learning_rate: 1e-5
    max_steps: "7"
    logging_steps: 5.0
    gradient_checkpointing: "false"
    report_to: none
    lr_scheduler_type: cosine
    lr_scheduler_kwargs: {num_cycles: 2}
    train_modules: llm
    cot: structured
    eval_split: null
    env: {AUDIOMCQ_TEST_VARIABLE: 5}
    """
    with unchanged_environment():
        data, args = parse((DataArguments, AudioSFTConfig), write(tmp_path, text), CPU)
        assert os.environ["AUDIOMCQ_TEST_VARIABLE"] == "5"
    assert (args.learning_rate, args.max_steps, args.logging_steps) == (1e-5, 7, 5)
    assert (args.gradient_checkpointing, args.lr_scheduler_kwargs, args.train_modules) == (
        False,
        {"num_cycles": 2},
        ["llm"],
    )
    assert (args.cot, data.eval_split) == ("structured", None)


def test_what_the_libraries_refuse_is_said_in_one_line(tmp_path: Path) -> None:
    for text, says in (
        ("lr_scheduler_type: crooked", "crooked is not a valid SchedulerType"),
        ("cot: short", "cot is 'short', expected one of none, structured, unstructured"),
        ("save_strategy: no", "save_strategy is False, expected one of no, steps, epoch, best"),
        ("accelerator_config: {nonsense: 1}", "nonsense"),
        ("deepspeed: nowhere.json", "nowhere.json" if find_spec("deepspeed") else "deepspeed"),
    ):
        file = write(tmp_path, text)
        with pytest.raises(UserErrorExit) as end, exit_on_user_error(), unchanged_environment():
            parse((DataArguments, AudioSFTConfig), file, CPU)
        assert says in str(end.value) and "\n" not in str(end.value)


@contextmanager
def unchanged_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


ODD: list[Any] = [
    None, True, 0, -1, 10**30, 0.5, float("nan"), float("inf"), "", "no", "1e-5", "text", "\x00", "é" * 300, "{}", "a: b", "../..",
    [], [None], [[]], ["a", 1], [1.5], {}, {"a": 1}, {"a": {"b": [1]}}, {1: 2}, ["llm"] * 3, "http://u:s3cret@h/v1#m",
]  # fmt: skip
SCRAPS = [
    b":",
    b"{",
    b"]",
    b"\t",
    b"'",
    b"&a ",
    b"*a",
    b"!!python/name:os.system ",
    b"\xff",
    b"\x00",
    b"---\n",
    b"- ",
    b"# ",
    b"? ",
]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A shipped YAML with a few things wrong: values, keys, nesting or single bytes. With the name of its options."""
    path = draw(st.sampled_from(YAMLS))
    content = read_settings(path)
    known = sorted(_hints(OPTIONS[options_of(path)]))
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["value", "any option", "drop", "key", "nest"]))
        keys = [*content] or ["x"]
        if how in ("value", "any option"):
            content[draw(st.sampled_from(known if how == "any option" else keys))] = draw(st.sampled_from(ODD))
        elif how == "drop":
            content.pop(draw(st.sampled_from(keys)), None)
        elif how == "key":
            content[draw(st.sampled_from(["learning_rat", "config", "env", "self", "1", "-", "Ünknown"]))] = draw(
                st.sampled_from(ODD)
            )
        else:
            content = {draw(st.sampled_from(keys)): content}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from([*SCRAPS, b""])) + text[place + draw(st.integers(0, 2)) :]
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return options_of(path), text


def read_mutated(folder: Path, kind: str, text: bytes) -> bool:
    """Whether the options were valid; anything but one line and exit code 2 fails."""
    file = write(folder, text)
    words = CPU if len(OPTIONS[kind]) == 3 else []
    with unchanged_environment():
        try:
            with exit_on_user_error():
                assert len(parse(OPTIONS[kind], None, [f"--config={file}", *words])) == len(OPTIONS[kind])
        except UserErrorExit as end:
            line = str(end)
            assert line.startswith("error: ") and "\n" not in line and len(line) > len("error: ") + 10
            assert end.code == 2
            assert "s3cret" not in line
            return False
    return True


def fuzz(folder: Path, examples: int) -> None:
    outcomes = []

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutated())
    def every_outcome_is_a_config_or_one_line(case: tuple[str, bytes]) -> None:
        outcomes.append(read_mutated(folder, *case))

    every_outcome_is_a_config_or_one_line()
    assert True in outcomes and False in outcomes
    # Trainers of other tests in this process go on as if nothing had been
    parse((DataArguments, AudioSFTConfig), None, CPU)


def test_whatever_a_yaml_holds_the_outcome_is_a_config_or_one_line(tmp_path: Path) -> None:
    fuzz(tmp_path, 300)


@pytest.mark.check
def test_whatever_a_yaml_holds_the_outcome_is_a_config_or_one_line_a_thousand_times(tmp_path: Path) -> None:
    fuzz(tmp_path, 1000)
