#!/bin/bash
# Makes the defective traces beside this script, each named after its defect. NAME.expected holds
# the first message of `moeplan trace check` without the path, read and judged by a person;
# tests/test_trace.c compares them.
set -eu
cd "$(dirname "$0")"

bytes() { # decimal numbers as bytes
    local n
    for n in "$@"; do printf "\\x$(printf %02x "$n")"; done
}
little_endian() { # a number as 8 bytes
    local n=$1 i
    for i in 1 2 3 4 5 6 7 8; do bytes $((n & 255)); n=$((n >> 8)); done
}
crc() { gzip -c | tail -c 8 | head -c 4 | od -An -tx4 | tr -d ' \n'; }

# What the sound file has: 2 iterations, 1 micro-batch, 1 layer, 2 sources with 3 tokens, 3 experts.
counts=(3 2 1 1 3 2 2 3 1 0 3 3)
shape=2,1,1,2,3
sound_crc=$(bytes "${counts[@]}" | crc)
metadata() { # top_k, aggregation, crc
    printf '"__metadata__":{"format":"moeplan-trace-1","aggregation":"%s","top_k":"%s",' "$2" "$1"
    printf '"synthetic":"true","origin":"made by make.sh","provenance":"{}",'
    printf '"crc32.counts":"%s"}' "$3"
}
sound=$(metadata 2 dispatch "$sound_crc")
array() { # name, dtype, shape, begin, end
    printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$@"
}
tensor=$(array counts U8 $shape 0 12)
write() { # file name, header, bytes of data...
    local name=$1 header=$2
    shift 2
    { little_endian ${#header}; printf %s "$header"; bytes "$@"; } > "$name"
}
whole() { write "$1.safetensors" "$2" "${counts[@]}"; }

# --- the container
: > empty.safetensors
bytes 1 2 3 > too_short.safetensors
{ little_endian 5000; printf '{"counts":'; } > truncated_header.safetensors
{ little_endian 1099511627776; printf '{}'; } > huge_header.safetensors
{ printf 'PK\003\004'; bytes 1 2 3 4 5 6 7 8 9 10 11 12; } > zip_file.safetensors
whole not_json '{"counts": oops}'
whole not_an_object '[1, 2, 3]'
whole duplicate_key "{$sound,$tensor,$tensor}"
write truncated_data.safetensors "{$sound,$tensor}" 3 2 1 1 3
write trailing_bytes.safetensors "{$sound,$tensor}" "${counts[@]}" 0
whole offsets_out_of_range "{$sound,$(array counts U8 $shape 4 16)}"
whole offsets_reversed "{$sound,$(array counts U8 $shape 12 0)}"
whole offsets_overlap "{$sound,$tensor,$(array more U8 4 8 12)}"
whole gap_between_arrays "{$sound,$(array counts U8 2,1,1,1,3 0 6),$(array more U8 4 8 12)}"
whole size_differs_from_shape "{$sound,$(array counts U8 2,1,1,2,2 0 12)}"
whole shape_overflows "{$sound,$(array counts U32 4294967296,4294967296,4294967296,1,1 0 12)}"
whole negative_dimension "{$sound,$(array counts U8 -2,1,1,-2,3 0 12)}"
whole fractional_dimension "{$sound,$(array counts U8 2.5,1,1,2,3 0 12)}"
whole unknown_dtype "{$sound,$(array counts U7 $shape 0 12)}"
whole metadata_not_text "{\"__metadata__\":{\"top_k\":2},$tensor}"

# --- the trace in it
whole another_model '{"weights":{"dtype":"U8","shape":[12],"data_offsets":[0,12]}}'
whole another_format "{${sound/trace-1/trace-2},$tensor}"
whole no_counts "{$sound,$(array weights U8 $shape 0 12)}"
whole float_counts "{$sound,$(array counts F32 1,1,1,1,3 0 12)}"
whole four_dimensions "{$sound,$(array counts U8 2,1,2,3 0 12)}"
write no_experts.safetensors "{$sound,$(array counts U8 2,1,1,2,0 0 0)}"
whole unknown_aggregation "{$(metadata 2 lunch "$sound_crc"),$tensor}"
whole micro_batches_of_a_sum \
    "{$(metadata 2 iteration "$sound_crc"),$(array counts U8 1,2,1,2,3 0 12)}"
whole window_without_length "{$(metadata 2 window "$sound_crc"),$tensor}"
whole top_k_not_a_number "{$(metadata two dispatch "$sound_crc"),$tensor}"
whole top_k_above_experts "{$(metadata 4 dispatch "$sound_crc"),$tensor}"
whole top_k_varies_without_tokens "{$(metadata 0 dispatch "$sound_crc"),$tensor}"
whole provenance_not_json "{${sound/\"\{\}\"/\"oops\"},$tensor}"
whole crc_missing "{${sound/crc32.counts/crc32.other},$tensor}"
whole crc_not_hex "{$(metadata 2 dispatch 'ZZZZZZZZ'),$tensor}"
whole wrong_crc "{$(metadata 2 dispatch 00c0ffee),$tensor}"
write flipped_bit.safetensors "{$sound,$tensor}" 3 2 1 1 3 2 2 3 1 0 3 7
write assignments_not_divisible.safetensors \
    "{$(metadata 2 dispatch "$(bytes 3 2 1 1 3 2 2 3 1 0 3 2 | crc)"),$tensor}" \
    3 2 1 1 3 2 2 3 1 0 3 2
write zero_tokens.safetensors \
    "{$(metadata 2 dispatch "$(bytes 0 0 0 0 0 0 0 0 0 0 0 0 | crc)"),$tensor}" \
    0 0 0 0 0 0 0 0 0 0 0 0
tokens=$(array tokens U8 2,1,1,2 12 16)
token_crc=$(bytes 3 3 2 3 | crc)
with_tokens=${sound%\}},\"crc32.tokens\":\"$token_crc\"}
write tokens_disagree.safetensors "{$with_tokens,$tensor,$tokens}" "${counts[@]}" 3 3 2 3
write tokens_of_another_shape.safetensors "{$sound,$tensor,$(array tokens U8 1,1,1,4 12 16)}" \
    "${counts[@]}" 3 3 3 3

# --- shard indexes; shard.safetensors is sound
write shard.safetensors "{$sound,$tensor}" "${counts[@]}"
row() { printf '{"file": "%s", "first_iteration": %s, "iterations": %s}' "$@"; }
index() { # name, metadata, rows
    printf '{%s, "shards": [%s]}\n' "${2/__metadata__/metadata}" "$3" > "$1.safetensors.index.json"
}
index index_escapes_folder "$sound" "$(row ../traces/shard.safetensors 0 2)"
index index_absolute_path "$sound" "$(row /etc/passwd 0 2)"
index index_names_nothing "$sound" "$(row nowhere.safetensors 0 2)"
index index_with_gap "$sound" "$(row shard.safetensors 0 2), $(row shard.safetensors 3 2)"
index index_states_other_length "$sound" "$(row shard.safetensors 0 3)"
index index_of_another_trace "$(metadata 2 dispatch 00c0ffee)" "$(row shard.safetensors 0 2)"
index index_states_other_top_k "$(metadata 1 dispatch "$sound_crc")" "$(row shard.safetensors 0 2)"
index index_without_shards "$sound" ''
printf 'oops' > index_not_json.safetensors.index.json
