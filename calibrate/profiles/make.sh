#!/usr/bin/env bash
# Makes the profiles of this folder anew from the public tables: make.sh [DATA [MOEPLAN]]
#
# DATA     folder with the tables of ai-dynamo/aiconfigurator @095f58a51c4c (Apache-2.0) as CSV (default: the
#          calib folder that `moeplan validate` uses): nccl_all.csv, gemm/, moe/, deepep_ll_all.csv
# MOEPLAN  the program (default: build/moeplan); both paths are relative to the source folder
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
data=${1:-../shared/data/calib/aiconfigurator}
moeplan=${2:-build/moeplan}
profiles=calibrate/profiles
clusters=configs/clusters

import() { # NAME DEVICE CLUSTER FILL TABLE...
    local name=$1 device=$2 cluster=$3 fill=$4
    shift 4
    "$moeplan" profile import "$@" --device "$device" --cluster "$clusters/$cluster.yaml" \
        --fill "$profiles/fill/$fill.yaml" --name "${name//_/-}" -o "$profiles/$name.yaml"
}

import a100_80 a100_sxm dgx_a100_superpod a100 "$data/nccl_all.csv" \
    "$data/gemm/a100_sxm__sglang_0.5.10.csv" "$data/moe/a100_sxm__sglang_0.5.10.csv"
# DeepEP ran on InfiniBand, so that its latencies go with a cluster that has it.
import h100 h100_sxm dgx_h100_superpod hopper "$data/nccl_all.csv" "$data/deepep_ll_all.csv" \
    "$data/gemm/h100_sxm__vllm_0.24.0.csv" "$data/moe/h100_sxm__vllm_0.24.0.csv"
import h200 h200_sxm hgx_h200 hopper "$data/nccl_all.csv" "$data/deepep_ll_all.csv" \
    "$data/gemm/h200_sxm__vllm_0.22.0__power_bf16.csv" "$data/moe/h200_sxm__vllm_0.24.0.csv"

"$moeplan" profile derive "$profiles/a100_80.yaml" --from "$clusters/dgx_a100_superpod.yaml" \
    --to "$clusters/p4d_4x8_a100.yaml" --name a100-40 -o "$profiles/a100_40.yaml"
# Hybrid cube mesh: a device reaches four of its seven peers directly and three through a neighbour, so that the
# bytes of an all-to-all cross (4 + 2 * 3) / 7 links.
"$moeplan" profile derive "$profiles/a100_80.yaml" --from "$clusters/dgx_a100_superpod.yaml" \
    --to "$clusters/p3dn_4x8_v100.yaml" --name v100-32 --scale all_to_all=0.7 -o "$profiles/v100_32.yaml"

# How well they meet what they have not seen.
report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT
"$moeplan" validate calibration --data "$data/../.." --out "$report" >"$report/text"
grep -v '^!\[' "$report/calibration.md" | cat -s >reports/validation/calibration.md
