#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "configs/config_private.h"
#include <string.h>
#include <sys/stat.h>
#include <talloc.h>

static void add_digest(moe_config *config, const char *path, const char *text, size_t length)
{
    const size_t count = config->digest_count;
    config->digests =
        moe_need(talloc_realloc(config, config->digests, moe_digest_entry, count + 1));
    config->digests[count].path = moe_need(talloc_strdup(config, path));
    moe_digest(text, length, config->digests[count].hex);
    config->digest_count = count + 1;
}

static const moe_document *find_cycle(const moe_document *from, const struct stat *status)
{
    while (from && (from->device != status->st_dev || from->inode != status->st_ino)) {
        from = from->named_by;
    }
    return from;
}

/* Whether the file may be loaded here; prints why not. */
static bool admit(moe_binder *binder, const char *path, moe_where named_at,
                  const moe_document *named_by, moe_document *document)
{
    struct stat status;
    if (binder->files_loaded >= MOE_CONFIG_FILES) {
        moe_diag_error(binder->diag, named_at, "too many files; expected at most %d in all",
                       MOE_CONFIG_FILES);
        return false;
    }
    if (stat(path, &status) == 0) { /* if not, reading it says why */
        const moe_document *cycle = find_cycle(named_by, &status);
        if (cycle) {
            moe_diag_error(binder->diag, named_at,
                           "\"%s\" refers to itself (through \"%s\"); expected no cycle of files",
                           path, cycle->source->name);
            return false;
        }
        document->device = status.st_dev;
        document->inode = status.st_ino;
    }
    return true;
}

static moe_node *load_document(moe_binder *binder, moe_document *document, const char *path,
                               const char *text, size_t length)
{
    static const char mark[] = "\xef\xbb\xbf"; /* a UTF-8 byte order mark is no part of the text */
    const size_t skipped = length >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    binder->files_loaded++;
    document->nodes = &binder->values_loaded;
    add_digest(binder->config, path, text, length);
    document->path = moe_need(talloc_strdup(document, path));
    document->source = moe_diag_source(binder->diag, path, text + skipped, length - skipped);
    return moe_document_parse(binder->nodes, document, text + skipped, length - skipped, 0,
                              binder->diag);
}

moe_node *moe_file_load(moe_binder *binder, const char *path, moe_where named_at,
                        const moe_document *named_by)
{
    moe_document *document = moe_need(talloc_zero(binder->nodes, moe_document));
    size_t length;
    document->named_by = named_by;
    if (!admit(binder, path, named_at, named_by, document)) {
        return NULL;
    }
    char *text =
        moe_input_read(document, path, MOE_CONFIG_FILE_BYTES, &length, named_at, binder->diag);
    moe_node *root = text ? load_document(binder, document, path, text, length) : NULL;
    talloc_free(text);
    return root;
}

moe_node *moe_file_load_text(moe_binder *binder, const char *name, const char *text, size_t length)
{
    moe_document *document = moe_need(talloc_zero(binder->nodes, moe_document));
    if (length > MOE_CONFIG_FILE_BYTES) {
        moe_diag_error(binder->diag, (moe_where){.source = NULL},
                       "\"%s\" has %zu bytes; expected at most %d", name, length,
                       MOE_CONFIG_FILE_BYTES);
        return NULL;
    }
    return load_document(binder, document, name, text, length);
}

char *moe_node_resolve(void *owner, const moe_node *node)
{
    return moe_input_resolve(owner, node->document->path, node->text);
}

void moe_reference_expand(moe_binder *binder, moe_node *node)
{
    if (node->kind != MOE_NODE_SCALAR || moe_node_is_null(node) || node->length == 0 ||
        node->length != strlen(node->text)) {
        return; /* the binder says what is wrong with it */
    }
    char *path = moe_node_resolve(binder->nodes, node);
    const moe_node *root = moe_file_load(binder, path, node->where, node->document);
    if (root) {
        *node = *root;
    } else {
        node->kind = MOE_NODE_BROKEN;
    }
}
