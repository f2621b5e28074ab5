/* moeplan list KIND [--json]: what is known by name. */
#include "reports/catalogue.h"
#include "reports/commands.h"

#include "configs/base/status.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

typedef struct list_arguments {
    const char *kind;
    bool json;
} list_arguments;

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    list_arguments *arguments = state->input;
    if (key == 'j')
        arguments->json = true;
    else if (key == ARGP_KEY_ARG && !arguments->kind)
        arguments->kind = value;
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "one JSON array of objects with name, sentence and, for presets, file",
     0},
    {NULL, 0, NULL, 0, NULL, 0},
};
static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .args_doc = "policies|engines|clusters|models|scenarios|profiles|importers|validations",
    .doc = "Lists what can be named in a scenario, with one sentence each.",
};

static int say_kinds(const char *wrong)
{
    const char *names[16];
    size_t count = 0;
    for (const moe_catalogue_kind *kind = moe_catalogue_kinds; kind->name; kind++)
        names[count++] = kind->name;
    if (wrong)
        fprintf(stderr, "moeplan list: nothing is called \"%s\"", wrong);
    else
        fprintf(stderr, "moeplan list: expected what to list");
    const char *closest = wrong ? moe_closest(wrong, names, count) : NULL;
    if (closest)
        fprintf(stderr, "; did you mean \"%s\"", closest);
    fprintf(stderr, "; there are:");
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
    return MOE_USAGE;
}

static void print_entries(const json_t *entries)
{
    int width = 0;
    size_t index;
    json_t *entry;
    json_array_foreach(entries, index, entry)
    {
        int length = (int)strlen(json_string_value(json_object_get(entry, "name")));
        width = length > width ? length : width;
    }
    json_array_foreach(entries, index, entry)
    {
        printf("%-*s  %s\n", width, json_string_value(json_object_get(entry, "name")),
               json_string_value(json_object_get(entry, "sentence")));
    }
}

int moe_list_command(int argc, char **argv)
{
    list_arguments arguments = {0};
    if (argp_parse(&parser, argc, argv, 0, NULL, &arguments) != 0)
        return MOE_USAGE;
    const moe_catalogue_kind *kind =
        arguments.kind ? moe_catalogue_kind_find(arguments.kind) : NULL;
    if (!kind)
        return say_kinds(arguments.kind);
    json_t *entries = moe_catalogue_list(kind);
    if (arguments.json) {
        json_dumpf(entries, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_entries(entries);
    }
    if (json_array_size(entries) == 0)
        fprintf(stderr, "moeplan list: no %s found; MOEPLAN_DATA names the folder that holds %s/\n",
                kind->name, kind->folder);
    json_decref(entries);
    return MOE_OK;
}
