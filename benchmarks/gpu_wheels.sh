#!/usr/bin/env bash
# Collect what benchmarks/gpu.sh needs besides Python 3.12, torch and Triton: bash benchmarks/gpu_wheels.sh FOLDER
# Writes FOLDER and FOLDER_av, less than 64 MB each, for machines that take no more at a time. PyAV is alone in the second.
# pyarrow is most of it and is packed again without the parts that nothing here loads.
set -euo pipefail
folder=${1:?give a folder for the wheels}
mkdir -p "$folder"
pins() { grep -iE "^($1)==" "$(dirname "$0")/../constraints.txt"; }
names='accelerate|av|cffi|datasets|dill|httpcore2|httpx2|huggingface_hub|multiprocess|peft|pyarrow|pycparser|rich|soundfile|soxr|tokenizers|transformers|trl|truststore|typer|xxhash'
platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 28 27 17; printf -- '--platform manylinux2014_x86_64')
for pin in $(pins "$names") liger-kernel; do
    # shellcheck disable=SC2086
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms -d "$folder" "$pin"
done
python3 - "$folder" <<'PYTHON'
import re, sys, zipfile
from pathlib import Path

left_out = re.compile(r"pyarrow/(tests/|include/|src/|.*(arrow_flight|_flight|arrow_s3|_s3fs|_parquet_encryption|_gcsfs|_azurefs).*|.*\.(pyx|pxd|pxi|h)$)")
for wheel in Path(sys.argv[1]).glob("pyarrow-*.whl"):
    smaller = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for item in old.infolist():
            if not left_out.match(item.filename):
                new.writestr(item, old.read(item))
    smaller.replace(wheel)
PYTHON
mkdir -p "${folder}_av"
mv "$folder"/av-*.whl "${folder}_av"
du -sm "$folder" "${folder}_av"
