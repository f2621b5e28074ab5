/* What --out DIR leaves. */
#include "reports/validation/validation_private.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"
#include <talloc.h>

static moe_output *open_file(void *owner, const moe_validation_outcome *outcome, const char *folder,
                             const char *ending, moe_diag *diag)
{
    const char *path =
        moe_need(talloc_asprintf(owner, "%s/%s.%s", folder, outcome->suite->name, ending));
    return moe_output_open(owner, path, diag);
}

static moe_status write_json(void *owner, const moe_validation_outcome *outcome, const char *folder,
                             moe_diag *diag)
{
    moe_output *output = open_file(owner, outcome, folder, "json", diag);
    if (output == NULL)
        return MOE_BAD_INPUT;
    json_t *json = moe_validation_json(outcome);
    json_dumpf(json, moe_output_stream(output),
               JSON_INDENT(1)); /* a failed write shows at commit */
    fputc('\n', moe_output_stream(output));
    json_decref(json);
    return moe_output_commit(output, diag);
}

static moe_status write_markdown(void *owner, const moe_validation_outcome *outcome,
                                 const char *folder, bool drawn, moe_diag *diag)
{
    moe_output *output = open_file(owner, outcome, folder, "md", diag);
    if (output == NULL)
        return MOE_BAD_INPUT;
    const char *picture = moe_need(talloc_asprintf(owner, "%s.svg", outcome->suite->name));
    moe_validation_markdown(outcome, drawn ? picture : NULL, moe_output_stream(output));
    return moe_output_commit(output, diag);
}

moe_status moe_validation_write(const moe_validation_outcome *outcome, const char *folder,
                                moe_diag *diag)
{
    if (outcome->skipped != NULL)
        return MOE_OK;
    void *owner = moe_need(talloc_new(NULL));
    bool drawn = false;
    moe_status status = moe_folder_create(folder, diag);
    if (status == MOE_OK)
        status = moe_validation_plot(outcome, folder, &drawn, diag);
    if (status == MOE_OK)
        status = write_json(owner, outcome, folder, diag);
    if (status == MOE_OK)
        status = write_markdown(owner, outcome, folder, drawn, diag);
    talloc_free(owner);
    return status;
}
