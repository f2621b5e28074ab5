#include "configs/base/diag.h"
#include <string.h>

/* Nobody mistypes a longer key than this; it also bounds the work on hostile words. */
enum { WORD_BYTES = 64 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance (Damerau 1964 with each substring edited once): insertions,
 * deletions, substitutions and transpositions of neighbours count one. Both at most WORD_BYTES
 * long. */
static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][WORD_BYTES + 1];
    for (size_t j = 0; j <= b_length; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        size_t *now = rows[i % 3];
        const size_t *before = rows[(i - 1) % 3], *two_before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            now[j] =
                smaller(smaller(before[j], now[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = smaller(now[j], two_before[j - 2] + 1);
            }
        }
    }
    return rows[a_length % 3][b_length];
}

const char *moe_closest(const char *word, const char *const *candidates, size_t count)
{
    const size_t length = strnlen(word, WORD_BYTES + 1);
    const char *closest = NULL;
    size_t best = length + 3; /* thrice the distance has to stay below it */
    if (length > WORD_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t candidate_length = strnlen(candidates[i], WORD_BYTES + 1);
        if (candidate_length > WORD_BYTES) {
            continue;
        }
        const size_t tripled = 3 * distance(word, length, candidates[i], candidate_length);
        if (tripled < best) {
            best = tripled;
            closest = candidates[i];
        }
    }
    return closest;
}
