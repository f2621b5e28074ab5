/* The file form of a plan: one table of members describes each object, for reading and for writing. */
#include "models/plan.h"

#include "configs/base/input.h"
#include "configs/base/memory.h"
#include "configs/base/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

static const char format_name[] = "moeplan-plan";

enum {
    VERSION = 1,
    FILE_BYTES = 32 << 20,
    NAME_BYTES = 200,
    MAX_LAYERS = 1 << 12,
    MAX_EXPERTS = 1 << 14,
    MAX_DEVICES = 1 << 16,
    MAX_WORDS = 1 << 24,  /* of all device sets: 128 MiB */
    MAX_OWNERS = 1 << 25, /* of all groups: 128 MiB */
    MAX_ERRORS = 20,
};

typedef enum member_kind { TEXT, INTEGER, REAL, ANY_OBJECT, RANGE, OBJECT } member_kind;

typedef struct member {
    const char *key;
    member_kind kind;
    size_t offset;
    double high;                  /* INTEGER: 1 (`zero`: 0) to this; REAL: 0 to this */
    bool zero;                    /* INTEGER: 0 is fine */
    const struct member *members; /* OBJECT: ends with a NULL key */
} member;

#define AT(structure, name) offsetof(structure, name)
#define COUNT_UP_TO(structure, name, most)                                                         \
    {                                                                                              \
        .key = #name, .kind = INTEGER, .offset = AT(structure, name), .high = most                 \
    }
#define AMOUNT(structure, name)                                                                    \
    {                                                                                              \
        .key = #name, .kind = REAL, .offset = AT(structure, name), .high = 1e300                   \
    }
#define NAME(structure, name)                                                                      \
    {                                                                                              \
        .key = #name, .kind = TEXT, .offset = AT(structure, name)                                  \
    }

static const member model_members[] = {NAME(moe_plan_model, name),
                                       COUNT_UP_TO(moe_plan_model, layers, MAX_LAYERS),
                                       COUNT_UP_TO(moe_plan_model, experts, MAX_EXPERTS),
                                       COUNT_UP_TO(moe_plan_model, top_k, MAX_EXPERTS),
                                       AMOUNT(moe_plan_model, expert_bytes),
                                       AMOUNT(moe_plan_model, shard_bytes),
                                       {.key = NULL}};
static const member cluster_members[] = {
    NAME(moe_plan_cluster, name),
    COUNT_UP_TO(moe_plan_cluster, hosts, MAX_DEVICES),
    COUNT_UP_TO(moe_plan_cluster, devices_per_host, MAX_DEVICES),
    {.key = NULL}};
static const member layout_members[] = {COUNT_UP_TO(moe_plan_layout, devices, MAX_DEVICES),
                                        COUNT_UP_TO(moe_plan_layout, ep, MAX_DEVICES),
                                        COUNT_UP_TO(moe_plan_layout, groups, MAX_DEVICES),
                                        {.key = NULL}};
static const member policy_members[] = {
    NAME(moe_plan_policy, name),
    NAME(moe_plan_policy, policy),
    {.key = "tunables", .kind = ANY_OBJECT, .offset = AT(moe_plan_policy, tunables)},
    {.key = NULL}};
static const member times_members[] = {AMOUNT(moe_plan_times, baseline),
                                       AMOUNT(moe_plan_times, policy),
                                       AMOUNT(moe_plan_times, plan),
                                       {.key = NULL}};
static const member spread_members[] = {AMOUNT(moe_plan_spread, p5),
                                        AMOUNT(moe_plan_spread, p50),
                                        AMOUNT(moe_plan_spread, p95),
                                        {.key = "slower_steps",
                                         .kind = INTEGER,
                                         .offset = AT(moe_plan_spread, slower_steps),
                                         .high = 1e15,
                                         .zero = true},
                                        {.key = NULL}};
static const member prediction_members[] = {
    {.key = "made_from", .kind = RANGE, .offset = AT(moe_plan_prediction, made_from)},
    {.key = "evaluated_on", .kind = RANGE, .offset = AT(moe_plan_prediction, evaluated_on)},
    NAME(moe_plan_prediction, engine),
    NAME(moe_plan_prediction, baseline),
    {.key = "step_time_s",
     .kind = OBJECT,
     .offset = AT(moe_plan_prediction, step_time_s),
     .members = times_members},
    AMOUNT(moe_plan_prediction, gain),
    {.key = "spread",
     .kind = OBJECT,
     .offset = AT(moe_plan_prediction, spread),
     .members = spread_members},
    {.key = NULL}};

/* The objects of a plan; layers, format and version stand apart. */
static const struct part {
    const char *key;
    bool required;
    size_t offset;
    const member *members;
} parts[] = {{"model", true, AT(moe_plan, model), model_members},
             {"cluster", true, AT(moe_plan, cluster), cluster_members},
             {"layout", true, AT(moe_plan, layout), layout_members},
             {"policy", false, AT(moe_plan, policy), policy_members},
             {"prediction", false, AT(moe_plan, prediction), prediction_members}};
enum { PARTS = sizeof parts / sizeof *parts };

/* --- reading: members ------------------------------------------------------------------------- */

typedef struct reader {
    moe_plan *plan;
    moe_where where;
    moe_diag *diag;
    int errors_before; /* of other files */
} reader;

static int errors_of(const reader *r)
{
    return moe_diag_error_count(r->diag) - r->errors_before;
}

/* Members of `object` into the struct at `base`; `path` names it in messages. */
static void read_members(const reader *r, const char *path, const json_t *object,
                         const member *members, char *base);

static bool is_range(const json_t *value)
{
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    return json_is_array(value) && json_array_size(value) == 2 && json_is_integer(first) &&
           json_is_integer(last) && json_integer_value(first) >= 0 &&
           json_integer_value(first) < json_integer_value(last);
}

static void refuse(const reader *r, const char *path, const char *key, const char *expected)
{
    moe_diag_error(r->diag, r->where, "%s%s%s: expected %s", path, *path ? "." : "", key, expected);
}

static void read_integer(const reader *r, const char *path, const json_t *value, const member *m,
                         char *at)
{
    int64_t low = m->zero ? 0 : 1;
    int64_t number = json_integer_value(value);
    if (json_is_integer(value) && number >= low && number <= (int64_t)m->high) {
        memcpy(at, &number, sizeof number);
        return;
    }
    char expected[64];
    snprintf(expected, sizeof expected, "an integer from %lld to %.0f", (long long)low, m->high);
    refuse(r, path, m->key, expected);
}

static void read_real(const reader *r, const char *path, const json_t *value, const member *m,
                      char *at)
{
    double number = json_number_value(value);
    if (json_is_number(value) && isfinite(number) && number >= 0)
        memcpy(at, &number, sizeof number);
    else
        refuse(r, path, m->key, "a number of at least 0");
}

static void read_text(const reader *r, const char *path, const json_t *value, const member *m,
                      char *at)
{
    const char *text = json_string_value(value);
    if (text != NULL && moe_utf8_is_printable(text, NAME_BYTES))
        memcpy(at, &text, sizeof text);
    else
        refuse(r, path, m->key, "a text of at most 200 bytes without control characters");
}

static void read_range(const reader *r, const char *path, const json_t *value, const member *m,
                       char *at)
{
    if (!is_range(value)) {
        refuse(r, path, m->key, "[first, last] with 0 <= first < last");
        return;
    }
    moe_plan_range range = {json_integer_value(json_array_get(value, 0)),
                            json_integer_value(json_array_get(value, 1))};
    memcpy(at, &range, sizeof range);
}

static void read_object(const reader *r, const char *path, json_t *value, const member *m, char *at)
{
    char inner[100];
    snprintf(inner, sizeof inner, "%s.%s", path, m->key);
    if (!json_is_object(value))
        refuse(r, path, m->key, "an object");
    else if (m->kind == ANY_OBJECT)
        memcpy(at, &value, sizeof value);
    else
        read_members(r, inner, value, m->members, at);
}

static void read_member(const reader *r, const char *path, json_t *value, const member *m, char *at)
{
    switch (m->kind) {
    case TEXT:
        read_text(r, path, value, m, at);
        break;
    case INTEGER:
        read_integer(r, path, value, m, at);
        break;
    case REAL:
        read_real(r, path, value, m, at);
        break;
    case RANGE:
        read_range(r, path, value, m, at);
        break;
    default:
        read_object(r, path, value, m, at);
    }
}

/* Names the closest known key. */
static void refuse_key(const reader *r, const char *path, const char *key, const char *const *known,
                       size_t count)
{
    const char *closest = moe_closest(key, known, count);
    moe_diag_error(r->diag, r->where, "%s%sunknown key \"%.60s\"%s%s%s", path, *path ? ": " : "",
                   key, closest ? "; did you mean \"" : "", closest ? closest : "",
                   closest ? "\"?" : "");
}

static void read_members(const reader *r, const char *path, const json_t *object,
                         const member *members, char *base)
{
    const char *known[16];
    size_t count = 0;
    for (const member *m = members; m->key != NULL; m++) {
        json_t *value = json_object_get(object, m->key);
        known[count++] = m->key;
        if (value == NULL)
            moe_diag_error(r->diag, r->where, "%s.%s is missing", path, m->key);
        else
            read_member(r, path, value, m, base + m->offset);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool is_known = false;
        for (size_t i = 0; i < count; i++)
            is_known = is_known || strcmp(known[i], key) == 0;
        if (!is_known)
            refuse_key(r, path, key, known, count);
    }
}

/* --- reading: what stands at the top ------------------------------------------------------------ */

static void check_keys(const reader *r, const json_t *root)
{
    static const char *const keys[] = {"format", "version", "model", "cluster", "layout",
                                       "seats", "policy", "layers", "inputs", "prediction"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            known = known || strcmp(keys[i], key) == 0;
        if (!known)
            refuse_key(r, "", key, keys, sizeof keys / sizeof *keys);
    }
}

/* A file of another kind or version deserves one error, not one for every key. */
static bool is_ours(const reader *r, const json_t *root)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const json_t *version = json_object_get(root, "version");
    if (format == NULL || strcmp(format, format_name) != 0) {
        moe_diag_error(r->diag, r->where,
                       "not a plan: expected an object with \"format\": \"moeplan-plan\"");
        return false;
    }
    if (!json_is_integer(version) || json_integer_value(version) != VERSION) {
        char *found = version ? json_dumps(version, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        moe_diag_error(r->diag, r->where, "version %.40s; expected %d", found ? found : "is absent",
                       VERSION);
        free(found);
        return false;
    }
    return true;
}

static void read_parts(const reader *r, const json_t *root)
{
    for (int i = 0; i < PARTS; i++) {
        const json_t *value = json_object_get(root, parts[i].key);
        if (value == NULL && !parts[i].required)
            continue;
        if (!json_is_object(value))
            refuse(r, "", parts[i].key, "an object");
        else
            read_members(r, parts[i].key, value, parts[i].members,
                         (char *)r->plan + parts[i].offset);
    }
    r->plan->inputs = json_object_get(root, "inputs");
    if (r->plan->inputs != NULL && !json_is_object(r->plan->inputs))
        refuse(r, "", "inputs", "an object");
}

/* Numbers that were read one by one, against each other. */
static void check_shapes(const reader *r)
{
    const moe_plan *plan = r->plan;
    const moe_plan_layout *layout = &plan->layout;
    int64_t words = (layout->devices + 63) / 64;
    if (layout->ep * layout->groups != layout->devices)
        moe_diag_error(r->diag, r->where,
                       "layout: %lld groups of %lld devices; expected groups * ep to be the "
                       "%lld devices",
                       (long long)layout->groups, (long long)layout->ep,
                       (long long)layout->devices);
    if (plan->cluster.hosts * plan->cluster.devices_per_host != layout->devices)
        moe_diag_error(r->diag, r->where,
                       "cluster: %lld hosts of %lld devices; expected the layout's %lld devices",
                       (long long)plan->cluster.hosts, (long long)plan->cluster.devices_per_host,
                       (long long)layout->devices);
    int64_t experts = plan->model.layers * plan->model.experts;
    if (experts * words > MAX_WORDS || experts * layout->groups > MAX_OWNERS)
        moe_diag_error(r->diag, r->where,
                       "%lld layers of %lld experts on %lld devices are more than this program "
                       "holds in memory",
                       (long long)plan->model.layers, (long long)plan->model.experts,
                       (long long)layout->devices);
}

/* A gain is only worth stating on iterations that the plan has not seen. */
static void check_ranges(const reader *r)
{
    const moe_plan_prediction *seen = &r->plan->prediction;
    if (seen->engine != NULL && seen->evaluated_on.first < seen->made_from.last &&
        seen->made_from.first < seen->evaluated_on.last)
        moe_diag_error(r->diag, r->where,
                       "prediction: evaluated_on and made_from overlap; expected iterations that "
                       "the plan was not made from");
}

/* --- reading: layers ---------------------------------------------------------------------------- */

static bool is_array_of(const reader *r, const json_t *value, int64_t size, const char *path,
                        const char *of)
{
    if (json_is_array(value) && json_array_size(value) == (size_t)size)
        return true;
    moe_diag_error(r->diag, r->where, "%s: expected an array of %lld, one for each %s", path,
                   (long long)size, of);
    return false;
}

static void read_seats(const reader *r, const json_t *seats)
{
    const int64_t devices = r->plan->layout.devices;
    size_t i;
    json_t *value;
    if (seats == NULL || !is_array_of(r, seats, devices, "seats", "rank"))
        return;
    bool *taken = moe_need(talloc_zero_array(r->plan, bool, (size_t)devices));
    r->plan->seats = moe_need(talloc_zero_array(r->plan, int, (size_t)devices));
    json_array_foreach((json_t *)seats, i, value)
    {
        const json_int_t device = json_integer_value(value);
        if (!json_is_integer(value) || device < 0 || device >= devices || taken[device]) {
            moe_diag_error(r->diag, r->where, "seats[%zu]: expected every device, 0 to %lld, once",
                           i, (long long)devices - 1);
            break;
        }
        taken[device] = true;
        r->plan->seats[i] = (int)device;
    }
    talloc_free(taken);
}

/* Sound until too many errors: a file with every number wrong is told so twenty times. */
static bool has_room(const reader *r)
{
    return errors_of(r) < MAX_ERRORS;
}

static void read_owner(const reader *r, const json_t *value, int layer, int group, int expert)
{
    int first = group * (int)r->plan->layout.ep, last = first + (int)r->plan->layout.ep;
    json_int_t device = json_integer_value(value);
    if (!json_is_integer(value) || device < first || device >= last) {
        moe_diag_error(r->diag, r->where,
                       "layers[%d].owners[%d][%d]: expected a rank of the group, %d to %d", layer,
                       group, expert, first, last - 1);
        return;
    }
    *moe_placement_owner(r->plan->placement, layer, group, expert) = (int)device;
    moe_set_add(moe_placement_copies(r->plan->placement, layer, expert), (int)device);
}

static void read_owners(const reader *r, const json_t *owners, int layer)
{
    char path[64];
    snprintf(path, sizeof path, "layers[%d].owners", layer);
    if (!is_array_of(r, owners, r->plan->layout.groups, path, "EP group"))
        return;
    for (int g = 0; g < (int)r->plan->layout.groups; g++) {
        const json_t *group = json_array_get(owners, (size_t)g);
        snprintf(path, sizeof path, "layers[%d].owners[%d]", layer, g);
        if (!is_array_of(r, group, r->plan->model.experts, path, "expert"))
            continue;
        for (int e = 0; e < (int)r->plan->model.experts && has_room(r); e++)
            read_owner(r, json_array_get(group, (size_t)e), layer, g, e);
    }
}

/* Owners are in the set already, so that a copy on one of them shows. */
static void read_expert_copies(const reader *r, const json_t *copies, int layer, int expert)
{
    uint64_t *set = moe_placement_copies(r->plan->placement, layer, expert);
    json_int_t before = -1;
    size_t i;
    json_t *value;
    if (!json_is_array(copies)) {
        moe_diag_error(r->diag, r->where, "layers[%d].copies[%d]: expected an array of ranks",
                       layer, expert);
        return;
    }
    json_array_foreach((json_t *)copies, i, value)
    {
        json_int_t device = json_integer_value(value);
        const char *expected = NULL;
        if (!json_is_integer(value) || device < 0 || device >= r->plan->layout.devices)
            expected = "a rank that there is";
        else if (device <= before)
            expected = "ascending ranks, each once";
        else if (moe_set_has(set, (int)device))
            expected = "no owner: what an owner holds is no copy";
        if (expected != NULL) {
            moe_diag_error(r->diag, r->where, "layers[%d].copies[%d][%zu]: expected %s", layer,
                           expert, i, expected);
            return;
        }
        moe_set_add(set, (int)device);
        before = device;
    }
}

static void read_layer(const reader *r, const json_t *layer, int index)
{
    static const char *const keys[] = {"owners", "copies"};
    char path[64];
    snprintf(path, sizeof path, "layers[%d]", index);
    if (!json_is_object(layer)) {
        moe_diag_error(r->diag, r->where, "%s: expected an object with owners and copies", path);
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)layer, key, value)
    {
        if (strcmp(key, keys[0]) != 0 && strcmp(key, keys[1]) != 0)
            refuse_key(r, path, key, keys, 2);
    }
    read_owners(r, json_object_get(layer, "owners"), index);
    const json_t *copies = json_object_get(layer, "copies");
    snprintf(path, sizeof path, "layers[%d].copies", index);
    if (!is_array_of(r, copies, r->plan->model.experts, path, "expert"))
        return;
    for (int e = 0; e < (int)r->plan->model.experts && has_room(r); e++)
        read_expert_copies(r, json_array_get(copies, (size_t)e), index, e);
}

static void read_layers(const reader *r, const json_t *layers)
{
    moe_plan *plan = r->plan;
    if (!is_array_of(r, layers, plan->model.layers, "layers", "layer of the model"))
        return;
    moe_layout layout = {(int)plan->layout.devices, (int)plan->layout.ep, (int)plan->layout.groups};
    plan->placement =
        moe_placement_create(plan, &layout, (int)plan->model.layers, (int)plan->model.experts);
    for (int l = 0; l < (int)plan->model.layers && has_room(r); l++)
        read_layer(r, json_array_get(layers, (size_t)l), l);
    const char *broken =
        errors_of(r) == 0 ? moe_placement_check(plan->placement, &layout, 0) : NULL;
    if (broken != NULL)
        moe_diag_error(r->diag, r->where, "%s", broken);
}

/* --- reading: the file --------------------------------------------------------------------------- */

static void report_syntax(const reader *r, const json_error_t *error)
{
    moe_where where = {r->where.source, error->line > 0 ? error->line : 0, error->column};
    moe_diag_error(r->diag, where, "JSON: %s", error->text);
}

static void read_root(const reader *r)
{
    const json_t *root = r->plan->root;
    if (!is_ours(r, root))
        return;
    check_keys(r, root);
    read_parts(r, root);
    if (errors_of(r) > 0)
        return;
    check_shapes(r);
    check_ranges(r);
    if (errors_of(r) == 0)
        read_seats(r, json_object_get(root, "seats"));
    if (errors_of(r) == 0)
        read_layers(r, json_object_get(root, "layers"));
}

static moe_status read_text_as_plan(moe_plan *plan, const char *text, size_t length, moe_diag *diag)
{
    json_error_t error;
    const reader r = {.plan = plan,
                      .where = {.source = moe_diag_source(diag, plan->path, text, length)},
                      .diag = diag,
                      .errors_before = moe_diag_error_count(diag)};
    plan->root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (plan->root == NULL)
        report_syntax(&r, &error);
    else
        read_root(&r);
    return errors_of(&r) == 0 ? MOE_OK : MOE_BAD_INPUT;
}

moe_plan *moe_plan_read(void *owner, const char *path, moe_where named_at, moe_diag *diag)
{
    moe_plan *plan = moe_plan_create(owner);
    size_t length;
    plan->path = moe_need(talloc_strdup(plan, path));
    char *text = moe_input_read(plan, path, FILE_BYTES, &length, named_at, diag);
    if (text == NULL || read_text_as_plan(plan, text, length, diag) != MOE_OK) {
        if (text != NULL && named_at.source != NULL)
            moe_diag_note(diag, named_at, "the plan is named here");
        talloc_free(plan);
        return NULL;
    }
    moe_digest(text, length, plan->digest);
    talloc_free(text);
    return plan;
}

/* --- writing -------------------------------------------------------------------------------------- */

static json_t *members_json(const member *members, const char *base);

static json_t *member_json(const member *m, const char *at)
{
    const void *value = at;
    switch (m->kind) {
    case TEXT:
        return json_string(*(const char *const *)value);
    case INTEGER:
        return json_integer(*(const int64_t *)value);
    case REAL:
        return json_real(*(const double *)value);
    case RANGE:
        return json_pack("[I, I]", (json_int_t)((const moe_plan_range *)value)->first,
                         (json_int_t)((const moe_plan_range *)value)->last);
    case ANY_OBJECT:
        return json_incref(*(json_t *const *)value);
    default:
        return members_json(m->members, at);
    }
}

static json_t *members_json(const member *members, const char *base)
{
    json_t *object = json_object();
    for (const member *m = members; m->key != NULL; m++)
        json_object_set_new(object, m->key, member_json(m, base + m->offset));
    return object;
}

json_t *moe_plan_prediction_json(const moe_plan *plan)
{
    return plan->prediction.engine == NULL
               ? NULL
               : members_json(prediction_members, (const char *)&plan->prediction);
}

static json_t *owners_json(const moe_placement *placement, int layer)
{
    json_t *groups = json_array();
    for (int g = 0; g < placement->groups; g++) {
        json_t *owners = json_array();
        for (int e = 0; e < placement->experts; e++)
            json_array_append_new(owners,
                                  json_integer(*moe_placement_owner(placement, layer, g, e)));
        json_array_append_new(groups, owners);
    }
    return groups;
}

static json_t *copies_json(const moe_placement *placement, int layer)
{
    int ep = placement->devices / placement->groups;
    json_t *experts = json_array();
    for (int e = 0; e < placement->experts; e++) {
        const uint64_t *set = moe_placement_copies(placement, layer, e);
        json_t *devices = json_array();
        for (int d = 0; d < placement->devices; d++)
            if (moe_set_has(set, d) && *moe_placement_owner(placement, layer, d / ep, e) != d)
                json_array_append_new(devices, json_integer(d));
        json_array_append_new(experts, devices);
    }
    return experts;
}

static json_t *seats_json(const moe_plan *plan)
{
    json_t *seats = json_array();
    for (int64_t r = 0; r < plan->layout.devices; r++)
        json_array_append_new(seats, json_integer(plan->seats[r]));
    return seats;
}

static void write_value(json_t *value, FILE *stream)
{
    json_dumpf(value, stream, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    json_decref(value);
}

static void write_layers(const moe_placement *placement, FILE *stream)
{
    fputs("  \"layers\": [\n", stream);
    for (int l = 0; l < placement->layers; l++) {
        fputs(l > 0 ? ",\n    " : "    ", stream);
        write_value(json_pack("{s:o, s:o}", "owners", owners_json(placement, l), "copies",
                              copies_json(placement, l)),
                    stream);
    }
    fputs("\n  ]\n}\n", stream);
}

static bool is_there(const moe_plan *plan, const struct part *part)
{
    if (part->members == policy_members)
        return plan->policy.name != NULL;
    return part->members != prediction_members || plan->prediction.engine != NULL;
}

void moe_plan_write(const moe_plan *plan, FILE *stream)
{
    fprintf(stream, "{\n  \"format\": \"%s\",\n  \"version\": %d,\n", format_name, VERSION);
    for (int i = 0; i < PARTS; i++) {
        if (!is_there(plan, &parts[i]))
            continue;
        fprintf(stream, "  \"%s\": ", parts[i].key);
        write_value(members_json(parts[i].members, (const char *)plan + parts[i].offset), stream);
        fputs(",\n", stream);
    }
    if (plan->seats != NULL) {
        fputs("  \"seats\": ", stream);
        write_value(seats_json(plan), stream);
        fputs(",\n", stream);
    }
    if (plan->inputs != NULL) {
        fputs("  \"inputs\": ", stream);
        write_value(json_incref(plan->inputs), stream);
        fputs(",\n", stream);
    }
    write_layers(plan->placement, stream);
}
