#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the headers above first. */
#include "configs/config.h"
#include "tests/toy_config.h"
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <talloc.h>
#include <unistd.h>

#ifndef MOE_TEST_SOURCE_DIR
#define MOE_TEST_SOURCE_DIR "."
#endif

/* One load and its messages. */
typedef struct trial {
    void *owner;
    char **buffer; /* of the stream; stays where it is when the trial is copied */
    char *messages;
    FILE *stream;
    moe_diag *diag;
    moe_config *config;
    const toy_scenario *scenario;
} trial;

static trial begin(void)
{
    trial t = {.owner = talloc_new(NULL)};
    t.buffer = talloc_zero(t.owner, char *);
    t.stream = open_memstream(t.buffer, talloc(t.owner, size_t));
    t.diag = moe_diag_create(t.owner, t.stream);
    return t;
}

static void look(trial *t)
{
    fflush(t->stream);
    t->messages = *t->buffer;
    t->scenario = t->config ? moe_config_root(t->config) : NULL;
}

static void end(trial *t)
{
    fclose(t->stream);
    free(*t->buffer);
    talloc_free(t->owner);
}

static trial load_with(const char *text, const char *const *overrides, size_t count)
{
    trial t = begin();
    t.config = moe_config_load_text(t.owner, "t.yaml", text, strlen(text), &toy_scenario_table,
                                    overrides, count, t.diag);
    look(&t);
    return t;
}

static trial load(const char *text)
{
    trial t = load_with(text, NULL, 0);
    if (!t.config) {
        fail_msg("%s", t.messages);
    }
    return t;
}

static trial load_file(const char *path, const char *const *overrides, size_t count)
{
    trial t = begin();
    t.config = moe_config_load(t.owner, path, &toy_scenario_table, overrides, count, t.diag);
    look(&t);
    return t;
}

static void refuse(const char *text, const char *const *overrides, size_t count,
                   const char *messages)
{
    trial t = load_with(text, overrides, count);
    assert_null(t.config);
    assert_string_equal(t.messages, messages);
    end(&t);
}

static char *dump_of(const trial *t)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    moe_config_dump(t->config, stream);
    fclose(stream);
    return text;
}

/* With every kind of value, in every style. */
static const char whole[] = "title: \"a: \\\"b\\\"\\tü # \\\\\"\n"
                            "cluster:\n"
                            "  hosts: 1k\n"
                            "  bandwidth: '100 GB/s'\n"
                            "  latency: 1.3 us\n"
                            "  memory: 12345678901 B\n"
                            "  skew: -0.3333333333333333\n"
                            "  topology: full\n"
                            "  shared: true\n"
                            "  image: /x/y z.png\n"
                            "  loads: [0.1, 1/3, 15 %]\n"
                            "  curve:\n"
                            "  - [1 kB, 1 us]\n"
                            "  - [1 MiB, 3.3 ms]\n"
                            "trace: {file: /t.bin}\n"
                            "policies:\n"
                            "- name: greedy\n"
                            "- {name: b, policy: fixed}\n"
                            "- {name: c, policy: greedy, slack: 1/7, window: 3}\n"
                            "seed: 9007199254740992\n"
                            "price: $2.50/h\n";

static void binds_every_type(void **state)
{
    (void)state;
    trial t = load(whole);
    const toy_cluster *cluster = &t.scenario->cluster;
    assert_string_equal(t.scenario->title, "a: \"b\"\tü # \\");
    assert_int_equal(cluster->hosts, 1000);
    assert_true(cluster->bandwidth_bytes_per_s == 1e11);
    assert_true(cluster->latency_s == 1.3e-6);
    assert_true(cluster->memory_bytes == 12345678901.0);
    assert_true(cluster->skew == -0.3333333333333333);
    assert_int_equal(cluster->topology, 2);
    assert_true(cluster->shared);
    assert_string_equal(cluster->image, "/x/y z.png");
    assert_int_equal(cluster->loads.count, 3);
    assert_true(cluster->loads.values[1] == 1.0 / 3 && cluster->loads.values[2] == 0.15);
    assert_int_equal(cluster->curve.count, 2);
    assert_true(cluster->curve.x[1] == 1048576 && cluster->curve.y[1] == 3.3e-3);
    assert_true(t.scenario->seed == INT64_C(1) << 53);
    assert_true(t.scenario->price == 2.5);
    end(&t);
}

static void binds_variants(void **state)
{
    (void)state;
    trial t = load(whole);
    const toy_policy *policies = t.scenario->policies.items;
    assert_int_equal(t.scenario->policies.count, 3);
    const toy_greedy *a = policies[0].options, *c = policies[2].options;
    assert_int_equal(a->window, 10);
    assert_true(a->slack == 0.05);
    assert_non_null(policies[1].options);
    assert_null(policies[0].policy);
    assert_int_equal(c->window, 3);
    assert_true(c->slack == 1.0 / 7);
    assert_int_equal(moe_config_where(t.config, &c->slack).line, 19);
    end(&t);
}

static void takes_defaults(void **state)
{
    (void)state;
    trial t = load("cluster: {hosts: 4}\n");
    const toy_cluster *cluster = &t.scenario->cluster;
    const toy_policy *policy = t.scenario->policies.items;
    assert_true(cluster->bandwidth_bytes_per_s == 5e10);
    assert_true(cluster->skew == -0.1);
    assert_int_equal(cluster->topology, 1);
    assert_true(cluster->loads.values[1] == 20.0 / 132);
    assert_null(cluster->image);
    assert_int_equal(cluster->curve.count, 0);
    assert_null(t.scenario->title);
    assert_null(t.scenario->trace.file);
    assert_true(t.scenario->trace.repeat == 1); /* a map nobody wrote has defaults too */
    assert_int_equal(t.scenario->policies.count, 1);
    assert_int_equal(((const toy_greedy *)policy->options)->window, 7);
    assert_int_equal(t.scenario->seed, 1);
    end(&t);
}

static void expect_place(const trial *t, const void *member, const char *name, int line, int column,
                         bool given)
{
    const moe_where where = moe_config_where(t->config, member);
    assert_non_null(where.source);
    assert_string_equal(where.source->name, name);
    assert_int_equal(where.line, line);
    assert_int_equal(where.column, column);
    assert_int_equal(moe_config_given(t->config, member), given);
}

static void knows_places(void **state)
{
    (void)state;
    const char *const overrides[] = {"cluster.latency=7 us", "policies.1.name=fixed"};
    trial t = load_with(
        "title: x\ncluster:\n  hosts: 4\n  loads: [0.5,\n    0.25]\npolicies:\n  - name: greedy\n",
        overrides, 2);
    const toy_policy *policies = t.scenario->policies.items;
    expect_place(&t, &t.scenario->cluster.hosts, "t.yaml", 3, 10, true);
    expect_place(&t, &t.scenario->cluster.latency_s, "--set cluster.latency=7 us", 1, 17, true);
    expect_place(&t, &t.scenario->cluster.skew, "t.yaml", 3, 3, false);
    expect_place(&t, &t.scenario->cluster.loads.values[1], "t.yaml", 5, 5, true);
    expect_place(&t, &t.scenario->policies, "t.yaml", 7, 3, true);
    expect_place(&t, &policies[0].name, "t.yaml", 7, 11, true);
    expect_place(&t, &policies[1].name, "--set policies.1.name=fixed", 1, 17, true);
    expect_place(&t, &((const toy_greedy *)policies[0].options)->slack, "t.yaml", 7, 5, false);
    expect_place(&t, &t.scenario->trace.repeat, "t.yaml", 1, 1, false);
    expect_place(&t, &t.scenario->seed, "t.yaml", 1, 1, false);
    assert_null(moe_config_where(t.config, &t).source);
    assert_false(moe_config_given(t.config, &t));
    end(&t);
    t = load("cluster: {hosts: 4}\n");
    policies = t.scenario->policies.items;
    expect_place(&t, &policies[0].name, "t.yaml", 1, 1, false); /* from the default list */
    expect_place(&t, &t.scenario->cluster.loads.values[0], "t.yaml", 1, 10, false);
    end(&t);
}

static void expect_round_trip(const char *text)
{
    trial first = load(text);
    char *dump = dump_of(&first);
    trial second = load(dump);
    char *again = dump_of(&second);
    assert_string_equal(dump, again);
    const toy_scenario *a = first.scenario, *b = second.scenario;
    /* Up to the first pointer, then number by number. */
    assert_memory_equal(&a->cluster, &b->cluster, offsetof(toy_cluster, shared) + sizeof(bool));
    assert_int_equal(a->cluster.loads.count, b->cluster.loads.count);
    assert_memory_equal(a->cluster.loads.values, b->cluster.loads.values,
                        a->cluster.loads.count * sizeof(double));
    assert_int_equal(a->cluster.curve.count, b->cluster.curve.count);
    assert_memory_equal(a->cluster.curve.x, b->cluster.curve.x,
                        a->cluster.curve.count * sizeof(double));
    assert_memory_equal(a->cluster.curve.y, b->cluster.curve.y,
                        a->cluster.curve.count * sizeof(double));
    assert_int_equal(a->cluster.grid.count, b->cluster.grid.count);
    assert_int_equal(a->cluster.grid.width, b->cluster.grid.width);
    assert_memory_equal(a->cluster.grid.values, b->cluster.grid.values,
                        a->cluster.grid.count * a->cluster.grid.width * sizeof(double));
    assert_int_equal(a->title != NULL, b->title != NULL);
    assert_true(!a->title || strcmp(a->title, b->title) == 0);
    assert_true(!a->trace.file || strcmp(a->trace.file, b->trace.file) == 0);
    assert_int_equal(a->policies.count, b->policies.count);
    assert_true(a->seed == b->seed && a->price == b->price);
    free(dump);
    free(again);
    end(&first);
    end(&second);
}

static void dumps_load_again(void **state)
{
    (void)state;
    expect_round_trip(whole);
    expect_round_trip("cluster: {hosts: 4}\n");
    expect_round_trip("cluster: {hosts: 4, curve: [], loads: []}\npolicies: []\ntitle: 'null'\n");
    expect_round_trip("cluster: {hosts: 4, grid: [[1, 2.5e-6, 3], [4, 0.1, 6]]}\n");
    expect_round_trip("cluster: {hosts: 4, grid: []}\n");
    expect_round_trip("cluster: {hosts: 4}\ntitle: ''\n");
    expect_round_trip("cluster: {hosts: 4}\ntitle: |\n  two\n  lines\n");
    expect_round_trip("cluster: {hosts: 4}\ntitle: '- x'\n");
    expect_round_trip(
        "cluster: {hosts: 4, latency: 0.1 us, skew: 0.1}\nprice: $0.0333/h\ntitle: yes\n");
}

static void dump_reads_well(void **state)
{
    (void)state;
    trial t = load("cluster: {hosts: 4}\ntitle: two words\npolicies: [{name: p, policy: fixed}]\n");
    char *dump = dump_of(&t);
    assert_string_equal(dump, "cluster:\n"
                              "  hosts: 4\n"
                              "  bandwidth: 50 GB/s\n"
                              "  latency: 5 us\n"
                              "  memory: 40 GiB\n"
                              "  skew: -0.1\n"
                              "  topology: tree\n"
                              "  shared: false\n"
                              "  loads: [0.25, 0.15151515151515152]\n"
                              "title: \"two words\"\n"
                              "policies:\n"
                              "  - name: p\n"
                              "    policy: fixed\n"
                              "seed: 1\n");
    free(dump);
    end(&t);
}

static void reads_rows(void **state)
{
    (void)state;
    static const char *const sets[] = {"cluster.grid.1=[7, 8]", "cluster.grid.2=[9, 10]",
                                       "cluster.grid.0.1=5e-7"};
    trial t = load_with("cluster:\n  hosts: 4\n  grid:\n    - [1, 2]\n    - [3, 4]\n", sets, 3);
    const moe_rows *grid = &t.scenario->cluster.grid;
    assert_non_null(t.config);
    assert_int_equal(grid->count, 3);
    assert_int_equal(grid->width, 2);
    static const double expected[] = {1, 5e-7, 7, 8, 9, 10};
    assert_memory_equal(grid->values, expected, sizeof expected);
    expect_place(&t, &grid->values[0], "t.yaml", 4, 8, true);
    end(&t);
    refuse("cluster: {hosts: 4, grid: [[1, 2], [3], 4, [5, x], [7, -8]]}\n", NULL, 0,
           "t.yaml:1:36: error: a row of 1 numbers in \"grid\"; expected 2, as in the first row\n"
           "  cluster: {hosts: 4, grid: [[1, 2], [3], 4, [5, x], [7, -8]]}\n"
           "                                     ^\n"
           "t.yaml:1:41: error: a single value for \"grid\"; expected a list of equally long lists, "
           "each a number such as \"1.5\"\n"
           "  cluster: {hosts: 4, grid: [[1, 2], [3], 4, [5, x], [7, -8]]}\n"
           "                                          ^\n");
}

static void prints_every_error(void **state)
{
    (void)state;
    refuse(
        "cluster:\n  hots: 4\n  latency: 5\nseed: -1\npolicies: [{name: greedi}]\n", NULL, 0,
        "t.yaml:2:3: error: unknown key \"hots\" in cluster; did you mean \"hosts\"?\n"
        "    hots: 4\n"
        "    ^\n"
        "t.yaml:2:3: error: no key \"hosts\" in cluster; expected a whole number such as \"32\" or "
        "\"4k\"\n"
        "    hots: 4\n"
        "    ^\n"
        "t.yaml:3:13: error: no unit in \"5\"; expected a time such as \"5 us\" or \"1.6e-5 s\"\n"
        "    latency: 5\n"
        "              ^\n"
        "t.yaml:5:19: error: unknown policy \"greedi\"; did you mean \"greedy\"? "
        "(expected one of: greedy, fixed)\n"
        "  policies: [{name: greedi}]\n"
        "                    ^\n"
        "t.yaml:4:7: error: a sign in \"-1\"; expected a whole number such as \"32\" or \"4k\"\n"
        "  seed: -1\n"
        "        ^\n");
}

static void a_duplicate_names_the_first(void **state)
{
    (void)state;
    refuse("seed: 1\ntitle: x\nseed: 2\n", NULL, 0,
           "t.yaml:3:1: error: duplicate key \"seed\"; expected each key once\n"
           "  seed: 2\n"
           "  ^\n"
           "t.yaml:1:1: note: first given here\n"
           "  seed: 1\n"
           "  ^\n");
}

/* Compares the first message of every tests/bad/yaml file with the text beside it. */
static void check_bad_file(const char *name)
{
    char path[256], expected[1024] = "";
    snprintf(path, sizeof path, "%.*s.expected", (int)(strlen(name) - strlen(".yaml")), name);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(expected, sizeof expected, file)) {
        fail_msg("%s: no expected message", name);
    }
    fclose(file);
    expected[strcspn(expected, "\n")] = '\0';
    trial t = load_file(name, NULL, 0);
    assert_null(t.config);
    assert_true(moe_diag_error_count(t.diag) > 0);
    t.messages[strcspn(t.messages, "\n")] = '\0';
    assert_int_equal(strncmp(t.messages, name, strlen(name)), 0);
    assert_string_equal(t.messages + strlen(name), expected);
    end(&t);
}

static void refuses_bad_files(void **state)
{
    (void)state;
    int files = 0;
    assert_int_equal(chdir(MOE_TEST_SOURCE_DIR "/tests/bad/yaml"), 0);
    DIR *folder = opendir(".");
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot && strcmp(dot, ".yaml") == 0) {
            check_bad_file(entry->d_name);
            files++;
        }
    }
    closedir(folder);
    assert_true(files >= 90);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    trial t = load_file("/nowhere/x.yaml", NULL, 0);
    assert_null(t.config);
    assert_string_equal(
        t.messages, "moeplan: error: cannot open \"/nowhere/x.yaml\": No such file or directory\n");
    end(&t);
    t = load_file("/tmp", NULL, 0);
    assert_string_equal(t.messages, "moeplan: error: \"/tmp\" is a folder; expected a file\n");
    end(&t);
}

/* Refused by size before anything is parsed, or by count before a tree is built. */
static void refuses_too_much(void **state)
{
    (void)state;
    const size_t size = 5000000;
    char *text = malloc(size + 1);
    assert_non_null(text);
    memset(text, '#', size);
    text[size] = '\0';
    trial t = load_with(text, NULL, 0);
    assert_null(t.config);
    assert_non_null(strstr(t.messages, "expected at most 4194304"));
    end(&t);
    memcpy(text, "cluster: [", 10);
    for (size_t i = 10; i < 900000; i += 2) {
        memcpy(text + i, "0,", 2);
    }
    strcpy(text + 900000, "]\n");
    t = load_with(text, NULL, 0);
    assert_null(t.config);
    assert_non_null(strstr(t.messages, "too many values; expected at most 400000 in a file"));
    end(&t);
    free(text);
}

/* "title: [0,0,...]": `count` values. */
static void write_values(const char *path, const char *before, size_t count)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%stitle: [0", before);
    for (size_t i = 1; i < count; i++) {
        fputs(",0", file);
    }
    fputs("]\n", file);
    fclose(file);
}

/* Two files within the limit of one that together are above that of all. */
static void refuses_too_much_in_all(void **state)
{
    (void)state;
    char folder[] = "/tmp/moeplan-test-XXXXXX", root[64], part[64];
    assert_non_null(mkdtemp(folder));
    snprintf(root, sizeof root, "%s/s.yaml", folder);
    snprintf(part, sizeof part, "%s/c.yaml", folder);
    write_values(root, "cluster: c.yaml\n", 310000);
    write_values(part, "", 310000);
    trial t = load_file(root, NULL, 0);
    assert_null(t.config);
    assert_non_null(
        strstr(t.messages, "too many values; expected at most 600000 in all files together"));
    end(&t);
    unlink(root);
    unlink(part);
    rmdir(folder);
}

/* 40,000 keys: linear enough that no one notices. */
static void many_keys_are_no_trap(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    for (int i = 0; i < 40000; i++) {
        fprintf(stream, "k%d: %d\n", i % 39000, i);
    }
    fclose(stream);
    trial t = load_with(text, NULL, 0);
    assert_null(t.config);
    assert_int_equal(moe_diag_error_count(t.diag), 1000);
    end(&t);
    free(text);
}

static void accepts_a_byte_order_mark(void **state)
{
    (void)state;
    trial t = load("\xef\xbb\xbf"
                   "cluster: {hosts: 4}\n");
    expect_place(&t, &t.scenario->cluster.hosts, "t.yaml", 1, 18, true);
    end(&t);
    refuse("\xef\xbb\xbfhots: 4\ncluster: {hosts: 4}\n", NULL, 0,
           "t.yaml:1:1: error: unknown key \"hots\" in scenario; expected one of: cluster, title, "
           "trace, "
           "policies, seed, price\n  hots: 4\n  ^\n");
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static char tree_path[64];

/* scenario s.yaml -> clusters/c.yaml, which names an image beside it. */
static int plant_tree(void **state)
{
    (void)state;
    strcpy(tree_path, "/tmp/moeplan-test-XXXXXX");
    if (!mkdtemp(tree_path) || chdir(tree_path) != 0) {
        return -1;
    }
    mkdir("clusters", 0777);
    write_text("clusters/c.yaml", "hosts: 8\nimage: c.png\n");
    write_text("clusters/other.yaml", "hosts: 16\n");
    write_text("clusters/broken.yaml", "hosts: 8\nlatency: 5 uss\n");
    write_text("clusters/loop.yaml", "cluster: ../s.yaml\n");
    write_text("s.yaml", "cluster: clusters/c.yaml\ntrace: {file: t.bin}\n");
    write_text("b.yaml", "cluster: clusters/broken.yaml\n");
    write_text("m.yaml", "title: x\ncluster: clusters/missing.yaml\n");
    return 0;
}

static int fell_tree(void **state)
{
    (void)state;
    static const char *const files[] = {"clusters/c.yaml",
                                        "clusters/other.yaml",
                                        "clusters/broken.yaml",
                                        "clusters/loop.yaml",
                                        "s.yaml",
                                        "b.yaml",
                                        "m.yaml"};
    int failed = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        failed |= unlink(files[i]);
    }
    return failed | rmdir("clusters") | chdir("/tmp") | rmdir(tree_path);
}

static void follows_references(void **state)
{
    (void)state;
    trial t = load_file("s.yaml", NULL, 0);
    assert_non_null(t.config);
    assert_int_equal(t.scenario->cluster.hosts, 8);
    assert_string_equal(t.scenario->cluster.image, "clusters/c.png");
    assert_string_equal(t.scenario->trace.file, "t.bin");
    expect_place(&t, &t.scenario->cluster.hosts, "clusters/c.yaml", 1, 8, true);
    json_t *digests = moe_config_digests(t.config);
    assert_int_equal(json_object_size(digests), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(digests, "clusters/c.yaml"))), 8);
    json_decref(digests);
    char *dump = dump_of(&t);
    assert_non_null(
        strstr(dump, "/clusters/c.png")); /* absolute: the dump may be stored anywhere */
    assert_non_null(strstr(dump, tree_path));
    trial again = load(dump);
    assert_int_equal(again.scenario->cluster.hosts, 8);
    free(dump);
    end(&again);
    end(&t);
}

static void names_the_broken_file(void **state)
{
    (void)state;
    trial t = load_file("b.yaml", NULL, 0);
    assert_null(t.config);
    assert_non_null(strstr(t.messages, "clusters/broken.yaml:2:12: error: unknown unit \"uss\""));
    end(&t);
    t = load_file("m.yaml", NULL, 0);
    assert_string_equal(
        t.messages,
        "m.yaml:2:10: error: cannot open \"clusters/missing.yaml\": No such file or directory\n"
        "  cluster: clusters/missing.yaml\n"
        "           ^\n");
    end(&t);
}

static void overrides_reach_into_references(void **state)
{
    (void)state;
    const char *const inside[] = {"cluster.hosts=3", "cluster.loads.1=1/4", "trace.repeat=2"};
    trial t = load_file("s.yaml", inside, 1);
    assert_int_equal(t.scenario->cluster.hosts, 3);
    assert_string_equal(t.scenario->cluster.image, "clusters/c.png");
    end(&t);
    const char *const whole_file[] = {"cluster=clusters/other.yaml", "cluster.latency=9 us"};
    t = load_file("m.yaml", whole_file, 2); /* the missing file it named is never looked for */
    assert_non_null(t.config);
    assert_int_equal(t.scenario->cluster.hosts, 16);
    assert_true(t.scenario->cluster.latency_s == 9e-6);
    assert_null(t.scenario->cluster.image);
    end(&t);
    const char *const missing[] = {"cluster=nowhere.yaml"};
    t = load_file("s.yaml", missing, 1);
    assert_string_equal(t.messages,
                        "--set cluster=nowhere.yaml:1:9: error: cannot open \"nowhere.yaml\": "
                        "No such file or directory\n"
                        "  cluster=nowhere.yaml\n"
                        "          ^\n");
    end(&t);
}

/* From another folder, values of --set are relative to the current one, those of files to theirs.
 */
static void relative_paths_have_two_origins(void **state)
{
    (void)state;
    const char *const overrides[] = {"trace.file=mine.bin"};
    assert_int_equal(chdir("clusters"), 0);
    trial t = load_file("../s.yaml", overrides, 1);
    assert_int_equal(chdir(".."), 0);
    assert_string_equal(t.scenario->trace.file, "mine.bin");
    assert_string_equal(t.scenario->cluster.image, "../clusters/c.png");
    end(&t);
}

static void overrides_edit_maps_and_lists(void **state)
{
    (void)state;
    const char *const overrides[] = {
        "cluster.hosts=5",
        "title=a=b.c",
        "trace.file=/x",
        "policies.0.window=3",
        "policies.1.name=fixed",
        "cluster.loads.0=50 %",
        "cluster.curve.0=[1 B, 2 s]",
        "policies.2={name: q, policy: greedy}",
        "seed= 7",
        "price='$1/h'",
        "cluster.curve.0.1=3 s",
    };
    trial t = load_with("cluster: {hosts: 4}\npolicies: [{name: greedy}]\n", overrides, 11);
    if (!t.config) {
        fail_msg("%s", t.messages);
    }
    const toy_policy *policies = t.scenario->policies.items;
    assert_int_equal(t.scenario->cluster.hosts, 5);
    assert_string_equal(t.scenario->title, "a=b.c");
    assert_string_equal(t.scenario->trace.file, "/x");
    assert_int_equal(t.scenario->policies.count, 3);
    assert_int_equal(((const toy_greedy *)policies[0].options)->window, 3);
    assert_string_equal(policies[2].name, "q");
    assert_int_equal(t.scenario->cluster.loads.count, 1); /* an element replaces the default list */
    assert_true(t.scenario->cluster.loads.values[0] == 0.5);
    assert_true(t.scenario->cluster.curve.y[0] == 3);
    assert_int_equal(t.scenario->seed, 7);
    assert_true(t.scenario->price == 1);
    end(&t);
}

typedef struct override_case {
    const char *text;
    const char *message; /* the first line after "--set <text>" */
} override_case;

static const override_case bad_overrides[] = {
    {"seed", ":1:5: error: no \"=\"; expected key.key=value"},
    {"=5", ":1:1: error: an empty key; expected key.key=value"},
    {"cluster.=5", ":1:9: error: an empty key; expected key.key=value"},
    {"cluster..hosts=5", ":1:9: error: an empty key; expected key.key=value"},
    {"seed=", ":1:6: error: nothing after \"=\"; expected a value"},
    {"seed=  ", ":1:6: error: nothing after \"=\"; expected a value"},
    {"seed=null",
     ":1:6: error: no value for \"seed\"; expected a whole number such as \"32\" or \"4k\""},
    {"seed=x",
     ":1:6: error: \"x\" is not a number; expected a whole number such as \"32\" or \"4k\""},
    {"seed.x=1", ":1:6: error: \"x\" below a single value; expected a map or a list there"},
    {"policies.7.name=x", ":1:10: error: \"7\" is no element of this list; expected 0 to 1"},
    {"policies.x.name=x", ":1:10: error: \"x\" is no element of this list; expected 0 to 1"},
    {"policies.-1.name=x", ":1:10: error: \"-1\" is no element of this list; expected 0 to 1"},
    {"policies.0.widnow=1",
     ":1:12: error: unknown key \"widnow\" in policy; did you mean \"window\"?"},
    {"clutser.hosts=1",
     ":1:1: error: unknown key \"clutser\" in scenario; did you mean \"cluster\"?"},
    {"cluster.latency=5",
     ":1:18: error: no unit in \"5\"; expected a time such as \"5 us\" or \"1.6e-5 s\""},
    {"title=[1",
     ":1:9: error: not YAML: did not find expected ',' or ']'; expected a YAML document"},
    {"title=*a", ":1:7: error: an alias (*); expected a document without anchors and aliases"},
    {"title={a: 1, a: 2}", ":1:14: error: duplicate key \"a\"; expected each key once"},
    {"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1",
     ":1:65: error: nested too deeply; expected at most 32 keys"},
};

static void refuses_bad_overrides(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_overrides / sizeof bad_overrides[0]; i++) {
        const char *const text = bad_overrides[i].text;
        trial t = load_with("seed: 1\ncluster: {hosts: 4}\npolicies: [{name: greedy}]\n", &text, 1);
        assert_null(t.config);
        t.messages[strcspn(t.messages, "\n")] = '\0';
        assert_int_equal(strncmp(t.messages, "--set ", 6), 0);
        assert_int_equal(strncmp(t.messages + 6, text, strlen(text)), 0);
        assert_string_equal(t.messages + 6 + strlen(text), bad_overrides[i].message);
        end(&t);
    }
}

static void expect_explained(const char *path, const char *expected)
{
    char *text = NULL;
    size_t size;
    const char *closest = "?";
    FILE *stream = open_memstream(&text, &size);
    assert_true(moe_table_explain(&toy_scenario_table, path, stream, &closest));
    fclose(stream);
    assert_string_equal(text, expected);
    assert_null(closest);
    free(text);
}

static void explains_fields_and_tables(void **state)
{
    (void)state;
    const char *const latency = ": One way.\n\n"
                                "  type      time\n"
                                "  default   5 us\n"
                                "  range     1 ns to 10 s\n"
                                "  required  no\n";
    char expected[256];
    snprintf(expected, sizeof expected, "cluster.latency%s", latency);
    expect_explained("cluster.latency", expected);
    snprintf(expected, sizeof expected, "scenario.cluster.latency%s", latency);
    expect_explained("scenario.cluster.latency", expected);
    expect_explained("cluster.hosts", "cluster.hosts: Number of hosts.\n\n"
                                      "  type      count\n"
                                      "  default   none\n"
                                      "  range     1 to 1024\n"
                                      "  required  yes\n");
    expect_explained("policies.0.name", "policies.0.name: How results call it.\n\n"
                                        "  type      text\n"
                                        "  default   none\n"
                                        "  required  yes\n");
    expect_explained("trace", "trace: Who goes where.\n\n"
                              "  type      map\n"
                              "  default   none\n"
                              "  required  no\n\n"
                              "trace: Recorded routing.\n\n"
                              "  key     type    default     range     meaning\n"
                              "  file    path    (required)            Where the routing is.\n"
                              "  repeat  number  1           1 to 100  How often.\n");
    expect_explained("policies.greedy",
                     "policy greedy: Heaviest first.\n\n"
                     "  key     type      default  range       meaning\n"
                     "  window  count     10       at least 1  Steps.\n"
                     "  slack   fraction  5 %                  Accepted imbalance.\n");
}

static void explain_names_the_variant(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    const char *closest;
    FILE *stream = open_memstream(&text, &size);
    assert_true(moe_table_explain(&toy_scenario_table, "policies", stream, &closest));
    fclose(stream);
    assert_non_null(strstr(text,
                           "Further keys depend on \"policy\" (where that is absent, on \"name\"), "
                           "one of: greedy, fixed."));
    free(text);
}

static void explain_suggests(void **state)
{
    (void)state;
    const char *closest = NULL;
    assert_false(moe_table_explain(&toy_scenario_table, "cluster.hots", stdout, &closest));
    assert_string_equal(closest, "hosts");
    assert_false(moe_table_explain(&toy_scenario_table, "clutser.hosts", stdout, &closest));
    assert_string_equal(closest, "cluster");
    assert_false(moe_table_explain(&toy_scenario_table, "cluster.hosts.x", stdout, &closest));
    assert_null(closest);
    assert_false(moe_table_explain(&toy_scenario_table, "zzzzzz", stdout, &closest));
    assert_null(closest);
    assert_false(
        moe_table_explain(&toy_scenario_table, "policies.simulated_annealing", stdout, &closest));
}

static void reference_is_markdown(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    moe_table_reference(&toy_scenario_table, stream);
    fclose(stream);
    assert_non_null(strstr(text, "## scenario\n\nOne experiment.\n\n| key | type | default |"));
    assert_non_null(
        strstr(text, "| hosts | count | (required) | 1 to 1024 | Number of hosts. |\n"));
    assert_non_null(strstr(text, "| shared | true \\| false | false |"));
    assert_non_null(strstr(text, "## policy greedy\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binds_every_type),
        cmocka_unit_test(binds_variants),
        cmocka_unit_test(takes_defaults),
        cmocka_unit_test(knows_places),
        cmocka_unit_test(dumps_load_again),
        cmocka_unit_test(dump_reads_well),
        cmocka_unit_test(reads_rows),
        cmocka_unit_test(prints_every_error),
        cmocka_unit_test(a_duplicate_names_the_first),
        cmocka_unit_test(refuses_bad_files),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(refuses_too_much),
        cmocka_unit_test(refuses_too_much_in_all),
        cmocka_unit_test(many_keys_are_no_trap),
        cmocka_unit_test(accepts_a_byte_order_mark),
        cmocka_unit_test_setup_teardown(follows_references, plant_tree, fell_tree),
        cmocka_unit_test_setup_teardown(names_the_broken_file, plant_tree, fell_tree),
        cmocka_unit_test_setup_teardown(overrides_reach_into_references, plant_tree, fell_tree),
        cmocka_unit_test_setup_teardown(relative_paths_have_two_origins, plant_tree, fell_tree),
        cmocka_unit_test(overrides_edit_maps_and_lists),
        cmocka_unit_test(refuses_bad_overrides),
        cmocka_unit_test(explains_fields_and_tables),
        cmocka_unit_test(explain_names_the_variant),
        cmocka_unit_test(explain_suggests),
        cmocka_unit_test(reference_is_markdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
