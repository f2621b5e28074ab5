#include "configs/preset.h"

#include "configs/base/memory.h"
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>
#include <unistd.h>

/* A data folder that is the working folder is left out: shorter to read and to retype. */
static const char *data_folder(void)
{
    const char *folder = getenv("MOEPLAN_DATA");
    if (folder && *folder)
        return folder;
    char here[PATH_MAX];
    if (getcwd(here, sizeof here) && strcmp(here, MOEPLAN_DATA_DIR) == 0)
        return ".";
    return MOEPLAN_DATA_DIR;
}

static char *preset_path(void *owner, const char *folder, const char *file)
{
    const char *data = data_folder();
    if (strcmp(data, ".") == 0)
        return moe_need(talloc_asprintf(owner, "%s/%s", folder, file));
    return moe_need(talloc_asprintf(owner, "%s/%s/%s", data, folder, file));
}

static int is_preset(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && dot && strcmp(dot, ".yaml") == 0;
}

const char **moe_preset_names(void *owner, const char *folder, size_t *count)
{
    struct dirent **files;
    char *path = preset_path(owner, folder, "");
    int found = scandir(path, &files, is_preset, alphasort);
    *count = found < 0 ? 0 : (size_t)found;
    const char **names = moe_need(talloc_zero_array(owner, const char *, *count + 1));
    for (size_t i = 0; i < *count; i++) {
        size_t stem = strlen(files[i]->d_name) - strlen(".yaml");
        names[i] = moe_need(talloc_strndup(names, files[i]->d_name, stem));
        free(files[i]);
    }
    if (found >= 0)
        free(files);
    talloc_free(path);
    return names;
}

char *moe_preset_file(void *owner, const char *folder, const char *name)
{
    if (strchr(name, '/'))
        return NULL;
    char *file = moe_need(talloc_asprintf(owner, "%s.yaml", name));
    char *path = preset_path(owner, folder, file);
    talloc_free(file);
    if (access(path, R_OK) == 0)
        return path;
    talloc_free(path);
    return NULL;
}

char *moe_preset_find(void *owner, const char *folder, const char *kind, const char *name,
                      moe_diag *diag)
{
    if (access(name, F_OK) == 0 || strchr(name, '/'))
        return moe_need(talloc_strdup(owner, name));
    char *path = moe_preset_file(owner, folder, name);
    if (path)
        return path;
    size_t count;
    const char **names = moe_preset_names(owner, folder, &count);
    const char *closest = moe_closest(name, names, count);
    moe_diag_error(diag, (moe_where){0},
                   "there is no file and no preset \"%s\"%s%s%s (`moeplan list %s`)", name,
                   closest ? "; did you mean \"" : "", closest ? closest : "", closest ? "\"?" : "",
                   kind);
    talloc_free(names);
    return NULL;
}
