/* Processes meet over loopback: real forked processes, and strangers who talk nonsense meanwhile. */
#include "calibrate/measure/rendezvous.h"

#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PROCESSES = 4 };

/* A port nobody has now. Somebody may take it before we do: then the open fails, and the test with it, once in a
 * very long while. */
static unsigned free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int made = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(made, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(made, (struct sockaddr *)&address, &size), 0);
    close(made);
    return ntohs(address.sin_port);
}

static moecal_place place_of(int rank, int processes, unsigned port)
{
    moecal_place place = {.rank = rank, .processes = processes, .host = "127.0.0.1", .token = 42};
    snprintf(place.port, sizeof place.port, "%u", port);
    return place;
}

/* What each process does; its exit code is 0 where all went well. */
typedef int (*role)(const moecal_place *place);

static void start(role play, int processes, unsigned port, pid_t *children)
{
    for (int rank = 0; rank < processes; rank++) {
        children[rank] = fork();
        if (children[rank] == 0) {
            moecal_place place = place_of(rank, processes, port);
            alarm(20);
            _exit(play(&place));
        }
    }
}

static int wait_all(const pid_t *children, int count)
{
    int failed = 0, status;
    for (int i = 0; i < count; i++) {
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    return failed;
}

/* --- all goes well ---------------------------------------------------------------------------- */

static int gathers(moecal_rendezvous *rendezvous, const moecal_place *place)
{
    int mine[3] = {place->rank, 100 + place->rank, 7}, all[PROCESSES][3] = {{0}};
    if (moecal_rendezvous_gather(rendezvous, mine, all, sizeof mine) != 0)
        return 1;
    for (int rank = 0; rank < PROCESSES; rank++)
        if (all[rank][0] != rank || all[rank][1] != 100 + rank || all[rank][2] != 7)
            return 2;
    return 0;
}

static int shares(moecal_rendezvous *rendezvous, const moecal_place *place)
{
    size_t bytes = 3 << 20; /* more than a socket holds at a time */
    unsigned char *data = calloc(1, bytes);
    for (size_t i = 0; place->rank == 0 && i < bytes; i++)
        data[i] = (unsigned char)(i * 31 >> 3);
    int failed = moecal_rendezvous_share(rendezvous, data, bytes);
    for (size_t i = 0; i < bytes; i++)
        failed |= data[i] != (unsigned char)(i * 31 >> 3);
    free(data);
    return failed;
}

static int takes_largest(moecal_rendezvous *rendezvous, const moecal_place *place)
{
    double values[3] = {place->rank, -place->rank - 1.5, place->rank == 2 ? NAN : 1};
    if (moecal_rendezvous_max(rendezvous, values, 3) != 0)
        return 1;
    return !(values[0] == PROCESSES - 1 && values[1] == -1.5 && isnan(values[2]));
}

static int plays_well(const moecal_place *place)
{
    char error[256] = "";
    moecal_rendezvous *rendezvous = moecal_rendezvous_open(place, 10, 10, error, sizeof error);
    if (!rendezvous) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    int failed = 0;
    for (int round = 0; round < 20; round++)
        failed |= gathers(rendezvous, place) | takes_largest(rendezvous, place);
    failed |= shares(rendezvous, place);
    moecal_rendezvous_close(rendezvous);
    return failed;
}

static void all_messages_arrive(void **state)
{
    pid_t children[PROCESSES];
    (void)state;
    start(plays_well, PROCESSES, free_port(), children);
    assert_int_equal(wait_all(children, PROCESSES), 0);
}

/* --- strangers -------------------------------------------------------------------------------- */

static int call_port(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)port)};
    struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; i < 400; i++) {
        int made = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(made, (struct sockaddr *)&address, sizeof address) == 0)
            return made;
        close(made);
        nanosleep(&pause, NULL);
    }
    return -1;
}

/* As the protocol's first message, with something wrong about it. */
typedef struct greeting {
    char magic[8];
    uint64_t token;
    uint32_t rank, processes;
} greeting;

static void strangers_do_not_disturb(void **state)
{
    static const greeting wrong[] = {
        {"moecal-0", 42, 1, PROCESSES},     {"moecal-1", 43, 1, PROCESSES},
        {"moecal-1", 42, 0, PROCESSES},     {"moecal-1", 42, PROCESSES, PROCESSES},
        {"moecal-1", 42, 1, PROCESSES + 1}, {"GET / HT", 0x502f2e30, 0, 0}};
    pid_t children[PROCESSES];
    int silent[6];
    unsigned port = free_port();
    (void)state;
    children[0] = fork();
    if (children[0] == 0) {
        moecal_place place = place_of(0, PROCESSES, port);
        alarm(20);
        _exit(plays_well(&place));
    }
    for (int i = 0; i < 6; i++) {
        silent[i] = call_port(port); /* says nothing, or half of it */
        assert_true(silent[i] >= 0);
        if (i % 2)
            assert_int_equal(send(silent[i], &wrong[1], 11, MSG_NOSIGNAL), 11);
        int liar = call_port(port);
        assert_true(liar >= 0);
        send(liar, &wrong[i], sizeof wrong[i], MSG_NOSIGNAL);
        char answer;
        assert_true(recv(liar, &answer, 1, 0) <= 0); /* shown the door */
        close(liar);
    }
    for (int rank = 1; rank < PROCESSES; rank++) {
        children[rank] = fork();
        if (children[rank] == 0) {
            moecal_place place = place_of(rank, PROCESSES, port);
            alarm(20);
            _exit(plays_well(&place));
        }
    }
    assert_int_equal(wait_all(children, PROCESSES), 0);
    for (int i = 0; i < 6; i++)
        close(silent[i]);
}

/* --- it goes wrong ---------------------------------------------------------------------------- */

static void the_missing_are_named(void **state)
{
    char error[256] = "";
    moecal_place place = place_of(0, 3, free_port());
    (void)state;
    assert_null(moecal_rendezvous_open(&place, 0.2, 1, error, sizeof error));
    assert_non_null(strstr(error, "2 of 3 processes did not come"));
    assert_non_null(strstr(error, "rank 1"));
    place = place_of(1, 3, free_port());
    assert_null(moecal_rendezvous_open(&place, 0.2, 1, error, sizeof error));
    assert_non_null(strstr(error, "rank 0 was not found at 127.0.0.1:"));
}

/* Rank 1 leaves after the first call. The others get an error, not a wait. */
static int loses_one(const moecal_place *place)
{
    char error[256] = "";
    moecal_rendezvous *rendezvous = moecal_rendezvous_open(place, 10, 10, error, sizeof error);
    double value = place->rank;
    int failed = !rendezvous || moecal_rendezvous_max(rendezvous, &value, 1) != 0;
    if (!failed && place->rank != 1) {
        failed = moecal_rendezvous_max(rendezvous, &value, 1) == 0;
        if (place->rank == 0)
            failed |= !strstr(moecal_rendezvous_error(rendezvous), "rank 1 is gone");
        failed |= moecal_rendezvous_max(rendezvous, &value, 1) == 0; /* it stays broken */
    }
    moecal_rendezvous_close(rendezvous);
    return failed;
}

static void a_lost_peer_is_noticed(void **state)
{
    pid_t children[3];
    (void)state;
    start(loses_one, 3, free_port(), children);
    assert_int_equal(wait_all(children, 3), 0);
}

/* One asks for 8 bytes, the others for 16. */
static int out_of_step(const moecal_place *place)
{
    char error[256] = "";
    moecal_rendezvous *rendezvous = moecal_rendezvous_open(place, 10, 2, error, sizeof error);
    double values[2] = {0};
    if (!rendezvous)
        return 1;
    int failed = moecal_rendezvous_max(rendezvous, values, place->rank == 1 ? 1 : 2) == 0;
    if (place->rank == 0)
        failed |= !strstr(moecal_rendezvous_error(rendezvous), "rank 1 is out of step");
    moecal_rendezvous_close(rendezvous);
    return failed;
}

static void different_calls_are_noticed(void **state)
{
    pid_t children[2];
    (void)state;
    start(out_of_step, 2, free_port(), children);
    assert_int_equal(wait_all(children, 2), 0);
}

/* --- the launcher's environment --------------------------------------------------------------- */

static const char *const variables[] = {"RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_WORLD_SIZE",
                                        "TORCHELASTIC_RUN_ID",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMIX_NAMESPACE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "PMI_JOBID",
                                        "MPI_LOCALNRANKS",
                                        "SLURM_PROCID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_NTASKS",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "SLURM_STEP_NODELIST",
                                        "SLURM_LAUNCH_NODE_IPADDR",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "MOECAL_RENDEZVOUS",
                                        "MOECAL_TOKEN",
                                        NULL};

/* Of "NAME=value" pairs and nothing else. */
static int find(moecal_place *place, char *error, ...)
{
    va_list pairs;
    const char *name;
    for (int i = 0; variables[i]; i++)
        unsetenv(variables[i]);
    va_start(pairs, error);
    while ((name = va_arg(pairs, const char *)))
        setenv(name, va_arg(pairs, const char *), 1);
    va_end(pairs);
    return moecal_place_find(place, error, 256);
}

#define END ((const char *)NULL)

static void launchers_are_recognised(void **state)
{
    moecal_place place;
    char error[256] = "";
    (void)state;
    assert_int_equal(find(&place, error, END), 0);
    assert_int_equal(place.processes, 1);
    assert_int_equal(find(&place, error, "RANK", "3", "WORLD_SIZE", "8", "MASTER_ADDR", "gpu1",
                          "MASTER_PORT", "29500", END),
                     0);
    assert_int_equal(place.rank, 3);
    assert_int_equal(place.processes, 8);
    assert_string_equal(place.host, "gpu1");
    assert_string_equal(place.port, "29500");
    assert_int_equal(find(&place, error, "OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "2",
                          "OMPI_COMM_WORLD_LOCAL_SIZE", "2", END),
                     0);
    assert_int_equal(place.rank, 1);
    assert_string_equal(place.host, "127.0.0.1");
    assert_int_equal(find(&place, error, "PMI_RANK", "5", "PMI_SIZE", "6", "MOECAL_RENDEZVOUS",
                          "[::1]:4000", END),
                     0);
    assert_int_equal(place.rank, 5);
    assert_string_equal(place.host, "::1");
    assert_string_equal(place.port, "4000");
}

static void srun_needs_no_address(void **state)
{
    static const char *const lists[][2] = {{"node[03-07,9]", "node03"},
                                           {"gpu-a12", "gpu-a12"},
                                           {"gpu-a[1,5]", "gpu-a1"},
                                           {"login,node1", "login"}};
    moecal_place place;
    char error[256] = "";
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(find(&place, error, "SLURM_PROCID", "2", "SLURM_STEP_NUM_TASKS", "4",
                              "SLURM_JOB_ID", "77", "SLURM_STEP_ID", "0", "SLURM_STEP_NODELIST",
                              lists[i][0], END),
                         0);
        assert_int_equal(place.rank, 2);
        assert_string_equal(place.host, lists[i][1]);
        assert_in_range(atoi(place.port), 20000, 32767);
    }
    /* A batch script has SLURM_PROCID and SLURM_NTASKS too, but is one process. */
    assert_int_equal(find(&place, error, "SLURM_PROCID", "0", "SLURM_NTASKS", "8", END), 0);
    assert_int_equal(place.processes, 1);
}

static void no_address_is_an_error(void **state)
{
    moecal_place place;
    char error[256] = "";
    (void)state;
    assert_int_not_equal(find(&place, error, "OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE",
                              "16", "OMPI_COMM_WORLD_LOCAL_SIZE", "8", END),
                         0);
    assert_non_null(strstr(error, "16 processes"));
    assert_non_null(strstr(error, "MASTER_ADDR"));
    assert_int_not_equal(find(&place, error, "RANK", "0", "WORLD_SIZE", "2", "MASTER_ADDR", "a",
                              "MASTER_PORT", "70000", END),
                         0);
    assert_non_null(strstr(error, "\"70000\""));
    assert_int_not_equal(
        find(&place, error, "RANK", "0", "WORLD_SIZE", "2", "MOECAL_RENDEZVOUS", "nocolon", END),
        0);
    /* Nonsense is no launcher. */
    assert_int_equal(find(&place, error, "RANK", "9", "WORLD_SIZE", "8", END), 0);
    assert_int_equal(place.processes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_messages_arrive),         cmocka_unit_test(strangers_do_not_disturb),
        cmocka_unit_test(the_missing_are_named),       cmocka_unit_test(a_lost_peer_is_noticed),
        cmocka_unit_test(different_calls_are_noticed), cmocka_unit_test(launchers_are_recognised),
        cmocka_unit_test(srun_needs_no_address),       cmocka_unit_test(no_address_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
