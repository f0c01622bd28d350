"""Merge a LoRA adapter into plain weights or, with --base, put a trained thinker back into its whole Omni model.

python recipes/publish/export.py --config recipes/publish/tiny/export.yaml
"""

from pathlib import Path

from audiomcq.arguments.publishing import ExportArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: ExportArguments) -> None:
    from audiomcq.publishing.export import export
    from audiomcq.run import set_up_logging

    set_up_logging()
    export(Path(args.folder), Path(args.output_dir), args.base, args.base_revision, args.dtype)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((ExportArguments,)))
