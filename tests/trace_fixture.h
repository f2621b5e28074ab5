/* Toy traces for tests, made with the trace writer: seeded, skewed, no two cells alike by design.
 */
#ifndef MOE_TESTS_TRACE_FIXTURE_H
#define MOE_TESTS_TRACE_FIXTURE_H

#include "tests/program.h"

#include "configs/base/diag.h"
#include "configs/base/random.h"
#include "traces/trace.h"
#include <talloc.h>

/* One test's memory and messages. */
typedef struct trace_fixture {
    void *owner;
    moe_diag *diag;
    FILE *stream;
    char *messages; /* after fixture_messages */
    size_t length;
} trace_fixture;

static inline trace_fixture fixture_open(void)
{
    return (trace_fixture){.owner = talloc_new(NULL)};
}

/* The stream is opened only after the struct has its place: it keeps the addresses of two members.
 */
static inline moe_diag *fixture_diag(trace_fixture *fixture)
{
    if (fixture->diag == NULL) {
        fixture->stream = open_memstream(&fixture->messages, &fixture->length);
        fixture->diag = moe_diag_create(fixture->owner, fixture->stream);
    }
    return fixture->diag;
}

static inline const char *fixture_messages(trace_fixture *fixture)
{
    fixture_diag(fixture);
    fflush(fixture->stream);
    return fixture->messages;
}

static inline void fixture_close(trace_fixture *fixture)
{
    if (fixture->stream != NULL)
        fclose(fixture->stream);
    free(fixture->messages);
    talloc_free(fixture->owner);
}

static inline size_t shape_rows(const moe_trace_shape *shape)
{
    return (size_t)(shape->iterations * shape->micro_batches * shape->layers * shape->sources);
}

/* Writes counts (and tokens, if not NULL) of a whole trace to a file of the test's folder. */
static inline void fixture_write(trace_fixture *fixture, const char *name,
                                 const moe_trace_info *info, const uint32_t *counts,
                                 const uint32_t *tokens, int64_t shard_iterations)
{
    char *path = program_path(name);
    moe_diag *diag = fixture_diag(fixture);
    moe_trace_writer *writer =
        moe_trace_writer_open(fixture->owner, path, info, tokens != NULL, shard_iterations, diag);
    assert_non_null(writer);
    const size_t rows = shape_rows(&info->shape) / (size_t)info->shape.iterations;
    for (int64_t t = 0; t < info->shape.iterations; t++) {
        assert_int_equal(moe_trace_writer_append(writer, counts, tokens, diag), MOE_OK);
        counts += rows * (size_t)info->shape.experts;
        tokens = tokens == NULL ? NULL : tokens + rows;
    }
    assert_int_equal(moe_trace_writer_commit(writer, diag), MOE_OK);
    free(path);
}

static inline moe_trace *fixture_reopen(trace_fixture *fixture, const char *name)
{
    char *path = program_path(name);
    moe_trace *trace = moe_trace_open(fixture->owner, path, (moe_where){0}, fixture_diag(fixture));
    free(path);
    return trace;
}

static inline moe_trace *fixture_trace(trace_fixture *fixture, const moe_trace_info *info,
                                       const uint32_t *counts, const uint32_t *tokens)
{
    fixture_write(fixture, "toy.safetensors", info, counts, tokens, 0);
    moe_trace *trace = fixture_reopen(fixture, "toy.safetensors");
    assert_non_null(trace);
    return trace;
}

/* Counts of a whole trace: `assignments` of every row, most of them at low experts that shift from
 * row to row. Owned by the fixture. */
static inline uint32_t *fixture_counts(trace_fixture *fixture, const moe_trace_shape *shape,
                                       uint32_t assignments, uint64_t seed)
{
    const size_t experts = (size_t)shape->experts;
    const size_t rows = shape_rows(shape);
    uint32_t *counts = talloc_zero_array(fixture->owner, uint32_t, rows * experts);
    gsl_rng *random = moe_random_create(seed, "trace fixture", 0);
    for (size_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < assignments; i++) {
            const double u = gsl_rng_uniform(random);
            counts[row * experts + ((size_t)(u * u * u * (double)experts) + row / 3) % experts]++;
        }
    }
    gsl_rng_free(random);
    return counts;
}

#endif
