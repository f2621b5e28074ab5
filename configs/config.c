#include "configs/config.h"
#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <stdlib.h>
#include <talloc.h>

static int compare_bound(const void *a, const void *b)
{
    const moe_bound *left = a, *right = b;
    if (left->address != right->address) {
        return left->address < right->address ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

/* Overrides, then binding; frees the config and returns NULL if anything was wrong. */
static moe_config *finish(moe_binder *binder, moe_node *root, const char *const *overrides,
                          size_t count, int errors_before)
{
    moe_config *config = binder->config;
    if (root) {
        for (size_t i = 0; i < count; i++) {
            moe_override_apply(binder, root, overrides[i]);
        }
        moe_bind_root(binder, root);
    }
    talloc_free(binder->nodes);
    if (!root || moe_diag_error_count(binder->diag) > errors_before) {
        talloc_free(config);
        return NULL;
    }
    qsort(config->bound, config->bound_count, sizeof *config->bound, compare_bound);
    return config;
}

static moe_binder start(void *owner, const moe_table *table, moe_diag *diag)
{
    moe_config *config = moe_need(talloc_zero(owner, moe_config));
    config->table = table;
    config->root = moe_need(talloc_zero_size(config, table->size > 0 ? table->size : 1));
    return (moe_binder){.config = config, .nodes = moe_need(talloc_new(NULL)), .diag = diag};
}

moe_config *moe_config_load(void *owner, const char *path, const moe_table *root,
                            const char *const *overrides, size_t override_count, moe_diag *diag)
{
    const int errors_before = moe_diag_error_count(diag);
    moe_binder binder = start(owner, root, diag);
    moe_node *tree = moe_file_load(&binder, path, (moe_where){.source = NULL}, NULL);
    return finish(&binder, tree, overrides, override_count, errors_before);
}

moe_config *moe_config_load_text(void *owner, const char *name, const char *text, size_t length,
                                 const moe_table *root, const char *const *overrides,
                                 size_t override_count, moe_diag *diag)
{
    const int errors_before = moe_diag_error_count(diag);
    moe_binder binder = start(owner, root, diag);
    moe_node *tree = moe_file_load_text(&binder, name, text, length);
    return finish(&binder, tree, overrides, override_count, errors_before);
}

void *moe_config_root(const moe_config *config)
{
    return config->root;
}

/* The first entry whose address is not below `address`. */
static size_t first_at(const moe_config *config, const void *address)
{
    size_t low = 0, high = config->bound_count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if ((const char *)config->bound[middle].address < (const char *)address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const moe_bound *moe_config_bound(const moe_config *config, const void *address,
                                  const moe_field *field)
{
    for (size_t i = first_at(config, address);
         i < config->bound_count && config->bound[i].address == address; i++) {
        if (config->bound[i].field == field) {
            return &config->bound[i];
        }
    }
    return NULL;
}

/* The innermost entry: of a map and its first member, the member. */
static const moe_bound *innermost(const moe_config *config, const void *address)
{
    const moe_bound *found = NULL;
    for (size_t i = first_at(config, address);
         i < config->bound_count && config->bound[i].address == address; i++) {
        found = &config->bound[i];
    }
    return found;
}

moe_where moe_config_where(const moe_config *config, const void *member)
{
    const moe_bound *found = innermost(config, member);
    return found ? found->where : (moe_where){.source = NULL};
}

bool moe_config_given(const moe_config *config, const void *member)
{
    const moe_bound *found = innermost(config, member);
    return found && found->origin == MOE_ORIGIN_GIVEN;
}

json_t *moe_config_digests(const moe_config *config)
{
    json_t *digests = moe_need(json_object());
    for (size_t i = 0; i < config->digest_count; i++) {
        if (json_object_set_new(digests, config->digests[i].path,
                                json_string(config->digests[i].hex)) != 0) {
            moe_out_of_memory();
        }
    }
    return digests;
}
