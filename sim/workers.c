#include "sim/workers.h"

#include "configs/base/output.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <talloc.h>
#include <time.h>
#include <unistd.h>

typedef struct shared_memory {
    void *address;
    size_t bytes;
} shared_memory;

static int shared_memory_release(shared_memory *shared)
{
    munmap(shared->address, shared->bytes);
    return 0;
}

void *moe_workers_shared(void *owner, size_t bytes)
{
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return NULL;
    shared_memory *shared = talloc(owner, shared_memory);
    shared->address = address;
    shared->bytes = bytes;
    talloc_set_destructor(shared, shared_memory_release);
    return address;
}

/* One slot a running child. */
typedef struct child {
    pid_t pid;
    int job;
} child;

typedef struct worker_pool {
    const moe_workers_plan *plan;
    moe_diag *diag;
    child *children; /* [plan->parallel]; pid 0: free */
    int running;
    int next_job;
    moe_status status;
} worker_pool;

_Noreturn static void child_main(const moe_workers_plan *plan, int job, pid_t parent)
{
    moe_signals_reset_in_child();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(MOE_INTERNAL);
    moe_status status = plan->job(plan->context, job);
    fflush(stderr);
    _exit(status);
}

static void start_job(worker_pool *pool, child *slot)
{
    fflush(NULL); /* or the child's copy of a buffer would be written twice */
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child_main(pool->plan, pool->next_job, parent);
    if (pid < 0) {
        moe_diag_error(pool->diag, (moe_where){0}, "cannot start a worker process: %s",
                       strerror(errno));
        pool->status = MOE_INTERNAL;
        return;
    }
    moe_signals_add_child(pid);
    slot->pid = pid;
    slot->job = pool->next_job++;
    pool->running++;
}

static void start_jobs(worker_pool *pool)
{
    for (int i = 0; i < pool->plan->parallel; i++)
        if (pool->children[i].pid == 0 && pool->next_job < pool->plan->job_count &&
            pool->status == MOE_OK)
            start_job(pool, &pool->children[i]);
}

static moe_status child_status(worker_pool *pool, const child *slot, int wait_status)
{
    if (WIFEXITED(wait_status))
        return (moe_status)WEXITSTATUS(wait_status);
    moe_diag_error(pool->diag, (moe_where){0}, "the worker for %s was ended by signal %d (%s)",
                   pool->plan->describe(pool->plan->context, slot->job), WTERMSIG(wait_status),
                   strsignal(WTERMSIG(wait_status)));
    return MOE_INTERNAL;
}

static void stop_children(const worker_pool *pool)
{
    for (int i = 0; i < pool->plan->parallel; i++)
        if (pool->children[i].pid != 0)
            kill(pool->children[i].pid, SIGKILL);
}

/* Takes in one child that has ended. After a failure the others are stopped; their ends are then no
 * news. */
static void reap(worker_pool *pool, pid_t pid, int wait_status)
{
    for (int i = 0; i < pool->plan->parallel; i++) {
        child *slot = &pool->children[i];
        if (slot->pid != pid)
            continue;
        moe_signals_remove_child(pid);
        slot->pid = 0;
        pool->running--;
        if (pool->status != MOE_OK)
            return;
        pool->status = child_status(pool, slot, wait_status);
        if (pool->status != MOE_OK)
            stop_children(pool);
        return;
    }
}

static void wait_a_moment(worker_pool *pool)
{
    static const struct timespec tick = {.tv_nsec = 20 * 1000 * 1000};
    int wait_status;
    pid_t pid = waitpid(-1, &wait_status, WNOHANG);
    if (pid > 0) {
        reap(pool, pid, wait_status);
        return;
    }
    if (pool->plan->poll != NULL)
        pool->plan->poll(pool->plan->context);
    nanosleep(&tick, NULL);
}

moe_status moe_workers_run(const moe_workers_plan *plan, moe_diag *diag)
{
    worker_pool pool = {.plan = plan, .diag = diag, .status = MOE_OK};
    pool.children = talloc_zero_array(NULL, child, (unsigned)plan->parallel);
    do {
        start_jobs(&pool);
        if (pool.running > 0)
            wait_a_moment(&pool);
    } while (pool.running > 0 || (pool.status == MOE_OK && pool.next_job < plan->job_count));
    talloc_free(pool.children);
    return pool.status;
}
