"""Merge a LoRA adapter into plain weights or, with --base, put a trained thinker back into its whole Omni model.

python recipes/publish/export.py --config recipes/publish/tiny/export.yaml
"""

from dataclasses import dataclass, field
from pathlib import Path

from audiomcq.publishing.export import export_full, merge_adapter
from audiomcq.run import clear_errors, parse, set_up_logging


@dataclass
class ExportArguments:
    """Options of this recipe."""

    folder: str = field(default="", metadata={"help": "Checkpoint folder of a training recipe."})
    base: str | None = field(
        default=None, metadata={"help": "Whole Omni model to put the thinker into: folder or id."}
    )
    base_revision: str | None = field(default=None, metadata={"help": "Its revision."})
    dtype: str = field(default="bfloat16", metadata={"help": "Of merged weights: float32, bfloat16 or float16."})
    output_dir: str = field(default="outputs/export", metadata={"help": "New folder for the checkpoint."})


if __name__ == "__main__":
    (args,) = parse((ExportArguments,))
    set_up_logging()
    with clear_errors():
        if args.base:
            export_full(Path(args.folder), args.base, Path(args.output_dir), args.base_revision)
        else:
            merge_adapter(Path(args.folder), Path(args.output_dir), args.dtype)
