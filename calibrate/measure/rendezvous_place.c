/* Who and where we are, by the launcher's environment. */
#include "calibrate/measure/rendezvous.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A launcher, by the variables it sets. SLURM_NTASKS is no sign of one: a batch script has it too. */
typedef struct launcher {
    const char *rank, *processes;
    const char *local; /* processes on this host, or NULL */
    const char *job[3];
} launcher;

static const launcher launchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", {"TORCHELASTIC_RUN_ID", NULL, NULL}},
    {"OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_SIZE",
     {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", NULL}},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", {"PMI_JOBID", NULL, NULL}},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", NULL, {"SLURM_JOB_ID", "SLURM_STEP_ID", NULL}},
};

static int number(const char *name, int low, int high, int *value)
{
    const char *text = name ? getenv(name) : NULL;
    char *end;
    if (!text || !*text)
        return -1;
    long read = strtol(text, &end, 10);
    if (*end || read < low || read > high)
        return -1;
    *value = (int)read;
    return 0;
}

static const launcher *find_launcher(moecal_place *place)
{
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (number(launchers[i].processes, 1, MOECAL_MAX_PROCESSES, &place->processes) == 0 &&
            number(launchers[i].rank, 0, place->processes - 1, &place->rank) == 0)
            return &launchers[i];
    place->rank = 0;
    place->processes = 1;
    return NULL;
}

/* FNV-1a, 64 bits. */
static uint64_t add_text(uint64_t sum, const char *text)
{
    for (; text && *text; text++)
        sum = (sum ^ (unsigned char)*text) * 0x100000001b3ULL;
    return sum;
}

static uint64_t token_of(const launcher *found)
{
    uint64_t sum = add_text(0xcbf29ce484222325ULL, getenv("MOECAL_TOKEN"));
    for (int i = 0; i < 3 && found->job[i]; i++)
        sum = add_text(sum, getenv(found->job[i]));
    return sum;
}

/* "node[03-07,9],login" -> "node03"; the first of a comma-separated list, its first number. */
static int first_node(const char *list, char *host, size_t size)
{
    size_t length = 0;
    int inside = 0;
    for (; list && *list && length + 1 < size; list++) {
        if (*list == '[') {
            inside = 1;
        } else if (*list == ',' || *list == '-' || *list == ']') {
            if (inside || *list == ',')
                break;
            host[length++] = *list; /* a hyphen in the name */
        } else {
            host[length++] = *list;
        }
    }
    host[length] = '\0';
    return length > 0 ? 0 : -1;
}

/* "host:port", "[::1]:port" */
static int split_address(const char *text, moecal_place *place)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    }
    if (length == 0 || length >= sizeof place->host || strlen(colon + 1) >= sizeof place->port)
        return -1;
    memcpy(place->host, text, length);
    place->host[length] = '\0';
    snprintf(place->port, sizeof place->port, "%s", colon + 1);
    return 0;
}

/* Below the range that clients get theirs from (32768 on), and equal for all processes of a run. */
static void choose_port(moecal_place *place, uint64_t salt)
{
    if (!place->port[0])
        snprintf(place->port, sizeof place->port, "%u", 20000 + (unsigned)(salt % 12000));
}

static int port_is_sound(const char *port)
{
    long value = strtol(port, NULL, 10);
    for (const char *c = port; *c; c++)
        if (!isdigit((unsigned char)*c))
            return 0;
    return value > 0 && value < 65536;
}

static int find_address(moecal_place *place, const launcher *found)
{
    const char *given = getenv("MOECAL_RENDEZVOUS"), *master = getenv("MASTER_ADDR"),
               *port = getenv("MASTER_PORT"), *nodes = getenv("SLURM_STEP_NODELIST");
    int local = 0;
    if (given && *given)
        return split_address(given, place);
    if (port && *port)
        snprintf(place->port, sizeof place->port, "%.15s", port);
    if (master && *master && strlen(master) < sizeof place->host) {
        snprintf(place->host, sizeof place->host, "%s", master);
        choose_port(place, place->token);
        return 0;
    }
    if (number(found->local, 1, MOECAL_MAX_PROCESSES, &local) == 0 && local == place->processes) {
        snprintf(place->host, sizeof place->host, "127.0.0.1");
        choose_port(place, place->token + (uint64_t)getppid());
        return 0;
    }
    if (strncmp(found->rank, "SLURM", 5) != 0)
        return -1;
    if (!nodes || first_node(nodes, place->host, sizeof place->host) != 0) {
        if (!getenv("SLURM_LAUNCH_NODE_IPADDR"))
            return -1;
        snprintf(place->host, sizeof place->host, "%.255s", getenv("SLURM_LAUNCH_NODE_IPADDR"));
    }
    choose_port(place, place->token);
    return 0;
}

int moecal_place_find(moecal_place *place, char *error, size_t error_size)
{
    *place = (moecal_place){.processes = 1};
    const launcher *found = find_launcher(place);
    if (!found || place->processes == 1)
        return 0;
    place->token = token_of(found);
    if (find_address(place, found) != 0) {
        snprintf(
            error, error_size,
            "%d processes, but no address where they can meet: set MASTER_ADDR and MASTER_PORT "
            "(or MOECAL_RENDEZVOUS=host:port) to the host of rank 0 and a free port",
            place->processes);
        return -1;
    }
    if (!port_is_sound(place->port)) {
        snprintf(error, error_size, "port \"%s\" of the rendezvous, expected 1 to 65535",
                 place->port);
        return -1;
    }
    return 0;
}
