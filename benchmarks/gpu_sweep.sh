#!/usr/bin/env bash
# A real sweep on a bare GPU machine without network: Ray, Optuna, MLflow and Hydra are carried there as wheels.
#
#   benchmarks/gpu_sweep.sh pack FOLDER DATA_DIR   where a registry is: wheels and half of CIFAR-10, in FOLDER/batch-N
#   benchmarks/gpu_sweep.sh run FOLDER [--only STEP,...] [KEY=VALUE ...]   there, once all batches lie in FOLDER: joins
#       them and installs, once; searches, kills a worker and the driver, resumes, prints outcomes and trials per hour
#
# PYTHON is the interpreter; FOR (3.12) the version that is packed for; PLACE (/tmp/gpu_sweep) where it is installed;
# PATIENCE (1) how many times its seconds each step may take. Rows go to gpu_sweep.jsonl in $OUT, or benchmarks/results.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$([ -x "$project/.venv/bin/python" ] && echo "$project/.venv/bin/python" || echo python3)}
place=${PLACE:-/tmp/gpu_sweep}
export PYTHONPATH="$project"

case "${1:-} $#" in
"pack 3") exec "$python" "$project/benchmarks/gpu_carry.py" pack "$2" "$3" --python "${FOR:-3.12}" ;;
"run "[2-9]* | "run 1"[0-9]*)
    folder=$2
    shift 2
    if [ ! -e "$place/ready" ]; then
        "$python" "$project/benchmarks/gpu_carry.py" unpack "$folder" "$place" --patience "${PATIENCE:-1}"
        touch "$place/ready"
    fi
    export PYTHONPATH="$place/site:$project"
    exec "$python" "$project/benchmarks/gpu_sweep.py" "$place" --patience "${PATIENCE:-1}" "$@"
    ;;
*)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
