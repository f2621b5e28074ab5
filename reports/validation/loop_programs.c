#include "reports/validation/loop_programs.h"

#include "configs/base/memory.h"
#include "configs/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <talloc.h>
#include <unistd.h>

/* --- where -------------------------------------------------------------------------------------- */

static bool is_program(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static char *beside_us(void *owner, const char *name)
{
    char self[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return NULL;
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    *slash = '\0';
    return moe_need(talloc_asprintf(owner, "%s/%s", self, name));
}

/* `path` if it is a program, else NULL and `path` is freed. */
static char *only_program(char *path)
{
    if (path && is_program(path))
        return path;
    talloc_free(path);
    return NULL;
}

char *moe_loop_program(void *owner, const char *name)
{
    char *path = only_program(beside_us(owner, name));
    const char *rest = getenv("PATH");
    while (!path && rest && *rest) {
        const size_t length = strcspn(rest, ":");
        path = only_program(moe_need(talloc_asprintf(owner, "%.*s/%s", (int)length, rest, name)));
        rest += length + (rest[length] == ':');
    }
    return path;
}

/* Whether `cpu` is the first of its core's hyper-threads. */
static bool leads_core(int cpu)
{
    char path[128];
    int first = cpu;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fscanf(file, "%d", &first) != 1)
            first = cpu;
        fclose(file);
    }
    return first == cpu;
}

int moe_loop_cores(void)
{
    cpu_set_t set;
    int cores = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        cores += CPU_ISSET(cpu, &set) && leads_core(cpu);
    return cores > 0 ? cores : 1;
}

/* --- others ------------------------------------------------------------------------------------- */

/* Of all cores: user, nice, system, irq, softirq, steal. */
static double busy_s(void)
{
    unsigned long long ticks[8] = {0};
    FILE *file = fopen("/proc/stat", "re");
    if (!file)
        return 0;
    const int count =
        fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &ticks[0], &ticks[1], &ticks[2],
               &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
    fclose(file);
    if (count < 8)
        return 0;
    return (double)(ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7]) /
           (double)sysconf(_SC_CLK_TCK);
}

static double used_s(int who)
{
    struct rusage usage;
    if (getrusage(who, &usage) != 0)
        return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

double moe_loop_others_s(void)
{
    return busy_s() - used_s(RUSAGE_CHILDREN) - used_s(RUSAGE_SELF);
}

/* --- running ------------------------------------------------------------------------------------ */

enum { MOST_ARGUMENTS = 32, TAIL_BYTES = 1500 };

static _Noreturn void become(const char *const *argv, const char *log)
{
    moe_signals_reset_in_child();
    const int null = open("/dev/null", O_RDONLY);
    const int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (null < 0 || out < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(126);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static void say_end_of_log(const char *log, moe_diag *diag)
{
    char tail[TAIL_BYTES + 1];
    FILE *file = fopen(log, "re");
    if (!file)
        return;
    if (fseek(file, -TAIL_BYTES, SEEK_END) != 0)
        rewind(file);
    const size_t length = fread(tail, 1, TAIL_BYTES, file);
    tail[length] = '\0';
    fclose(file);
    for (char *line = strtok(tail, "\n"); line; line = strtok(NULL, "\n"))
        moe_diag_note(diag, (moe_where){0}, "%s", line);
}

static moe_status wait_for(pid_t pid, const moe_loop_launcher *launcher, moe_diag *diag)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            break;
    moe_signals_remove_child(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return MOE_OK;
    moe_diag_error(diag, (moe_where){0}, "%s under %s ended with %s %d; its output is in %s",
                   launcher->moecal, launcher->mpirun, WIFSIGNALED(status) ? "signal" : "exit code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), launcher->log);
    say_end_of_log(launcher->log, diag);
    return MOE_INTERNAL;
}

moe_status moe_loop_run(const moe_loop_launcher *launcher, const char *const *arguments,
                        moe_diag *diag)
{
    char ranks[16];
    const char *argv[MOST_ARGUMENTS + 1] = {launcher->mpirun, "-n", ranks, launcher->moecal};
    int count = 4;
    snprintf(ranks, sizeof ranks, "%d", launcher->ranks);
    for (int i = 0; arguments[i] && count < MOST_ARGUMENTS; i++)
        argv[count++] = arguments[i];
    argv[count] = NULL;
    const pid_t pid = fork();
    if (pid == 0)
        become(argv, launcher->log);
    if (pid < 0) {
        moe_diag_error(diag, (moe_where){0}, "cannot start %s: %s", launcher->mpirun,
                       strerror(errno));
        return MOE_INTERNAL;
    }
    moe_signals_add_child(pid);
    return wait_for(pid, launcher, diag);
}
