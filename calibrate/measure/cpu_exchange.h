/* Private to cpu_*.c: one collective made ready, blocking or not, over a communicator. */
#ifndef MOE_CALIBRATE_MEASURE_CPU_EXCHANGE_H
#define MOE_CALIBRATE_MEASURE_CPU_EXCHANGE_H

#include "calibrate/measure/point.h"
#include <mpi.h>

/* One group of ranks that some chunks go around. */
typedef struct moecal_cpu_group {
    MPI_Comm comm; /* MPI_COMM_NULL: this rank is not in it */
    int count;
    int *members; /* ascending */
} moecal_cpu_group;

typedef struct moecal_cpu_exchange {
    const moecal_exchange *exchange;
    MPI_Comm comm;
    int rank, ranks;
    int64_t send_bytes, receive_bytes;                        /* of this rank's buffers */
    int *send_counts, *send_at, *receive_counts, *receive_at; /* all-to-all */
    moecal_cpu_group *groups;
    int group_count;
    int *group_of; /* of a chunk */
    int *root;     /* of a chunk, in its group */
    MPI_Request *requests;
    int request_count; /* that may be under way */
} moecal_cpu_exchange;

/* Collective over `comm`, which stays the caller's. Non-zero with a message in `error`. */
int moecal_cpu_exchange_create(moecal_cpu_exchange *made, const moecal_exchange *exchange,
                               MPI_Comm comm, char *error, size_t error_size);
void moecal_cpu_exchange_free(moecal_cpu_exchange *freed);

/* Blocking. A broadcast reads `send` at its root and writes `receive` elsewhere. */
void moecal_cpu_exchange_run(moecal_cpu_exchange *exchange, const float *send, float *receive);
/* Non-blocking: requests [0, count) are under way; returns count. */
int moecal_cpu_exchange_start(moecal_cpu_exchange *exchange, const float *send, float *receive);

#endif
