"""A model is published by its run and comes back, over real HTTP and in fresh processes, with the stock classes and its card's usage."""

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Qwen2_5OmniThinkerForConditionalGeneration

from audiomcq import sft
from audiomcq.audio import SAMPLE_RATE
from audiomcq.collation import PromptEncoder, audio_batch
from audiomcq.models import PROCESSOR_FILES, load_lalm
from audiomcq.options import parse_stage
from audiomcq.publishing.model import PublishModelArguments, publish_model
from hub.other import open_hub
from hub.server import Hub
from small_runs import write_results

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
SMALL = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "use_cpu": "true",
    "disable_tqdm": "true",
    "warmup_steps": 0,
}
LORA = {"use_peft": "true", "lora_r": 4, "lora_target_modules": r".*language_model.*\.(q_proj|v_proj)"}

PREPARE = """
import sys
from huggingface_hub import HfApi
from audiomcq.datasets import load_rows
model, rows = sys.argv[1:]
api = HfApi()
api.create_repo("org/base")
api.upload_folder(repo_id="org/base", folder_path=model)
head = b"---\\nlicense: other\\nlicense_name: tiny-research\\nlicense_link: LICENSE\\n---\\n# Base"
api.upload_file(repo_id="org/base", path_in_repo="README.md", path_or_fileobj=head)
api.upload_file(repo_id="org/base", path_in_repo="LICENSE", path_or_fileobj=b"The terms of tiny.")
load_rows(rows).push_to_hub("org/tones")
"""

# What the processor needs of torchvision when there is no image, and what process_mm_info gives for one audio path.
STAND_INS = {
    "torchvision": {
        "torchvision/__init__.py": "__version__ = '0.28.0'",
        "torchvision/io.py": "ImageReadMode = decode_image = None",
        "torchvision/transforms/__init__.py": "from enum import Enum\nInterpolationMode = Enum('InterpolationMode', "
        "'NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS')",
        "torchvision/transforms/functional.py": "pil_to_tensor = None",
        "torchvision/transforms/v2/__init__.py": "",
        "torchvision/transforms/v2/functional.py": "",
    },
    "qwen_omni_utils": {
        "qwen_omni_utils/__init__.py": """
import soundfile
def process_mm_info(conversation, use_audio_in_video):
    parts = [part for message in conversation for part in message["content"] if part["type"] == "audio"]
    return [soundfile.read(part["audio"], dtype="float32")[0] for part in parts], None, None
"""
    },
}

LOAD = """
import contextlib, hashlib, importlib.util, io, json, os, re, sys
sys.modules["audiomcq"] = None  # importing it is now an error
folder, *repos = sys.argv[1:]
os.chdir(folder)
sys.path += [f"stand_ins/{name}" for name in ("torchvision", "qwen_omni_utils") if importlib.util.find_spec(name) is None]
from huggingface_hub import ModelCard
answers, sums = {}, {}
for repo in repos:
    code = "\\n".join(re.findall(r"```python\\n(.*?)```", ModelCard.load(repo).text, re.DOTALL))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, scope := {})
    answers[repo] = printed.getvalue()
    model = scope["model"]
    state = model.state_dict()
    sums[repo] = [(name, hashlib.sha256(state[name].contiguous().numpy().tobytes()).hexdigest()) for name in sorted(state)]
print(json.dumps([answers, sums]))
"""
PUBLISH_MORE = """
import sys
from huggingface_hub import HfApi
from audiomcq.publishing.model import PublishModelArguments, publish_model
folder, other, results, name = sys.argv[1:]
api = HfApi()
publish_model(PublishModelArguments(other, "org/damaged"))
api.create_repo("org/old")
for path in ("model-00001-of-00002.safetensors", "training_args.bin", "notes.txt"):
    api.upload_file(repo_id="org/old", path_in_repo=path, path_or_fileobj=b"old")
publish_model(PublishModelArguments(folder, "org/old"))
again = PublishModelArguments(folder, "org/again", "sft", results=results, results_model=name, evaluated_on="org/tones", leaderboard=True)
try:
    publish_model(again)  # the test lets its commit fail
except ValueError as error:
    assert "403" in str(error) and "the same command goes on" in str(error), error
    print(api.list_repo_files("org/again", revision="sft"))
for _ in range(2):
    publish_model(again)
    print(len(api.list_repo_commits("org/again", revision="sft")))
"""


def words(options: dict) -> list[str]:
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


def sft_command(**options) -> list[str]:
    folder = RECIPES / "weak_to_strong"
    return [str(folder / "sft.py"), "--config", str(folder / "tiny" / "sft.yaml"), *words({**SMALL, **options})]


def publish_command(**options) -> list[str]:
    return [str(RECIPES / "publish" / "model.py"), *words(options)]


def fingerprint(model: PreTrainedModel) -> list[list[str]]:
    state = model.state_dict()
    return [[name, hashlib.sha256(state[name].contiguous().numpy().tobytes()).hexdigest()] for name in sorted(state)]


def weights_of(folder: Path) -> list[list[str]]:
    return fingerprint(Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder, dtype="auto"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, rows_folder: Path):
    """A Hub with a base model, which has a card with a licence, and a data set."""
    folder = tmp_path_factory.mktemp("hub")
    with open_hub(folder) as hub:
        script = folder / "prepare.py"
        script.write_text(PREPARE)
        hub.run([str(script), str(model_folder), str(rows_folder)], token=hub.token)
        yield hub


@pytest.fixture(scope="module")
def run(store: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT stage that started from the Hub, saved two checkpoints on its way, and pushed itself to a private repository."""
    output = tmp_path_factory.mktemp("run") / "w2s-sft"
    options = {
        "dataset": "org/tones",
        "model_name_or_path": "org/base",
        "output_dir": output,
        "save_strategy": "steps",
        "save_steps": 1,
        "push_to_hub": "true",
        "hub_model_id": "org/w2s-sft",
        "hub_private_repo": "true",
    }
    done = store.run(sft_command(**options), token=store.token)
    (output / "log.txt").write_text(done.stdout + done.stderr)
    return output


@pytest.fixture(scope="module")
def adapter(store: Hub, model_folder: Path, rows_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run on a local copy of the base model, published afterwards."""
    output = tmp_path_factory.mktemp("run") / "adapter"
    options = {
        "dataset": rows_folder,
        "model_name_or_path": model_folder,
        "output_dir": output,
        "learning_rate": "1e-2",
    }
    sft.train(*parse_stage("sft", Path("unused.yaml"), sft_command(**options, **LORA)[1:]))
    push = {"folder": output, "repo_id": "org/adapter", "base_model": "org/base"}
    store.run(publish_command(**push), token=store.token)
    return output


@pytest.fixture(scope="module")
def second(store: Hub, adapter: Path, rows_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run on top of that one, published as an adapter and as merged weights."""
    output = tmp_path_factory.mktemp("run") / "second"
    options = {"dataset": rows_folder, "model_name_or_path": adapter, "output_dir": output, "learning_rate": "2e-2"}
    command = sft_command(**options, **LORA, paradigm="single_stage")
    sft.train(*parse_stage("sft", Path("unused.yaml"), command[1:]))
    push = {"folder": output, "base_model": "org/base", "output_dir": output.parent / "drafts"}
    store.run(publish_command(**push, repo_id="org/second"), token=store.token)
    store.run(publish_command(**push, repo_id="org/merged", export="merged"), token=store.token)
    return output


def expected_answer(folder: Path, clip: Path) -> str:
    """This package's own greedy answer to the question of the card's usage."""
    lalm = load_lalm(folder)
    row = {
        "question": "What is making the sound?",
        "choices": ["a dog", "a train", "rain", "a violin"],
        "audio": {"path": str(clip), "bytes": None},
    }
    (prompt,) = PromptEncoder(lalm.processor, lalm.family, 30.0)([row])
    ids = torch.tensor([prompt.input_ids])
    with torch.inference_mode():
        out = lalm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **audio_batch([prompt]),
            max_new_tokens=64,
            do_sample=False,
        )
    return lalm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    """Where a reader of the card works: a clip beside the script, and stand-ins for what is not installed."""
    folder = tmp_path_factory.mktemp("workplace")
    samples, rate = soundfile.read(rows[0]["audio"]["path"])
    assert rate == SAMPLE_RATE
    soundfile.write(folder / "clip.wav", samples, rate)
    for name, files in STAND_INS.items():
        for path, text in files.items():
            target = folder / "stand_ins" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    (folder / "load.py").write_text(LOAD)
    return folder


@pytest.fixture(scope="module")
def other(run: Path, workplace: Path) -> Path:
    """The run with other weights: the Hub keeps equal files once, so that damage to one repository is damage to all."""
    (workplace / "other").mkdir()
    for file in run.iterdir():
        if file.is_file():
            shutil.copyfile(file, workplace / "other" / file.name)
    tensors = {name: tensor + 1 for name, tensor in load_file(run / "model.safetensors").items()}
    save_file(tensors, workplace / "other" / "model.safetensors", metadata={"format": "pt"})
    return workplace / "other"


@pytest.fixture(scope="module")
def more(store: Hub, run: Path, other: Path, workplace: Path) -> list[str]:
    """What a process without Xet printed that published to three further repositories."""
    (workplace / "more.py").write_text(PUBLISH_MORE)
    store.fail("POST /api/models/org/again/commit/sft", status=403)
    command = [str(workplace / "more.py"), str(run), str(other), str(write_results(workplace, "w2s")), "w2s"]
    return store.run(command, token=store.token, xet=False).stdout.splitlines()


@pytest.fixture(scope="module")
def loaded(
    store: Hub, run: Path, adapter: Path, second: Path, more: list[str], workplace: Path
) -> dict[tuple[str, bool], tuple]:
    """(repository, by Xet) -> what its card's usage printed and hashes of its weights, in fresh processes."""
    store.flip_byte("model", "org/damaged", "model.safetensors", (run / "model.safetensors").stat().st_size - 1000)
    found = {}
    for xet, repos in (
        (True, ["org/w2s-sft", "org/adapter", "org/second", "org/merged"]),
        (False, ["org/w2s-sft", "org/damaged"]),
    ):
        done = store.run([str(workplace / "load.py"), str(workplace), *repos], token=store.token, xet=xet)
        answers, sums = json.loads(done.stdout.splitlines()[-1])
        found |= {(repo, xet): (answers[repo], sums[repo]) for repo in repos}
    return found


@pytest.mark.parametrize("xet", [True, False], ids=["client defaults", "without Xet"])
def test_the_weights_come_back_in_a_fresh_process_without_this_package(
    store: Hub, run: Path, model_folder: Path, loaded: dict, xet: bool
) -> None:
    assert loaded["org/w2s-sft", xet][1] == weights_of(run) != weights_of(model_folder)
    assert any("/cas/v1/reconstructions" in line for line in store.requests)


def test_the_usage_of_the_cards_answers_as_this_package_does(
    run: Path, adapter: Path, second: Path, workplace: Path, loaded: dict
) -> None:
    answers = {}
    for repo, folder in (("w2s-sft", run), ("adapter", adapter), ("second", second), ("merged", second)):
        answers[repo] = answer = expected_answer(folder, workplace / "clip.wav")
        repo = f"org/{repo}"
        assert len(answer) > 4
        # Once by transformers alone, once with qwen-omni-utils.
        assert loaded[repo, True][0] == f"{answer}\n{answer}\n"
    assert answers["second"] != answers["adapter"], "the second stage has to show"


def test_the_second_stage_of_a_lora_chain_is_one_adapter_on_the_base_at_its_commit(
    store: Hub, adapter: Path, second: Path
) -> None:
    base = store.repo("model", "org/base").resolve("main").sha
    ranks = {}
    for repo in ("org/adapter", "org/second"):
        config = json.loads(store.files("model", repo)["adapter_config.json"])
        assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", base)
        ranks[repo] = config["r"]
        card = ModelCard(store.files("model", repo)["README.md"].decode())
        assert "lora" in card.data.tags and (card.data.base_model, card.data.base_model_relation) == (
            "org/base",
            "adapter",
        )
    assert ranks == {"org/adapter": 4, "org/second": 8}
    assert json.loads((adapter / "run.json").read_text())["published"]["repo_id"] == "org/adapter"
    assert "| sft | [org/adapter](https://huggingface.co/org/adapter) |" in card.text
    assert store.files("model", "org/merged")["config.json"]


def test_the_licence_of_the_base_travels_with_every_form(store: Hub, run: Path, second: Path) -> None:
    for repo in ("org/w2s-sft", "org/adapter", "org/second", "org/merged"):
        files = store.files("model", repo)
        data = ModelCard(files["README.md"].decode()).data
        assert (data.license, data.license_name, data.license_link) == ("other", "tiny-research", "LICENSE")
        assert files["LICENSE"] == b"The terms of tiny."
        assert b"modified version of org/base, revision" in files["NOTICE"]


def test_a_folder_that_is_no_copy_of_the_base_that_is_named_is_refused(store: Hub, adapter: Path) -> None:
    push = {"folder": adapter, "repo_id": "org/wrong", "base_model": "org/w2s-sft", "dry_run": "true"}
    done = store.run(publish_command(**push), token=store.token, check=False)
    assert done.returncode == 2
    assert "base_model org/w2s-sft: model.safetensors there is not the one of" in done.stderr


def test_a_flipped_byte_in_the_store_is_seen(other: Path, loaded: dict) -> None:
    damaged = loaded["org/damaged", False][1]
    assert sum(ours != theirs for ours, theirs in zip(weights_of(other), damaged, strict=True)) == 1


def test_a_pushed_run_is_one_commit_of_weights_processor_and_our_card(store: Hub, run: Path) -> None:
    files = store.files("model", "org/w2s-sft")
    processor = {name for name in PROCESSOR_FILES if (run / name).is_file()}
    weights = {"model.safetensors", "config.json", "generation_config.json"}
    assert set(files) == {".gitattributes", "README.md", "LICENSE", "NOTICE", *processor, *weights}
    assert "preprocessor_config.json" in processor
    history = list(store.repo("model", "org/w2s-sft").log("main"))
    assert len(history) == 2  # its creation, and this
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "org/base"
    assert card.data.datasets == ["org/tones"]
    assert "not measured" in card.text
    record = json.loads((run / "run.json").read_text())
    assert record["model_commit"] == store.repo("model", "org/base").branches["main"]
    assert record["dataset_commit"] == store.repo("dataset", "org/tones").branches["main"]
    assert record["model_commit"] in card.text
    assert record["dataset_commit"] in card.text


def test_no_token_and_no_path_of_the_machine_is_published_and_no_token_lies_in_the_run(
    store: Hub, run: Path, adapter: Path
) -> None:
    for repo in ("org/w2s-sft", "org/adapter"):
        for name, content in store.files("model", repo).items():
            assert store.token.encode() not in content, name
            assert str(run.parents[1]).encode() not in content, name
    checked = [path for folder in (run, adapter) for path in folder.rglob("*") if path.is_file()]
    assert {"training_args.bin", "optimizer.pt", "run.json", "config.yaml", "log.txt"} <= {
        path.name for path in checked
    }
    assert not [path for path in checked if store.token.encode() in path.read_bytes()]


def test_without_a_token_a_private_model_gives_the_clients_own_error(store: Hub, run: Path) -> None:
    script = "from transformers import AutoConfig\nAutoConfig.from_pretrained('org/w2s-sft')"
    done = store.run(script, check=False)
    assert done.returncode == 1
    assert "org/w2s-sft is not a local folder and is not a valid model identifier" in done.stderr
    assert "private repository" in done.stderr


def test_an_interrupted_push_is_repeated_and_a_finished_one_changes_nothing(store: Hub, more: list[str]) -> None:
    assert more == ["['.gitattributes']", "2", "2"]
    files = store.files("model", "org/again", "sft")
    assert ".eval_results/audiomcq.yaml" in files
    assert 'revision="sft"' in files["README.md"].decode()
    assert set(store.files("model", "org/again")) == {".gitattributes"}


@pytest.mark.check
def test_a_run_whose_push_fails_ends_with_the_line_that_publishes_it(
    store: Hub, run: Path, rows_folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": rows_folder, "model_name_or_path": "org/base", "output_dir": tmp_path / "my run"}
    push = {"push_to_hub": "true", "hub_model_id": "org/stopped", "hub_revision": "sft", "hub_private_repo": "true"}
    store.fail("POST /api/models/org/stopped/commit/sft", status=403)
    stopped = store.run(sft_command(**options, **push), token=store.token, check=False)
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    line = stopped.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "Make sure your token has the correct permissions" in line
    assert set(store.files("model", "org/stopped", "sft")) == {".gitattributes"}
    script, *words = shlex.split(line.partition("python ")[2])
    store.run([str(ROOT / script), *words], token=store.token)
    assert set(store.files("model", "org/stopped", "sft")) == set(store.files("model", "org/w2s-sft"))
    assert store.repo("model", "org/stopped").private


KILLED = """
import os, sys
from transformers import Trainer
Trainer.train = lambda *args, **kwargs: os.kill(os.getpid(), 9)
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_that_is_killed_before_it_has_something_to_push_leaves_no_repository(
    store: Hub, rows_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    options = {"dataset": rows_folder, "model_name_or_path": "org/base", "output_dir": tmp_path / "run"}
    push = {"push_to_hub": "true", "hub_model_id": "org/never"}
    command = [str(tmp_path / "killed.py"), *sft_command(**options, **push)]
    assert store.run(command, token=store.token, check=False).returncode == -9
    assert (tmp_path / "run" / "run.json").is_file()
    assert ("model", "org/never") not in store.store.repos


@pytest.mark.parametrize("owner", ["org", "somebody-else"])
def test_who_could_not_push_afterwards_is_told_before_anything_is_trained(
    owner: str, store: Hub, rows_folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": rows_folder, "model_name_or_path": "org/base", "output_dir": tmp_path / "run"}
    push = {"push_to_hub": "true", "hub_model_id": f"{owner}/model"}
    done = store.run(sft_command(**options, **push), token=None if owner == "org" else store.token, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    says = "log in with `hf auth login`, or set HF_TOKEN" if owner == "org" else "who is no member of somebody-else"
    assert f"error: {owner}/model: " in line and says in line
    assert not (tmp_path / "run").exists()


def test_a_new_push_removes_the_weights_and_pickles_of_an_earlier_one_and_nothing_else(
    store: Hub, more: list[str]
) -> None:
    files = set(store.files("model", "org/old"))
    assert {"notes.txt", "model.safetensors"} <= files
    assert not {"model-00001-of-00002.safetensors", "training_args.bin"} & files


def test_a_dry_run_names_every_file_shows_the_card_and_asks_the_hub_for_nothing(
    store: Hub, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(store.requests)
    args = PublishModelArguments(str(run), "org/dry", license="mit", dry_run=True, output_dir=str(tmp_path / "drafts"))
    for _ in range(2):
        with caplog.at_level("INFO", logger="audiomcq"):
            files = publish_model(args)
    card = tmp_path / "drafts" / "README.md"
    assert str(card) in caplog.text
    assert "license: mit" in card.read_text()
    (tmp_path / "drafts" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other things \(notes.txt\)"):
        publish_model(args)
    sizes = {file.path: file.size for file in files}
    assert sizes["model.safetensors"] == (run / "model.safetensors").stat().st_size
    assert "README.md" in sizes
    assert "training_args.bin" not in sizes
    assert len(store.requests) == before


def test_both_stages_of_a_lora_chain_publish_themselves(store: Hub, rows_folder: Path, tmp_path: Path) -> None:
    """As the README has it: the first on a model of the Hub, the second on the folder of the first."""
    steps = {"first": "org/base", "second": tmp_path / "first"}
    for name, model in steps.items():
        options = {"dataset": rows_folder, "model_name_or_path": model, "output_dir": tmp_path / name, "max_steps": 1}
        push = {"push_to_hub": "true", "hub_model_id": f"org/chain-{name}", "paradigm": "single_stage"}
        store.run(sft_command(**options, **LORA, **push), token=store.token)
    base = store.repo("model", "org/base").resolve("main").sha
    for name, rank in (("first", 4), ("second", 8)):
        config = json.loads(store.files("model", f"org/chain-{name}")["adapter_config.json"])
        assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("org/base", base, rank)
    assert json.loads((tmp_path / "first" / "adapter_config.json").read_text())["revision"] == base


def test_a_stage_on_top_of_a_published_adapter_names_the_adapters_own_commit(
    store: Hub, adapter: Path, rows_folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": rows_folder, "model_name_or_path": "org/adapter", "output_dir": tmp_path / "second"}
    push = {"push_to_hub": "true", "hub_model_id": "org/on-the-hubs", "paradigm": "single_stage"}
    store.run(sft_command(**options, **LORA, **push), token=store.token)
    record = json.loads((tmp_path / "second" / "run.json").read_text())
    assert record["model_commit"] == store.repo("model", "org/adapter").branches["main"]
    config = json.loads(store.files("model", "org/on-the-hubs")["adapter_config.json"])
    base = store.repo("model", "org/base").branches["main"]
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("org/base", base, 8)
