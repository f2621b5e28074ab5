#include "configs/base/signals.h"
#include "configs/base/output.h"
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { FILE_SLOTS = 32, CHILD_SLOTS = 256 };

typedef struct file_slot {
    char path[PATH_MAX];
    volatile sig_atomic_t used; /* set last, cleared first: the handler sees whole paths only */
    pid_t process;              /* a forked child inherits the table but owns none of its files */
} file_slot;

/* The one place besides the SimGrid adapter with global state: a signal handler gets no argument.
 */
static file_slot files[FILE_SLOTS];
static volatile pid_t children[CHILD_SLOTS];
static const int handled[] = {SIGINT, SIGTERM, SIGHUP};
enum { HANDLED_COUNT = sizeof handled / sizeof handled[0] };

/* Async-signal-safe. */
static void unlink_files(void)
{
    const pid_t self = getpid();
    for (int i = 0; i < FILE_SLOTS; i++) {
        if (files[i].used && files[i].process == self) {
            unlink(files[i].path);
            files[i].used = 0;
        }
    }
}

int moe_signals_add_file(const char *path)
{
    static bool registered = false;
    if (!registered) {
        registered =
            atexit(unlink_files) == 0; /* exit() in the middle of a run leaves nothing either */
    }
    for (int i = 0; i < FILE_SLOTS && strlen(path) < sizeof files[i].path; i++) {
        if (!files[i].used) {
            strcpy(files[i].path, path);
            files[i].process = getpid();
            atomic_signal_fence(memory_order_seq_cst);
            files[i].used = 1;
            return i;
        }
    }
    return -1;
}

void moe_signals_remove_file(int slot)
{
    if (slot >= 0) {
        files[slot].used = 0;
    }
}

void moe_signals_add_child(int pid)
{
    for (int i = 0; i < CHILD_SLOTS; i++) {
        if (children[i] == 0) {
            children[i] = pid;
            return;
        }
    }
}

void moe_signals_remove_child(int pid)
{
    for (int i = 0; i < CHILD_SLOTS; i++) {
        if (children[i] == pid) {
            children[i] = 0;
        }
    }
}

static void on_signal(int number)
{
    unlink_files();
    for (int i = 0; i < CHILD_SLOTS; i++) {
        if (children[i] > 0) {
            kill(children[i], SIGTERM); /* not SIGKILL: a child may have files to remove as well */
        }
    }
    _exit(128 + number);
}

void moe_signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    for (int i = 0; i < HANDLED_COUNT; i++) {
        sigaddset(&action.sa_mask, handled[i]);
    }
    for (int i = 0; i < HANDLED_COUNT; i++) {
        struct sigaction before;
        sigaction(handled[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) { /* nohup and shell job control chose to ignore it */
            sigaction(handled[i], &action, NULL);
        }
    }
}

void moe_signals_reset_in_child(void)
{
    for (int i = 0; i < HANDLED_COUNT; i++) {
        struct sigaction before;
        sigaction(handled[i], NULL, &before);
        if (before.sa_handler == on_signal) {
            signal(handled[i], SIG_DFL);
        }
    }
    for (int i = 0; i < FILE_SLOTS; i++) {
        files[i].used = 0;
    }
    for (int i = 0; i < CHILD_SLOTS; i++) {
        children[i] = 0;
    }
}
