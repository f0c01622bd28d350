"""Text voters: language models that are asked the same questions and hear nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from audiomcq.arguments.evaluation import AnswerArguments
from audiomcq.audio import silence
from audiomcq.contribution.probe import ProbeArguments, run_probe
from audiomcq.datasets import option_order
from audiomcq.endpoints import short_names, voter_name
from audiomcq.examples import Row
from audiomcq.inference.controls import no_audio_control
from audiomcq.inference.local import Answer, answer_batches, answer_questions
from audiomcq.inference.store import list_shards, read_votes
from audiomcq.inference.text_llm import load_text_llm
from audiomcq.models import LALM, hash_weights, load_lalm
from audiomcq.prompts import SYSTEM_PROMPT, answer_target, question_prompt
from audiomcq.tiny.model import train_tokenizer

# As templates of language models are: a message is one text, and a list of parts is an error
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is not false %}{{ '<think>' }}{% endif %}{% endif %}"
)
ORDERS = ["given", "cyclic-1"]


def write_llm(folder: Path, rows: Dataset) -> Path:
    """A random Qwen2 of two layers, uneven enough that a wrong token or position shows."""
    tokenizer = train_tokenizer(rows)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), num_key_value_heads=1, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, **sizes,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter) + (parameter.ndim == 1))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    return write_llm(tmp_path_factory.mktemp("model") / "llm", rows)


def asked_alone(tokenizer: Any, model: Any, row: Row, order: str) -> tuple[str, list[float]]:
    """What the model writes to one question, and how it scores each option, by stock transformers alone."""
    shown = [row["choices"][index] for index in option_order(row, order)]
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": question_prompt(row["question"], shown)},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)[
        0, ids.shape[1] :
    ]
    scores = []
    for choice in row["choices"]:
        target = torch.tensor(tokenizer([answer_target(choice)])["input_ids"])
        with torch.no_grad():
            logits = model(torch.cat([ids, target], dim=1)).logits[0, ids.shape[1] - 1 : -1]
        scores.append(float(logits.log_softmax(-1).gather(-1, target[0][:, None]).mean()))
    return tokenizer.decode(new, skip_special_tokens=True), scores


def test_a_language_model_is_asked_the_conversation_of_the_others_without_any_audio(
    llm_folder: Path, rows: Dataset
) -> None:
    llm, encoder = load_text_llm(str(llm_folder))
    (prompt,) = encoder([rows[3]], [None])
    assert prompt.clips == ()
    text = llm.tokenizer.decode(prompt.input_ids)
    assert text == (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        f"<|im_start|>user\n{question_prompt(rows[3]['question'], rows[3]['choices'])}<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(ValueError, match="hears nothing"):
        encoder([rows[3]], [silence(1.0)])


def test_a_language_model_says_in_batches_what_it_says_to_each_question_alone(llm_folder: Path, rows: Dataset) -> None:
    few = [{**rows[0], "question": f"{rows[0]['question']} Listen to it twice, and then once more."}, rows[2], rows[5]]
    llm, encoder = load_text_llm(str(llm_folder))
    written, scored = (
        answer_questions(llm, encoder, few, no_audio_control(), ORDERS, max_new_tokens=8, mode=mode)
        for mode in ("generate", "likelihood")
    )
    stock = AutoTokenizer.from_pretrained(llm_folder), AutoModelForCausalLM.from_pretrained(llm_folder)
    expected = [asked_alone(*stock, row, order) for row in few for order in ORDERS]
    assert [answer.completion for answer in written] == [text for text, _ in expected]
    assert len({text for text, _ in expected}) > 2
    for answer, (_, scores) in zip(scored, expected, strict=True):
        assert answer.option_logps == pytest.approx(scores, abs=1e-5)


def test_a_language_model_that_goes_on_answers_to_the_last_bit_as_one_that_was_not_stopped(
    llm_folder: Path, rows: Dataset
) -> None:
    def ask(**options: object) -> dict[tuple[str, str], Answer]:
        llm, encoder = load_text_llm(str(llm_folder))
        batches = answer_batches(llm, encoder, rows, no_audio_control(), ORDERS, 5, mode="likelihood", **options)
        return {(answer.row_key, answer.order): answer for batch in batches for answer in batch}

    whole = ask()
    done = sorted(whole)[::3]
    rest = ask(done=done)
    assert rest == {question: answer for question, answer in whole.items() if question not in done}


@pytest.mark.parametrize("fixture", ["model_folder", "qwen2_audio_folder"])
def test_the_language_model_of_a_lalm_says_without_towers_what_the_lalm_says_without_audio(
    fixture: str, rows: Dataset, request: pytest.FixtureRequest
) -> None:
    folder, few = str(request.getfixturevalue(fixture)), [rows[0], rows[5]]

    def ask(lalm: LALM, encoder: object, mode: str) -> list[Answer]:
        return answer_questions(lalm, encoder, few, no_audio_control(), ORDERS, max_new_tokens=4, mode=mode)

    lalm, encoder = load_text_llm(folder)
    assert not [name for name, _ in lalm.model.named_parameters() if "audio_tower" in name or "projector" in name]
    whole = load_lalm(folder)
    assert whole.model.num_parameters() > lalm.model.num_parameters()
    assert not set(encoder(few, [None, None])[0].input_ids) & set(lalm.placeholder_ids)
    for mode in ("generate", "likelihood"):
        assert ask(lalm, encoder, mode) == ask(whole, encoder, mode)


def test_a_text_voter_votes_under_its_own_name_and_is_not_asked_twice(
    llm_folder: Path, rows: Dataset, tmp_path: Path
) -> None:
    name = f"text:{llm_folder}"
    args = ProbeArguments(
        voters=[name], controls=["no_audio", "options_only"], mode="likelihood", dtype="float32", silence_seconds=1.0
    )
    run_probe(args, rows.select(range(3)), tmp_path)
    votes, shards = read_votes(tmp_path), len(list_shards(tmp_path))
    assert set(votes["voter"]) == {name}
    assert set(votes["revision"]) == {hash_weights(llm_folder)}
    assert len(votes) == 6
    run_probe(args, rows.select(range(3)), tmp_path)
    assert len(list_shards(tmp_path)) == shards


def test_a_text_voter_is_played_nothing(llm_folder: Path, rows: Dataset) -> None:
    for control in ("audio", "silence", "fragment-1-of-2"):
        with pytest.raises(
            ValueError, match=rf"text:.*llm: a text voter hears nothing, so not {control}; ask it under"
        ):
            run_probe(
                ProbeArguments(voters=[f"text:{llm_folder}"], controls=["no_audio", control], silence_seconds=1.0),
                rows.select(range(2)),
                llm_folder / "votes",
            )
    assert not (llm_folder / "votes").exists()


def test_what_is_no_language_model_is_refused_with_its_name(
    llm_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"text:.*neither a checkpoint folder nor a model"):
        load_text_llm(str(rows_folder))
    mute = shutil.copytree(llm_folder, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="mute: it has no chat template"):
        load_text_llm(str(mute))
    stern = shutil.copytree(llm_folder, tmp_path / "stern")
    (stern / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    _, encoder = load_text_llm(str(stern))
    with pytest.raises(ValueError, match=r"stern: its chat template takes no such conversation .*System role"):
        encoder([{"question": "What?", "choices": ["a", "b"]}], [None])


def test_the_name_of_a_text_voter_is_one_however_its_folder_is_spelled(
    llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llm_folder.parent)
    assert voter_name("text:./llm/") == voter_name(f"text:{llm_folder}") == "text:llm"
    assert voter_name("text:Qwen/Qwen2.5-7B-Instruct@main") == "text:Qwen/Qwen2.5-7B-Instruct"
    for name in ("text:http://h/v1#m", "text:text:llm"):
        with pytest.raises(ValueError, match="without audio already"):
            voter_name(name)
    with pytest.raises(ValueError, match=r"text voters are asked by .*probe"):
        AnswerArguments(model="text:llm")
    assert short_names(["/far/a/llm", "text:/far/a/llm", "text:/far/b/llm"]) == {
        "/far/a/llm": "llm", "text:/far/a/llm": "text:a/llm", "text:/far/b/llm": "text:b/llm",
    }  # fmt: skip
