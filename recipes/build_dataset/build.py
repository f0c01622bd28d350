"""Build questions, options, chains of thought and grades from the captions of a source.

python recipes/build_dataset/build.py --config recipes/build_dataset/clotho/build.yaml --limit 50 \
    --writer http://127.0.0.1:8000/v1#Qwen/Qwen3-235B-A22B
"""

from audiomcq.arguments.construction import BuildArguments
from audiomcq.errors import exit_on_user_error
from audiomcq.options import parse


def main(args: BuildArguments) -> None:
    from audiomcq.construction.build import build
    from audiomcq.run import set_up_logging

    set_up_logging()
    build(args)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse((BuildArguments,)))
