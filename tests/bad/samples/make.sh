#!/bin/bash
# Makes the defective samples beside this script, each named after its defect, from one sound file.
# NAME.expected holds the first message of `moeplan profile fit` without the path, read and judged by a person;
# tests/test_samples.c compares them. What would be large (a line of 2 MiB) is made there.
set -eu
cd "$(dirname "$0")"

sound='{"record": "machine", "format": "moecal-samples", "version": 1, "machine": "1f0c5a2b", "program": "moecal 0.1.0", "hosts": 1, "ranks": 4, "devices_per_host": 4, "device": {"name": "D", "peak_flop_per_s": 1e14, "memory_bytes": 8e10, "memory_bytes_per_s": 2e12}, "link": {"kind": "nvswitch", "bytes_per_s": 3e11, "latency_s": 1e-6}}
{"record": "sample", "id": "g", "kind": "gemm", "machine": "1f0c5a2b", "dtype": "bf16", "m": 64, "n": 128, "k": 256, "times_s": [2e-6, 2.1e-6, 1.9e-6]}
{"record": "sample", "id": "e", "kind": "experts", "machine": "1f0c5a2b", "dtype": "bf16", "phase": "forward", "hidden": 64, "ffn": 256, "gated": false, "rows": [3, 0, 5], "times_s": [3e-5]}
{"record": "sample", "id": "a", "kind": "collective", "machine": "1f0c5a2b", "collective": "all_to_all", "bytes": 4096, "ranks": 4, "matrix": [[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]], "times_s": [1e-5]}
{"record": "sample", "id": "b", "kind": "collective", "machine": "1f0c5a2b", "collective": "broadcast", "chunks": [{"owner": 0, "want": [1, 2]}, {"owner": 3, "want": [0]}], "chunk_bytes": 1024, "ranks": 4, "times_s": [2e-5]}'
printf '%s\n' "$sound" > sound.jsonl

# NAME, sed program
defect() {
    printf '%s\n' "$sound" | sed -E "$2" > "$1.jsonl"
    if [ "$(cat "$1.jsonl")" = "$sound" ]; then
        echo "$1: nothing was changed" >&2
        exit 1
    fi
}

defect no_machine '1d'
defect machine_late '1{h;d};$G'
defect machines_mixed '3s/1f0c5a2b/deadbeef/'
defect machine_line_of_another '3{h;s/.*/{"record": "machine", "machine": "deadbeef"}/}'
defect another_format '1s/moecal-samples/moeplan-plan/'
defect version_2 '1s/"version": 1/"version": 2/'
defect peak_zero '1s/1e14/0/'
defect device_absent '1s/"device": [{][^}]*[}], //'
defect devices_too_many '1s/"hosts": 1/"hosts": 60000/'
defect time_zero '2s/2.1e-6/0/'
defect time_negative '2s/2.1e-6/-2e-6/'
defect time_nan '2s/2.1e-6/NaN/'
defect time_infinite '2s/2.1e-6/1e999/'
defect time_of_years '2s/2.1e-6/2e6/'
defect time_is_text '2s/2.1e-6/"2 us"/'
defect times_empty '2s/\[2e-6.*\]/[]/'
defect times_absent '2s/, "times_s".*\]//'
defect size_zero '2s/"m": 64/"m": 0/'
defect size_fractional '2s/"m": 64/"m": 64.5/'
defect size_beyond_memory '4s/"bytes": 4096/"bytes": 4e12/; 4s/, "matrix".*\]\], /, /'
defect key_absent '2s/"n": 128, //'
defect key_twice '2s/"n": 128/"n": 128, "n": 129/'
defect id_absent '2s/"id": "g", //'
defect kind_unknown '2s/"gemm"/"gem"/'
defect record_unknown '2s/"sample"/"summary"/'
defect dtype_unknown '2s/bf16/bfloat16/'
defect phase_unknown '3s/"forward"/"backward"/'
defect rows_all_zero '3s/\[3, 0, 5\]/[0, 0, 0]/'
defect rows_negative '3s/\[3, 0, 5\]/[3, -1, 5]/'
defect rows_empty '3s/\[3, 0, 5\]/[]/'
defect rows_no_list '3s/\[3, 0, 5\]/{"3": 0}/'
defect collective_unknown '4s/all_to_all/all_to_some/'
defect ranks_one '4s/"ranks": 4/"ranks": 1/'
defect ranks_more_than_machine '4s/"ranks": 4/"ranks": 8/'
defect hosts_do_not_divide '4s/"ranks": 4/"ranks": 4, "hosts": 3/'
defect matrix_not_square '4s/\[1, 2, 3, 0\]\]/[1, 2, 3]]/'
defect matrix_too_small '4s/, \[1, 2, 3, 0\]\]/]/'
defect matrix_negative '4s/\[0, 1, 2, 3\]/[0, -1, 2, 3]/'
defect chunk_wants_itself '5s/"owner": 3, "want": \[0\]/"owner": 3, "want": [3]/'
defect chunk_of_no_rank '5s/"owner": 3/"owner": 4/'
defect chunk_without_bytes '5s/"chunk_bytes": 1024, //'
defect point_differs_from_itself '2{p;s/2e-6, 2.1e-6, 1.9e-6/5e-6/}'
defect truncated_inside '3s/"gated": false.*//'
defect not_json '2s/.*/m64 n128 k256 2 us/'
defect a_list '2s/.*/[1, 2]/'
defect no_samples '2,$d'
printf '%s\n' "$sound" | sed '2s/"g"/"\xff\xfe"/' > not_utf8.jsonl
printf '%s\n' "$sound" | sed '2s/"g"/"\\u001b[31m"/' > id_with_escape.jsonl
printf '%s\n' "$sound" | sed '2s/"g"/"\x00"/' > nul_byte.jsonl
: > empty.jsonl
head -c 40 sound.jsonl > truncated_machine.jsonl
