#include "reports/validation/laer_data.h"

#include "calibrate/fit/import_csv.h"
#include "configs/base/input.h"
#include "configs/base/memory.h"

#include <math.h>
#include <talloc.h>
#include <unistd.h>

enum { MOST_ENTRIES = 64, MOST_LAYERS = 64, LIMIT_BYTES = 64 << 20 };

const char *const moe_laer_method_names[] = {"FSDP", "FLEX", "LAER", NULL};

const moe_laer_model moe_laer_models[MOE_LAER_MODELS] = {
    {"mixtral-8x7b-e16k4", 24, 16, 4, 4, 7168},
    {"mixtral-8x7b-e8k2", 32, 8, 2, 2, 14336},
};

static const char *const file_names[] = {"token.csv", "breakdown.csv", "e2e_8x7b.csv"};

double moe_laer_mean(const double values[static MOE_LAER_RANKS])
{
    double sum = 0;
    for (int rank = 0; rank < MOE_LAER_RANKS; rank++)
        sum += values[rank];
    return sum / MOE_LAER_RANKS;
}

static char *path_of(void *owner, const char *folder, const char *name)
{
    return moe_need(talloc_asprintf(owner, "%s/%s", folder, name));
}

bool moe_laer_exists(const char *folder)
{
    void *scratch = talloc_new(NULL);
    bool all = true;
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++)
        all = all && access(path_of(scratch, folder, file_names[i]), R_OK) == 0;
    talloc_free(scratch);
    return all;
}

/* --- one file --------------------------------------------------------------------------------- */

enum { COLUMNS = 8 };

typedef struct reader {
    moe_csv csv;
    int columns[COLUMNS]; /* of the names asked for */
    int errors;           /* before this file */
    moe_diag *diag;
} reader;

/* `names`: NULL-terminated; every one has to be a column. */
static bool open_file(reader *file, void *owner, const char *folder, const char *name,
                      const char *const *names, moe_diag *diag)
{
    size_t length;
    char *text = moe_input_read(owner, path_of(owner, folder, name), LIMIT_BYTES, &length,
                                (moe_where){0}, diag);
    if (!text)
        return false;
    file->diag = diag;
    file->errors = moe_diag_error_count(diag);
    const moe_source *source = moe_diag_source(diag, path_of(owner, folder, name), text, length);
    if (!moe_csv_open(&file->csv, source, diag))
        return false;
    for (int i = 0; names[i]; i++) {
        file->columns[i] = moe_csv_column(&file->csv, names[i]);
        if (file->columns[i] < 0)
            moe_diag_error(diag, (moe_where){source, 1, 1}, "there is no column \"%s\"", names[i]);
    }
    return moe_diag_error_count(diag) == file->errors;
}

static bool sound(const reader *file)
{
    return moe_diag_error_count(file->diag) == file->errors;
}

static moe_span field(const reader *file, int name)
{
    return file->csv.fields[file->columns[name]];
}

static bool number(const reader *file, int name, bool whole, double high, double *value)
{
    return moe_csv_number(&file->csv, file->columns[name], whole, 0, high, value);
}

/* The case of a row, or NULL: not one of ours ("megatron"; other models). */
static moe_laer_case *case_of(moe_laer_data *data, const reader *file, int model, int method,
                              const moe_laer_model **which)
{
    for (int m = 0; m < MOE_LAER_MODELS; m++)
        for (int k = 0; k < MOE_LAER_METHODS; k++)
            if (moe_span_is(field(file, model), moe_laer_models[m].name) &&
                moe_span_is(field(file, method), moe_laer_method_names[k])) {
                *which = &moe_laer_models[m];
                return &data->cases[m][k];
            }
    return NULL;
}

/* --- the three files -------------------------------------------------------------------------- */

static void add_rows(moe_laer_case *of, const moe_laer_model *model, const reader *file)
{
    double rank, layer, entry, rows;
    if (!number(file, 0, true, MOE_LAER_RANKS - 1, &rank) ||
        !number(file, 3, true, model->layers - 1, &layer) ||
        !number(file, 4, true, MOST_ENTRIES - 1, &entry) || !number(file, 5, true, 1e9, &rows))
        return;
    const size_t at =
        ((size_t)entry * (size_t)model->layers + (size_t)layer) * MOE_LAER_RANKS + (size_t)rank;
    if (!isnan(of->rows[at]))
        moe_diag_error(file->diag, moe_csv_where(&file->csv, file->columns[0]),
                       "rank, layer and iter a second time");
    of->rows[at] = rows;
    if (entry + 1 > of->entries)
        of->entries = (int)entry + 1;
}

static bool rows_complete(const moe_laer_data *data, moe_diag *diag)
{
    for (int m = 0; m < MOE_LAER_MODELS; m++)
        for (int k = 0; k < MOE_LAER_METHODS; k++) {
            const moe_laer_case *of = &data->cases[m][k];
            const size_t count =
                (size_t)of->entries * (size_t)moe_laer_models[m].layers * MOE_LAER_RANKS;
            bool whole = of->entries >= MOE_LAER_MICRO_BATCHES;
            for (size_t i = 0; whole && i < count; i++)
                whole = !isnan(of->rows[i]);
            if (!whole) {
                moe_diag_error(diag, (moe_where){0},
                               "token.csv: rows of %s %s are missing; expected every rank, layer "
                               "and iter",
                               moe_laer_models[m].name, moe_laer_method_names[k]);
                return false;
            }
        }
    return true;
}

static void reserve_rows(moe_laer_data *data)
{
    for (int m = 0; m < MOE_LAER_MODELS; m++)
        for (int k = 0; k < MOE_LAER_METHODS; k++) {
            const size_t count =
                (size_t)MOST_ENTRIES * (size_t)moe_laer_models[m].layers * MOE_LAER_RANKS;
            double *rows = moe_need(talloc_array(data, double, (unsigned)count));
            for (size_t i = 0; i < count; i++)
                rows[i] = NAN;
            data->cases[m][k].rows = rows;
        }
}

static bool read_tokens(moe_laer_data *data, const char *folder, moe_diag *diag)
{
    static const char *const names[] = {"rank", "method",    "model_name", "layer",
                                        "iter", "token_num", NULL};
    reader file;
    const moe_laer_model *model;
    if (!open_file(&file, data, folder, "token.csv", names, diag))
        return false;
    reserve_rows(data);
    while (moe_csv_next(&file.csv)) {
        moe_laer_case *of = case_of(data, &file, 2, 1, &model);
        if (of)
            add_rows(of, model, &file);
    }
    return sound(&file) && rows_complete(data, diag);
}

static void add_breakdown(moe_laer_case *of, const reader *file)
{
    double rank, all_to_all_s, expert_s, step_s;
    if (!number(file, 0, true, MOE_LAER_RANKS - 1, &rank) ||
        !number(file, 3, false, 1e6, &all_to_all_s) || !number(file, 4, false, 1e6, &expert_s) ||
        !number(file, 5, false, 1e6, &step_s))
        return;
    of->all_to_all_s[(int)rank] = all_to_all_s;
    of->expert_s[(int)rank] = expert_s;
    of->step_s[(int)rank] = step_s;
}

static bool read_breakdown(moe_laer_data *data, const char *folder, moe_diag *diag)
{
    static const char *const names[] = {"rank",        "model_name", "method", "alltoall_time",
                                        "expert_time", "total_time", NULL};
    reader file;
    const moe_laer_model *model;
    if (!open_file(&file, data, folder, "breakdown.csv", names, diag))
        return false;
    while (moe_csv_next(&file.csv)) {
        moe_laer_case *of = case_of(data, &file, 1, 2, &model);
        if (of)
            add_breakdown(of, &file);
    }
    return sound(&file);
}

static bool read_steps(moe_laer_data *data, const char *folder, moe_diag *diag)
{
    static const char *const names[] = {"dataset",  "method",      "model_name",
                                        "aux_loss", "avg_time_ms", NULL};
    reader file;
    const moe_laer_model *model;
    double loss, ms;
    if (!open_file(&file, data, folder, "e2e_8x7b.csv", names, diag))
        return false;
    while (moe_csv_next(&file.csv)) {
        moe_laer_case *of = case_of(data, &file, 2, 1, &model);
        if (of && moe_span_is(field(&file, 0), "wikitext") && number(&file, 3, false, 1, &loss) &&
            loss == 0 && number(&file, 4, false, 1e9, &ms))
            of->mean_step_s = 1e-3 * ms;
    }
    return sound(&file);
}

moe_laer_data *moe_laer_read(void *owner, const char *folder, moe_diag *diag)
{
    moe_laer_data *data = moe_need(talloc_zero(owner, moe_laer_data));
    if (read_tokens(data, folder, diag) && read_breakdown(data, folder, diag) &&
        read_steps(data, folder, diag))
        return data;
    talloc_free(data);
    return NULL;
}
