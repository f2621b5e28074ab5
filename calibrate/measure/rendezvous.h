/* Where the processes of a run meet, without MPI: rank 0 listens on a TCP port, the others connect, and small
 * messages go through rank 0 (a star): NCCL's id, host names, decisions, the slowest of all.
 *
 * Every call but `find` is collective: all processes make the same calls with the same sizes, or all of them
 * get an error. Nothing that arrives is trusted: a stranger's connection is dropped without disturbing the
 * others, sizes and the kind of call are compared before a byte is taken. Plain text on the wire; meant for
 * the private network of a cluster. */
#ifndef MOE_CALIBRATE_MEASURE_RENDEZVOUS_H
#define MOE_CALIBRATE_MEASURE_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>

enum { MOECAL_MAX_PROCESSES = 4096 };

/* Who we are, by the launcher's environment: RANK and WORLD_SIZE (torchrun), OMPI_COMM_WORLD_*, PMI_*, or
 * srun's SLURM_PROCID with SLURM_STEP_NUM_TASKS; none of them: one process. */
typedef struct moecal_place {
    int rank, processes;
    char host[256]; /* where rank 0 listens; empty for one process */
    char port[16];
    uint64_t token; /* equal for the processes of one run */
} moecal_place;

/* MOECAL_RENDEZVOUS=host:port, or MASTER_ADDR and MASTER_PORT, or the first node of srun's step; on one host
 * no address is needed. Non-zero after a message of one line in `error`. */
int moecal_place_find(moecal_place *place, char *error, size_t error_size);

typedef struct moecal_rendezvous moecal_rendezvous;

/* NULL after a message of one line in `error`: nobody listens, not all came within `join_s`, the port is
 * taken. Later calls wait at most `call_s` for the others. */
moecal_rendezvous *moecal_rendezvous_open(const moecal_place *place, double join_s, double call_s,
                                          char *error, size_t error_size);
/* all[rank * bytes ...] = what rank gave. Non-zero when a peer is gone, late or out of step; then no further
 * call works. */
int moecal_rendezvous_gather(moecal_rendezvous *rendezvous, const void *mine, void *all,
                             size_t bytes);
/* From rank 0 to all. */
int moecal_rendezvous_share(moecal_rendezvous *rendezvous, void *data, size_t bytes);
/* Element by element the largest of all; NaN wins. */
int moecal_rendezvous_max(moecal_rendezvous *rendezvous, double *values, int count);
/* Why the last call failed; "" if none did. */
const char *moecal_rendezvous_error(const moecal_rendezvous *rendezvous);
void moecal_rendezvous_close(moecal_rendezvous *rendezvous);

#endif
