/* The order of folders: a file includes only headers of its own place and of places to its left.
 *
 *     configs/base < configs < models < traces < policies < sim < sim/search < calibrate/fit <
 * reports < moeplan.c
 *
 * Tests may include anything; calibrate/measure stands alone. Besides: every quoted include is a
 * path from the root that exists, and a header's guard is its path (MOE_FOLDER_FILE_H). The checker
 * works on texts, so that it is itself tested with bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const places[] = {"configs/base", "configs",       "models",
                                     "traces",       "policies",      "sim",
                                     "sim/search",   "calibrate/fit", "reports"};
enum {
    PLACES = sizeof places / sizeof *places,
    ROOT = PLACES, /* moeplan.c: right of all places */
    ANYTHING,      /* tests */
    ALONE,         /* calibrate/measure */
    UNKNOWN,       /* a folder that is not in the table */
};

static bool is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

/* The longest folder of the table that holds `path`. */
static int place_of(const char *path)
{
    int best = UNKNOWN;
    size_t best_length = 0;
    if (!strchr(path, '/'))
        return ROOT;
    if (is_below(path, "tests"))
        return ANYTHING;
    if (is_below(path, "calibrate/measure"))
        return ALONE;
    for (int i = 0; i < PLACES; i++) {
        if (is_below(path, places[i]) && strlen(places[i]) > best_length) {
            best = i;
            best_length = strlen(places[i]);
        }
    }
    return best;
}

static bool may_include(const char *from, const char *to)
{
    int left = place_of(to), right = place_of(from);
    if (right == ANYTHING)
        return true;
    if (right == ALONE || left == ALONE)
        return left == right;
    return left < ANYTHING && right < ANYTHING && left <= right;
}

/* What is wrong with a file, one line each. */
typedef struct findings {
    char text[8192];
    size_t length;
    int count;
} findings;

__attribute__((format(printf, 2, 3))) static void find(findings *found, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(found->text + found->length, sizeof found->text - found->length, format,
                            arguments);
    va_end(arguments);
    found->count++;
    if (written > 0 && found->length + (size_t)written < sizeof found->text)
        found->length += (size_t)written;
}

static bool exists_in_tree(const char *path)
{
    char full[4096];
    snprintf(full, sizeof full, "%s/%s", MOE_TEST_SOURCE_DIR, path);
    return access(full, R_OK) == 0;
}

static void check_include(findings *found, const char *path, int line, const char *included)
{
    if (included[0] == '/' || included[0] == '.' || !exists_in_tree(included))
        find(found, "%s:%d: \"%s\" is not a path from the root that exists\n", path, line,
             included);
    else if (!may_include(path, included))
        find(found, "%s:%d: must not include \"%s\", which is not to its left\n", path, line,
             included);
}

/* `# include "x"` gives x in `name`; false for every other line. */
static bool quoted_include(const char *line, char name[static 256])
{
    line += strspn(line, " \t");
    if (*line++ != '#')
        return false;
    line += strspn(line, " \t");
    if (strncmp(line, "include", 7) != 0)
        return false;
    line += 7;
    line += strspn(line, " \t");
    return sscanf(line, "\"%255[^\"]\"", name) == 1;
}

static void guard_of(const char *path, char guard[static 256])
{
    size_t length = (size_t)snprintf(guard, 256, "MOE_%s", path);
    for (size_t i = 0; i < length && i < 255; i++)
        guard[i] = isalnum((unsigned char)guard[i]) ? (char)toupper((unsigned char)guard[i]) : '_';
}

/* The first two directives of a header are `#ifndef GUARD` and `#define GUARD`. */
static void check_guard(findings *found, const char *path, const char *text)
{
    char guard[256], expected[600];
    guard_of(path, guard);
    snprintf(expected, sizeof expected, "#ifndef %s\n#define %s\n", guard, guard);
    const char *first = text[0] == '#' ? text : strstr(text, "\n#");
    if (first && *first == '\n')
        first++;
    if (!first || strncmp(first, expected, strlen(expected)) != 0)
        find(found, "%s: its first directives are not the guard %s\n", path, guard);
}

static bool has_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path), tail = strlen(suffix);
    return length > tail && strcmp(path + length - tail, suffix) == 0;
}

static void check_text(findings *found, const char *path, const char *text)
{
    char name[256];
    int line = 1;
    if (place_of(path) == UNKNOWN)
        find(found, "%s: its folder has no place in the order\n", path);
    for (const char *at = text; at; line++) {
        if (quoted_include(at, name))
            check_include(found, path, line, name);
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    if (has_suffix(path, ".h"))
        check_guard(found, path, text);
}

/* The tree. nftw takes no context, hence the two statics. */

static findings tree_findings;
static int tree_files;

static bool is_source(const char *path)
{
    static const char *const suffixes[] = {".c", ".h", ".cpp", ".hpp", ".cu", ".cuh"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (has_suffix(path, suffixes[i]))
            return true;
    return false;
}

static bool is_ours(const char *path)
{
    return path[0] != '.' && !is_below(path, "build") && strncmp(path, "build-", 6) != 0 &&
           !is_below(path, "out");
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length = getdelim(&text, &capacity, '\0', file);
    fclose(file);
    if (length >= 0)
        return text;
    free(text);
    return strdup("");
}

static int visit(const char *full, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)where;
    const char *path = full + strlen(MOE_TEST_SOURCE_DIR) + 1;
    if (type != FTW_F || !is_source(path) || !is_ours(path))
        return 0;
    char *text = read_text(full);
    check_text(&tree_findings, path, text);
    tree_files++;
    free(text);
    return 0;
}

static void test_every_file_of_the_tree(void **state)
{
    (void)state;
    assert_int_equal(nftw(MOE_TEST_SOURCE_DIR, visit, 16, FTW_PHYS), 0);
    assert_true(tree_files > 50);
    if (tree_findings.count)
        fail_msg("%d findings:\n%s", tree_findings.count, tree_findings.text);
}

/* The checker. */

static int count_findings(const char *path, const char *text)
{
    findings found = {0};
    check_text(&found, path, text);
    return found.count;
}

static void test_places(void **state)
{
    (void)state;
    assert_int_equal(place_of("configs/base/diag.h"), 0);
    assert_int_equal(place_of("configs/config.c"), 1);
    assert_int_equal(place_of("policies/placement/ep.c"), 4);
    assert_int_equal(place_of("sim/run.c"), 5);
    assert_int_equal(place_of("sim/search/best.c"), 6);
    assert_int_equal(place_of("moeplan.c"), ROOT);
    assert_int_equal(place_of("tests/fuzz/fuzz_config.c"), ANYTHING);
    assert_int_equal(place_of("calibrate/measure/gemm.cu"), ALONE);
    assert_int_equal(place_of("utilities/strings.c"), UNKNOWN);
}

static void test_order_is_enforced(void **state)
{
    (void)state;
    assert_int_equal(count_findings("sim/x.c", "#include \"models/cluster.h\"\n"), 0);
    assert_int_equal(count_findings("sim/x.c", "#include \"sim/engine.h\"\n"), 0);
    assert_int_equal(count_findings("tests/x.c", "#include \"reports/commands.h\"\n"), 0);
    assert_int_equal(count_findings("moeplan.c", "#include \"reports/commands.h\"\n"), 0);
    assert_int_equal(count_findings("models/x.c", "int a;\n  #  include \"sim/engine.h\"\n"), 1);
    assert_int_equal(count_findings("policies/placement/x.c", "#include \"sim/engine.h\""), 1);
    assert_int_equal(count_findings("configs/base/x.c", "#include \"configs/config.h\"\n"), 1);
    assert_int_equal(count_findings("calibrate/measure/x.cu", "#include \"configs/config.h\"\n"),
                     1);
    assert_int_equal(count_findings("utilities/x.c", "int a;\n"), 1);
}

static void test_includes_are_paths_that_exist(void **state)
{
    (void)state;
    assert_int_equal(count_findings("sim/x.c", "#include \"engine.h\"\n"), 1);
    assert_int_equal(count_findings("sim/x.c", "#include \"../sim/engine.h\"\n"), 1);
    assert_int_equal(count_findings("sim/x.c", "#include \"sim/no_such_header.h\"\n"), 1);
    assert_int_equal(count_findings("sim/x.c", "#include <stdio.h>\n"), 0);
    assert_int_equal(count_findings("sim/x.c", "// #include \"engine.h\"\nchar *s = \"#include\";"),
                     0);
}

static void test_guards(void **state)
{
    (void)state;
    static const char good[] = "/* A note. */\n#ifndef MOE_SIM_X_H\n#define MOE_SIM_X_H\n#endif\n";
    assert_int_equal(count_findings("sim/x.h", good), 0);
    assert_int_equal(count_findings("sim/y.h", good), 1);
    assert_int_equal(count_findings("configs/base/x.h", good), 1);
    assert_int_equal(count_findings("sim/x.h", "#include <stdio.h>\n"), 1);
    assert_int_equal(count_findings("sim/x.h", ""), 1);
    assert_int_equal(count_findings("sim/x.h", "#ifndef MOE_SIM_X_H\n#define MOE_SIM_Y_H\n"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_order_is_enforced),
        cmocka_unit_test(test_includes_are_paths_that_exist),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_every_file_of_the_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
