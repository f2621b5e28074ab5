#!/bin/bash
# Makes the defective plans beside this script, each named after its defect, from one sound plan.
# NAME.expected holds the first message of `moeplan plan check` without the path, read and judged by a person;
# tests/test_plan.c compares them.
set -eu
cd "$(dirname "$0")"

# 2 layers of 4 experts on 2 hosts of 2 devices, in 2 groups.
sound='{
"format": "moeplan-plan", "version": 1,
"model": {"name": "toy", "layers": 2, "experts": 4, "top_k": 1, "expert_bytes": 8e6, "shard_bytes": 56e6},
"cluster": {"name": "toy", "hosts": 2, "devices_per_host": 2},
"layout": {"devices": 4, "ep": 2, "groups": 2},
"policy": {"name": "mine", "policy": "fssdp", "tunables": {"window": 5}},
"prediction": {"made_from": [0, 5], "evaluated_on": [5, 10], "engine": "fluid", "baseline": "ep", "step_time_s":
{"baseline": 2.0, "policy": 1.5, "plan": 1.6}, "gain": 1.25, "spread": {"p5": 1.0, "p50": 1.2, "p95": 1.5, "slower_steps": 0}},
"inputs": {"seed": 1},
"layers": [
{"owners": [[0, 0, 1, 1], [2, 2, 3, 3]], "copies": [[1], [], [], [0, 2]]},
{"owners": [[1, 0, 1, 0], [3, 2, 3, 2]], "copies": [[], [1, 3], [], []]}
]
}'
printf '%s\n' "$sound" > sound.json

# NAME, sed program
defect() {
    printf '%s\n' "$sound" | sed -E "$2" > "$1.json"
    if [ "$(cat "$1.json")" = "$sound" ]; then
        echo "$1: nothing was changed" >&2
        exit 1
    fi
}

: > empty.json
printf '\x00\x01\xff\xfe' > binary.json
printf '[1, 2]\n' > not_an_object.json
printf '{"traceEvents": []}\n' > another_format.json
printf '%s' "$sound" | head -c 700 > truncated.json
{ head -c 5000 /dev/zero | tr '\0' '['; } > too_deep.json
defect version_of_the_future 's/"version": 1/"version": 2/'
defect version_is_text 's/"version": 1/"version": "1"/'
defect version_absent 's/ "version": 1,//'
defect key_misspelt 's/"prediction"/"predictoin"/'
defect key_misspelt_inside 's/"top_k"/"topk"/'
defect key_twice 's/"inputs"/"layout"/'
defect model_absent '/^"model"/d'
defect model_is_a_list 's/"model": \{.*\},$/"model": [],/'
printf '%s\n' "$sound" | sed '/^"inputs"/,$d' | sed '$ s/,$/}/' > layers_absent.json
defect no_layers 's/"layers": 2/"layers": 0/'
defect layers_negative 's/"layers": 2/"layers": -2/'
defect layers_fractional 's/"layers": 2/"layers": 2.5/'
defect layers_huge 's/"layers": 2/"layers": 1000000000000/'
defect bytes_negative 's/56e6/-1/'
defect bytes_infinite 's/56e6/1e999/'
defect name_with_escape 's/"name": "mine"/"name": "\\u001b[31m"/'
defect name_too_long "s/\"name\": \"mine\"/\"name\": \"$(printf 'x%.0s' $(seq 201))\"/"
defect groups_of_another_layout 's/"groups": 2/"groups": 3/'
defect hosts_of_another_cluster 's/"hosts": 2/"hosts": 3/'
defect more_than_memory 's/"layers": 2, "experts": 4/"layers": 4096, "experts": 16384/; s/"hosts": 2/"hosts": 32768/; s/"devices": 4, "ep": 2, "groups": 2/"devices": 65536, "ep": 1, "groups": 65536/'
defect layer_too_few 's/"layers": 2/"layers": 3/'
defect layer_is_a_number '/^\{"owners": \[\[1/s/.*/7/'
defect layer_with_another_key 's/"copies": \[\[1\]/"copy": [[1]/'
defect group_too_few 's/\[\[0, 0, 1, 1\], \[2, 2, 3, 3\]\]/[[0, 0, 1, 1]]/'
defect expert_too_few 's/\[0, 0, 1, 1\]/[0, 0, 1]/'
defect owner_in_another_group 's/\[0, 0, 1, 1\]/[0, 0, 1, 2]/'
defect owner_negative 's/\[0, 0, 1, 1\]/[0, 0, 1, -1]/'
defect owner_none 's/\[0, 0, 1, 1\]/[0, 0, 1, null]/'
defect owner_fractional 's/\[0, 0, 1, 1\]/[0, 0, 1, 1.0]/'
defect owner_huge 's/\[0, 0, 1, 1\]/[0, 0, 1, 4294967296]/'
defect copies_too_few 's/\[\[1\], \[\], /[[1], /'
defect copies_of_a_number 's/\[\[1\], \[\], /[1, [], /'
defect copy_outside_cluster 's/\[0, 2\]/[0, 4]/'
defect copy_on_an_owner 's/\[0, 2\]/[0, 3]/'
defect copy_twice 's/\[0, 2\]/[0, 0]/'
defect copies_descending 's/\[0, 2\]/[2, 0]/'
defect prediction_on_its_own_past 's/\[5, 10\]/[4, 10]/'
defect range_reversed 's/\[5, 10\]/[10, 5]/'
defect prediction_half 's/"gain": 1.25, //'
defect tunables_no_object 's/\{"window": 5\}/5/'
defect inputs_no_object 's/"inputs": \{"seed": 1\}/"inputs": 1/'
defect something_behind '$ s/$/ {}/'
defect seat_twice 's/^"policy"/"seats": [3, 2, 1, 3],\n&/'
defect seat_outside_cluster 's/^"policy"/"seats": [3, 2, 1, 4],\n&/'
defect seats_too_few 's/^"policy"/"seats": [3, 2, 1],\n&/'
