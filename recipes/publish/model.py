"""Publish a trained model with its card.

python recipes/publish/model.py --config recipes/publish/tiny/model.yaml --dry_run true
"""

from rich.console import Console

from audiomcq.publishing.model import PublishArguments, model_files, push_files, sizes
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((PublishArguments,))
    set_up_logging()
    with clear_errors():
        files = model_files(args)
        for name, size in sizes(files).items():
            Console().print(f"{size:>14,} bytes  {name}")
        if not args.dry_run:
            Console().print(f"published: {push_files(files, args)}")
