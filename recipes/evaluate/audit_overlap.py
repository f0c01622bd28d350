"""Compare training rows with benchmarks: same clips, same sources, near-identical questions. Needs no model.

python recipes/evaluate/audit_overlap.py --config recipes/evaluate/tiny/audit_overlap.yaml
"""

from pathlib import Path

from rich.console import Console

from audiomcq.construction.decontamination import AuditArguments, audit, named_benchmarks
from audiomcq.run import clear_errors, parse, set_up_logging

if __name__ == "__main__":
    (args,) = parse((AuditArguments,), Path(__file__).parent / "tiny" / "audit_overlap.yaml")
    set_up_logging()
    with clear_errors():
        rows = args.load(check_audio=False, fetch_clips=args.content)
        found = audit(rows, named_benchmarks(args.benchmarks), args.content, args.similar, args.audio_root)
        found.save(Path(args.output_dir))
        Console().print("\n".join(found.lines()), markup=False, soft_wrap=True)
