/* The command line of both programs. */
#ifndef MOE_CALIBRATE_MEASURE_OPTIONS_H
#define MOE_CALIBRATE_MEASURE_OPTIONS_H

#include "calibrate/measure/point.h"

typedef struct moecal_options {
    bool list;
    bool dry_run;
    bool resume;
    const char *suite; /* built-in name or path */
    bool only[MOECAL_KINDS];
    bool all_kinds;           /* no --only */
    const char *output;       /* NULL: standard output */
    double seconds_per_point; /* 0: the suite's */
    int repetitions;
    int ranks;        /* to assume with --list and --dry-run; 0: as started */
    const char *step; /* the CPU program's --step; NULL: none */
} moecal_options;

/* Exits with 64 and a message where a command makes no sense, with 0 after --help and --version. */
moecal_options moecal_options_parse(int argc, char **argv);

/* As mpirun and srun say it in the environment of what they start: rank and number of processes. */
int moecal_started_rank(void);
int moecal_started_processes(void);

#endif
