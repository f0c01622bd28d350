"""Compare training rows with benchmarks: same clips, same sources, near-identical questions. Needs no model.

python recipes/evaluate/audit_overlap.py --config recipes/evaluate/tiny/audit_overlap.yaml
"""

from pathlib import Path

from audiomcq.arguments.construction import AuditArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: AuditArguments) -> None:
    from rich.console import Console

    from audiomcq.construction.decontamination import audit, load_benchmarks
    from audiomcq.run import set_up_logging

    set_up_logging()
    rows = args.load(check_audio=False, fetch_clips=args.content)
    found = audit(rows, load_benchmarks(args.benchmarks), args.content, args.similar, args.audio_root)
    found.save(Path(args.output_dir))
    Console().print("\n".join(found.summarize()), markup=False, soft_wrap=True)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((AuditArguments,), settings=Path(__file__)))
