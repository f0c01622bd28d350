"""A page to hear what audio contributes: one question, asked with its clip, with silence, and with another clip.

python recipes/publish/space/app.py --model outputs/demo/models/base --dtype float32    # needs gradio: pip install -e '.[space]'
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from audiomcq.arguments.publishing import AppArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse

if TYPE_CHECKING:
    import gradio as gr
    from matplotlib.figure import Figure

    from audiomcq.collation import PromptEncoder
    from audiomcq.models import LALM

ABOUT = """\
# What does the audio contribute?
One question, asked three times: with its clip, with silence in its place, and with another clip. Where the answer stays the same, the model
need not have listened."""
LINK = '<a href="{url}" target="_blank">Which questions need the audio: the report of all rows</a>'
HEADERS = ("heard", "chooses", "likeliest option", "writes")
SHOWN_CHARACTERS = 120
FORGET_SECONDS = 3_600


def answer(
    args: AppArguments,
    lalm: LALM,
    encoder: PromptEncoder,
    clip: str | None,
    question: str,
    options: str,
    right: str,
    other_clip: str | None,
) -> tuple[str, list[list[str]], Figure]:
    """What the page shows for one click: a sentence, a table, a plot."""
    import gradio as gr

    from audiomcq.contribution.compare import CONTROL_LABELS, compare_controls, plot, summarize

    choices = [line.strip() for line in options.splitlines() if line.strip()]
    if not clip or not other_clip:
        raise gr.Error(
            "Pick or record both clips: the one that is asked about and the one that is played in its place."
        )
    try:
        results = compare_controls(
            lalm, encoder, clip, question, choices, other_clip, args.silence_seconds, args.max_new_tokens
        )
        sentence = summarize(results, choices, right.strip() or None)
    except ValueError as error:
        raise gr.Error(str(error)) from error
    table = []
    for result in results:
        chosen = result.no_choice if result.choice is None else choices[result.choice]
        best = max(range(len(choices)), key=result.probabilities.__getitem__)
        likeliest = f"{choices[best]} ({result.probabilities[best]:.0%})"
        table.append([CONTROL_LABELS[result.control], chosen, likeliest, result.completion])
    return sentence, table, plot(results, choices)


def examples(args: AppArguments, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Values of the five inputs and a label for every row to try. Each is compared with the clip of the next."""
    from audiomcq.audio import load_audio, wav_bytes
    from audiomcq.datasets import load_rows
    from audiomcq.examples import CONTRIBUTION
    from audiomcq.publishing.space import pick_rows

    rows = pick_rows(load_rows(args.dataset, args.dataset_split, check_audio=False), args.num_examples)
    clips = [folder / f"{index}.wav" for index in range(len(rows))]
    for clip, row in zip(clips, rows, strict=True):
        clip.write_bytes(wav_bytes(load_audio(row["audio"], max_seconds=args.max_audio_seconds)))
    values = [
        [str(clip), row["question"], "\n".join(row["choices"]), row["answer"], str(other)]
        for clip, other, row in zip(clips, clips[1:] + clips[:1], rows, strict=True)
    ]
    kinds = [", ".join(filter(None, (row["question_type"], row[CONTRIBUTION]))) for row in rows]
    return values, [f"{kind}: {row['question']}" for row, kind in zip(rows, kinds, strict=True)]


def page(args: AppArguments, lalm: LALM, encoder: PromptEncoder, folder: Path) -> gr.Blocks:
    """The page; `folder` keeps the clips to try."""
    import gradio as gr

    values, labels = examples(args, folder)
    # What people record is theirs
    with gr.Blocks(
        title="What does the audio contribute?", analytics_enabled=False, delete_cache=(FORGET_SECONDS, FORGET_SECONDS)
    ) as blocks:
        gr.Markdown(f"{ABOUT} Model: `{args.model}`.")
        if args.report:
            gr.set_static_paths([args.report])
            gr.HTML(LINK.format(url=f"gradio_api/file={args.report}/report.html"))
        with gr.Row():
            with gr.Column():
                clip, other = (
                    gr.Audio(label=label, sources=["upload", "microphone"], type="filepath", buttons=["download"])
                    for label in ("The clip", "Another clip")
                )
            with gr.Column():
                question = gr.Textbox(label="Question")
                options = gr.Textbox(label="Options, one per line", lines=4)
                right = gr.Textbox(label="Right answer, if you know it")
                button = gr.Button("Ask three times", variant="primary")
        inputs = [clip, question, options, right, other]
        gr.Examples(values, inputs, example_labels=labels, label="Questions to try")
        sentence = gr.Markdown(elem_id="sentence")
        table = gr.Dataframe(
            headers=list(HEADERS),
            column_widths=["15%", "25%", "25%", "35%"],
            max_chars=SHOWN_CHARACTERS,
            label="Answers",
            interactive=False,
            wrap=True,
            elem_id="answers",
        )
        figure = gr.Plot(label="How probable each option is", elem_id="plot")
        button.click(partial(answer, args, lalm, encoder), inputs, [sentence, table, figure], api_name="ask")
    return blocks


def main(args: AppArguments) -> None:
    import gradio  # noqa: F401 - an extra of its own: without it, a line that says so before the model is loaded
    from accelerate import PartialState

    from audiomcq.collation import PromptEncoder
    from audiomcq.models import load_lalm
    from audiomcq.run import set_up_logging

    set_up_logging()
    with tempfile.TemporaryDirectory() as folder:
        lalm = load_lalm(args.model, args.model_revision, args.dtype, device=PartialState().device, vision=False)
        encoder = PromptEncoder(lalm.processor, lalm.family, args.max_audio_seconds)
        page(args, lalm, encoder, Path(folder)).launch(
            server_port=args.port, max_file_size=args.max_upload_mb * 1_000_000
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((AppArguments,), default_config=Path(__file__).with_name("app.yaml")))
