/* Any bytes as a scenario of the toy schema: no crash, no leak, no silent refusal, and what loads
 * dumps to a text that loads and dumps the same. Bytes after the first "\n%%\n" are overrides, one
 * a line. */
#include "configs/config.h"
#include "tests/toy_config.h"
#include <stdlib.h>
#include <talloc.h>

enum { MOST_OVERRIDES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *dump_of(const moe_config *config)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    moe_config_dump(config, stream);
    fclose(stream);
    return text;
}

static void check_dump(void *owner, const moe_config *config, moe_diag *diag)
{
    char *dump = dump_of(config);
    const moe_config *again = moe_config_load_text(owner, "/fuzz/dump.yaml", dump, strlen(dump),
                                                   &toy_scenario_table, NULL, 0, diag);
    char *second = again ? dump_of(again) : NULL;
    if (!second || strcmp(dump, second) != 0) {
        fprintf(stderr, "dump does not load again:\n%s----\n%s", dump,
                second ? second : "(refused)\n");
        abort();
    }
    free(dump);
    free(second);
}

/* Splits off the overrides at the end of `text`; returns their number. */
static size_t take_overrides(char *text, const char **overrides, size_t *length)
{
    char *mark = strstr(text, "\n%%\n");
    size_t count = 0;
    if (!mark) {
        return 0;
    }
    *length = (size_t)(mark - text) + 1;
    char *rest = mark + 4, *line;
    while (count < MOST_OVERRIDES && (line = strsep(&rest, "\n"))) {
        overrides[count++] = line;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void *owner = talloc_new(NULL);
    char *text = talloc_array(owner, char, size + 1), *messages = NULL;
    const char *overrides[MOST_OVERRIDES];
    size_t length = size, message_bytes = 0;
    memcpy(text, data, size);
    text[size] = '\0';
    FILE *stream = open_memstream(&messages, &message_bytes);
    moe_diag *diag = moe_diag_create(owner, stream);
    const size_t count = take_overrides(text, overrides, &length);
    const moe_config *config = moe_config_load_text(owner, "/fuzz/input.yaml", text, length,
                                                    &toy_scenario_table, overrides, count, diag);
    if (!config && moe_diag_error_count(diag) == 0) {
        abort();
    }
    if (config) {
        check_dump(owner, config, diag);
    }
    fclose(stream);
    free(messages);
    talloc_free(owner);
    return 0;
}
