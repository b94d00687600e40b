#!/bin/sh
# Time and memory at true CogVideoX-5B size with random weights: prints a table, writes gpu_table.json and gpu.json.
#
#   benchmarks/gpu.sh                  on a machine with one NVIDIA GPU (80 GB, or some parts fail for lack of memory)
#   benchmarks/gpu.sh --dry-run        tiny sizes on the CPU, in seconds
#   benchmarks/gpu.sh --fetch-wheels   download the wheels of gpu_wheels.txt, for a machine that can fetch nothing
#
# PYTHON is the Python that has torch (python3). WHEELS is the folder of carried wheels (.whl beside the repository's
# pyproject.toml); where it exists they are unpacked to a temporary folder in front of what is installed. --fetch-wheels
# takes FOR_PYTHON, the version of Python over there (3.12). OUT is where the JSON files go (runs/benchmarks). All ends
# within ten minutes; what did not fit is "not measured".
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-.whl}
OUT=${OUT:-runs/benchmarks}

if [ "${1:-}" = --fetch-wheels ]; then
    exec "$PYTHON" -m pip download --no-deps --only-binary=:all: --python-version "${FOR_PYTHON:-3.12}" \
        --implementation cp --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
        -d "$WHEELS" -r benchmarks/gpu_wheels.txt
fi

command -v "$PYTHON" >/dev/null 2>&1 || { echo "gpu.sh: no $PYTHON here. Set PYTHON to one that has torch." >&2; exit 2; }
unpacked=
trap 'test -z "$unpacked" || rm -rf "$unpacked"' EXIT
if ls "$WHEELS"/*.whl >/dev/null 2>&1; then
    unpacked=$(mktemp -d)
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$unpacked" "$WHEELS"/*.whl \
        || { echo "gpu.sh: the wheels in $WHEELS do not fit this $PYTHON. Fetch them with FOR_PYTHON." >&2; exit 2; }
fi
PYTHONPATH="$PWD/src${unpacked:+:$unpacked}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
# Parts of many sizes follow each other; segments that grow leave fewer holes.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

"$PYTHON" - <<'PROBE' || exit 2
import importlib.util, sys
from importlib.metadata import version
needed = ["torch", "diffusers", "transformers", "accelerate", "einops", "safetensors", "numpy", "PIL", "pydantic"]
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"gpu.sh: {', '.join(missing)} missing in {sys.executable}. Carry wheels: benchmarks/gpu.sh --fetch-wheels")
if version("diffusers").split(".")[:2] != ["0", "42"]:
    sys.exit(f"gpu.sh: diffusers {version('diffusers')} is here, 0.42 is needed. Carry the wheels of gpu_wheels.txt.")
print("versions:", ", ".join(f"{n} {version(n)}" for n in ("torch", "diffusers", "transformers")))
PROBE
mkdir -p "$OUT"
status=0
timeout 590 "$PYTHON" benchmarks/gpu.py --table "$OUT/gpu_table.json" --json "$OUT/gpu.json" "$@" || status=$?
test "$status" -ne 124 || echo "gpu.sh: stopped after 590 s; what was measured until then is in $OUT/gpu_table.json" >&2
exit "$status"
