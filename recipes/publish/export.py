"""Merge a LoRA adapter into plain weights or, with --base, put a trained thinker back into its whole Omni model.

python recipes/publish/export.py --config recipes/publish/tiny/export.yaml
"""

from pathlib import Path

from audiomcq.publishing.export import ExportArguments, export_full, merge_adapter
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((ExportArguments,))
    set_up_logging()
    with clear_errors():
        if args.base:
            export_full(Path(args.folder), args.base, Path(args.output_dir), args.base_revision)
        else:
            merge_adapter(Path(args.folder), Path(args.output_dir), args.dtype)
