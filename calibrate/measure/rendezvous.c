#include "calibrate/measure/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What a process says first. Numbers in the machine's order: all hosts of a run are alike. */
typedef struct hello {
    char magic[8];
    uint64_t token;
    uint32_t rank, processes;
} hello;

/* Before every message. */
typedef struct header {
    uint32_t kind, sequence;
    uint64_t bytes;
} header;

enum { WELCOME = 1, UP, DOWN };
enum { MAX_STRANGERS = 64 };

struct moecal_rendezvous {
    int rank, processes;
    int *peer; /* rank 0: socket of each rank; else [0] leads to rank 0. -1: none */
    double call_s;
    uint32_t sequence;
    bool broken;
    char error[256];
};

static const char magic[8] = {'m', 'o', 'e', 'c', 'a', 'l', '-', '1'};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

__attribute__((format(printf, 3, 4))) static int fail(char *error, size_t size, const char *format,
                                                      ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, size, format, arguments);
    va_end(arguments);
    return -1;
}

/* --- sockets ---------------------------------------------------------------------------------- */

/* 0 when ready, -1 at the deadline. */
static int wait_for(int socket, short events, double deadline_s)
{
    for (;;) {
        double left_s = deadline_s - now_s();
        struct pollfd entry = {.fd = socket, .events = events};
        if (left_s <= 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        int ready = poll(&entry, 1, left_s > 3600 ? 3600000 : (int)(left_s * 1000) + 1);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return -1;
    }
}

static bool try_again(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static int send_all(int socket, const void *data, size_t bytes, double deadline_s)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL);
        if (sent > 0) {
            at += sent;
            bytes -= (size_t)sent;
        } else if (sent < 0 && !try_again()) {
            return -1;
        } else if (wait_for(socket, POLLOUT, deadline_s) != 0) {
            return -1;
        }
    }
    return 0;
}

static int receive_all(int socket, void *data, size_t bytes, double deadline_s)
{
    char *at = data;
    while (bytes > 0) {
        ssize_t received = recv(socket, at, bytes, 0);
        if (received > 0) {
            at += received;
            bytes -= (size_t)received;
        } else if (received == 0) {
            errno = ECONNRESET;
            return -1;
        } else if (!try_again() || wait_for(socket, POLLIN, deadline_s) != 0) {
            return -1;
        }
    }
    return 0;
}

static void make_ready(int socket)
{
    int on = 1;
    fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
    fcntl(socket, F_SETFD, FD_CLOEXEC);
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static struct addrinfo *resolve(const char *host, const char *port, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *found = NULL;
    return getaddrinfo(host, port, &hints, &found) == 0 ? found : NULL;
}

/* --- rank 0: who comes ------------------------------------------------------------------------ */

static int listen_at(const struct addrinfo *address)
{
    int on = 1, listener = socket(address->ai_family, SOCK_STREAM, 0);
    if (listener < 0)
        return -1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, address->ai_addr, address->ai_addrlen) != 0 || listen(listener, 1024) != 0) {
        int cause = errno;
        close(listener);
        errno = cause;
        return -1;
    }
    fcntl(listener, F_SETFL, O_NONBLOCK);
    fcntl(listener, F_SETFD, FD_CLOEXEC);
    return listener;
}

/* At the named address if it is this host's, else (a name that others use for us) at all of them. */
static int open_listener(const moecal_place *place)
{
    int listener = -1;
    for (int any = 0; any < 2 && listener < 0; any++) {
        struct addrinfo *found =
            resolve(any ? NULL : place->host, place->port, any ? AI_PASSIVE : 0);
        for (struct addrinfo *at = found; at && listener < 0; at = at->ai_next)
            listener = listen_at(at);
        if (found)
            freeaddrinfo(found);
        if (listener < 0 && errno == EADDRINUSE)
            break;
    }
    return listener;
}

/* A connection that has not yet said who it is. */
typedef struct stranger {
    int socket;
    size_t received;
    double deadline_s;
    hello said;
} stranger;

typedef struct party {
    moecal_rendezvous *rendezvous;
    const moecal_place *place;
    int listener, missing;
    stranger waiting[MAX_STRANGERS];
    int count;
} party;

static void drop(party *in, int index)
{
    in->waiting[index] = in->waiting[--in->count];
}

static void take_stranger(party *in)
{
    int socket = accept(in->listener, NULL, NULL);
    if (socket < 0)
        return;
    make_ready(socket);
    in->waiting[in->count++] = (stranger){.socket = socket, .deadline_s = now_s() + 10};
}

static bool is_one_of_us(const party *in, const hello *said)
{
    return memcmp(said->magic, magic, sizeof magic) == 0 && said->token == in->place->token &&
           said->processes == (uint32_t)in->place->processes && said->rank > 0 &&
           said->rank < said->processes && in->rendezvous->peer[said->rank] < 0;
}

/* Reads what has come of a hello; anything unsound is shown the door. */
static void hear(party *in, int index)
{
    stranger *from = &in->waiting[index];
    ssize_t received = recv(from->socket, (char *)&from->said + from->received,
                            sizeof from->said - from->received, 0);
    if (received < 0 && try_again())
        return;
    if (received > 0)
        from->received += (size_t)received;
    if (received > 0 && from->received < sizeof from->said)
        return;
    if (received > 0 && is_one_of_us(in, &from->said)) {
        in->rendezvous->peer[from->said.rank] = from->socket;
        in->missing--;
    } else {
        close(from->socket);
    }
    drop(in, index);
}

static void drop_late(party *in)
{
    for (int i = in->count - 1; i >= 0; i--)
        if (now_s() > in->waiting[i].deadline_s) {
            close(in->waiting[i].socket);
            drop(in, i);
        }
}

static void look_around(party *in)
{
    struct pollfd entry[MAX_STRANGERS + 1];
    int count = in->count;
    for (int i = 0; i < count; i++)
        entry[i] = (struct pollfd){.fd = in->waiting[i].socket, .events = POLLIN};
    entry[count] = (struct pollfd){.fd = in->listener, .events = POLLIN};
    if (poll(entry, (nfds_t)count + (count < MAX_STRANGERS), 100) > 0) {
        for (int i = count - 1; i >= 0; i--)
            if (entry[i].revents)
                hear(in, i);
        if (count < MAX_STRANGERS && entry[count].revents)
            take_stranger(in);
    }
    drop_late(in);
}

static int first_missing(const moecal_rendezvous *rendezvous)
{
    int rank = 1;
    while (rank < rendezvous->processes && rendezvous->peer[rank] >= 0)
        rank++;
    return rank;
}

static int welcome_all(moecal_rendezvous *rendezvous, double deadline_s)
{
    header message = {WELCOME, 0, 0};
    for (int rank = 1; rank < rendezvous->processes; rank++)
        if (send_all(rendezvous->peer[rank], &message, sizeof message, deadline_s) != 0)
            return -1;
    return 0;
}

static int gather_party(moecal_rendezvous *rendezvous, const moecal_place *place, double deadline_s,
                        char *error, size_t size)
{
    party in = {.rendezvous = rendezvous, .place = place, .missing = place->processes - 1};
    in.listener = open_listener(place);
    if (in.listener < 0)
        return fail(error, size, "rendezvous: cannot listen at %s:%s: %s", place->host, place->port,
                    strerror(errno));
    while (in.missing > 0 && now_s() < deadline_s)
        look_around(&in);
    close(in.listener);
    for (int i = 0; i < in.count; i++)
        close(in.waiting[i].socket);
    if (in.missing > 0)
        return fail(
            error, size, "rendezvous: %d of %d processes did not come to %s:%s (rank %d is one)",
            in.missing, place->processes, place->host, place->port, first_missing(rendezvous));
    if (welcome_all(rendezvous, deadline_s) != 0)
        return fail(error, size, "rendezvous: a process left before all had come");
    return 0;
}

/* --- the others ------------------------------------------------------------------------------- */

static int connect_to(const struct addrinfo *address, double deadline_s)
{
    int cause = 0, made = socket(address->ai_family, SOCK_STREAM, 0);
    socklen_t size = sizeof cause;
    if (made < 0)
        return -1;
    make_ready(made);
    if (connect(made, address->ai_addr, address->ai_addrlen) != 0) {
        if (errno != EINPROGRESS || wait_for(made, POLLOUT, deadline_s) != 0 ||
            getsockopt(made, SOL_SOCKET, SO_ERROR, &cause, &size) != 0 || cause) {
            close(made);
            errno = cause ? cause : errno;
            return -1;
        }
    }
    return made;
}

/* Connects, says hello and waits for the welcome; -1 where this was not our rank 0 (or it is not there yet). */
static int join_once(const moecal_place *place, double deadline_s)
{
    hello said = {.token = place->token,
                  .rank = (uint32_t)place->rank,
                  .processes = (uint32_t)place->processes};
    header answer = {0};
    struct addrinfo *found = resolve(place->host, place->port, 0);
    double attempt_s = now_s() + 10 < deadline_s ? now_s() + 10 : deadline_s;
    int made = -1;
    memcpy(said.magic, magic, sizeof magic);
    for (struct addrinfo *at = found; at && made < 0; at = at->ai_next)
        made = connect_to(at, attempt_s);
    if (found)
        freeaddrinfo(found);
    if (made < 0)
        return -1;
    if (send_all(made, &said, sizeof said, deadline_s) == 0 &&
        receive_all(made, &answer, sizeof answer, deadline_s) == 0 && answer.kind == WELCOME)
        return made;
    close(made);
    return -1;
}

static int join(moecal_rendezvous *rendezvous, const moecal_place *place, double deadline_s,
                char *error, size_t size)
{
    struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    while (now_s() < deadline_s) {
        rendezvous->peer[0] = join_once(place, deadline_s);
        if (rendezvous->peer[0] >= 0)
            return 0;
        nanosleep(&pause, NULL);
    }
    return fail(error, size, "rendezvous: rank 0 was not found at %s:%s (%s)", place->host,
                place->port, strerror(errno));
}

moecal_rendezvous *moecal_rendezvous_open(const moecal_place *place, double join_s, double call_s,
                                          char *error, size_t error_size)
{
    moecal_rendezvous *made = calloc(1, sizeof *made);
    int failed = -1;
    if (made)
        made->peer = malloc((size_t)place->processes * sizeof *made->peer);
    if (!made || !made->peer) {
        fail(error, error_size, "rendezvous: out of memory");
        free(made);
        return NULL;
    }
    made->rank = place->rank;
    made->processes = place->processes;
    made->call_s = call_s;
    for (int i = 0; i < place->processes; i++)
        made->peer[i] = -1;
    if (place->rank == 0)
        failed = gather_party(made, place, now_s() + join_s, error, error_size);
    else
        failed = join(made, place, now_s() + join_s, error, error_size);
    if (failed) {
        moecal_rendezvous_close(made);
        return NULL;
    }
    return made;
}

void moecal_rendezvous_close(moecal_rendezvous *rendezvous)
{
    if (!rendezvous)
        return;
    for (int i = 0; i < rendezvous->processes; i++)
        if (rendezvous->peer[i] >= 0)
            close(rendezvous->peer[i]);
    free(rendezvous->peer);
    free(rendezvous);
}

const char *moecal_rendezvous_error(const moecal_rendezvous *rendezvous)
{
    return rendezvous->error;
}

/* --- messages --------------------------------------------------------------------------------- */

static int break_off(moecal_rendezvous *rendezvous, int rank, const char *what)
{
    rendezvous->broken = true;
    return fail(rendezvous->error, sizeof rendezvous->error, "rendezvous: rank %d %s", rank, what);
}

static const char *cause_of(int error)
{
    if (error == ECONNRESET || error == EPIPE)
        return "is gone";
    return error == ETIMEDOUT ? "did not answer in time" : strerror(error);
}

static int send_to(moecal_rendezvous *rendezvous, int rank, uint32_t kind, const void *data,
                   size_t bytes, double deadline_s)
{
    header message = {kind, rendezvous->sequence, bytes};
    if (send_all(rendezvous->peer[rank], &message, sizeof message, deadline_s) != 0 ||
        send_all(rendezvous->peer[rank], data, bytes, deadline_s) != 0)
        return break_off(rendezvous, rank, cause_of(errno));
    return 0;
}

static int receive_from(moecal_rendezvous *rendezvous, int rank, uint32_t kind, void *data,
                        size_t bytes, double deadline_s)
{
    header message;
    if (receive_all(rendezvous->peer[rank], &message, sizeof message, deadline_s) != 0)
        return break_off(rendezvous, rank, cause_of(errno));
    if (message.kind != kind || message.sequence != rendezvous->sequence || message.bytes != bytes)
        return break_off(rendezvous, rank, "is out of step: not the same calls of the same sizes");
    if (receive_all(rendezvous->peer[rank], data, bytes, deadline_s) != 0)
        return break_off(rendezvous, rank, "stopped in the middle of a message");
    return 0;
}

/* The step that all calls share: everybody's bytes to rank 0. */
static int collect(moecal_rendezvous *rendezvous, const void *mine, void *all, size_t bytes,
                   double deadline_s)
{
    if (rendezvous->rank != 0)
        return send_to(rendezvous, 0, UP, mine, bytes, deadline_s);
    memcpy(all, mine, bytes);
    for (int rank = 1; rank < rendezvous->processes; rank++)
        if (receive_from(rendezvous, rank, UP, (char *)all + (size_t)rank * bytes, bytes,
                         deadline_s) != 0)
            return -1;
    return 0;
}

static int spread(moecal_rendezvous *rendezvous, void *data, size_t bytes, double deadline_s)
{
    if (rendezvous->rank != 0)
        return receive_from(rendezvous, 0, DOWN, data, bytes, deadline_s);
    for (int rank = 1; rank < rendezvous->processes; rank++)
        if (send_to(rendezvous, rank, DOWN, data, bytes, deadline_s) != 0)
            return -1;
    return 0;
}

static int begin(moecal_rendezvous *rendezvous, double *deadline_s)
{
    rendezvous->sequence++;
    *deadline_s = now_s() + rendezvous->call_s;
    return rendezvous->broken ? -1 : 0;
}

int moecal_rendezvous_gather(moecal_rendezvous *rendezvous, const void *mine, void *all,
                             size_t bytes)
{
    double deadline_s;
    if (begin(rendezvous, &deadline_s) != 0 ||
        collect(rendezvous, mine, all, bytes, deadline_s) != 0)
        return -1;
    return spread(rendezvous, all, bytes * (size_t)rendezvous->processes, deadline_s);
}

int moecal_rendezvous_share(moecal_rendezvous *rendezvous, void *data, size_t bytes)
{
    double deadline_s;
    if (begin(rendezvous, &deadline_s) != 0)
        return -1;
    return spread(rendezvous, data, bytes, deadline_s);
}

int moecal_rendezvous_max(moecal_rendezvous *rendezvous, double *values, int count)
{
    size_t bytes = (size_t)count * sizeof *values;
    double *all = malloc(bytes * (size_t)rendezvous->processes + 1);
    double deadline_s;
    int failed = !all || begin(rendezvous, &deadline_s) != 0 ||
                 collect(rendezvous, values, all, bytes, deadline_s) != 0;
    if (!failed && rendezvous->rank == 0)
        for (int i = count; i < count * rendezvous->processes; i++)
            if (isnan(all[i]) || all[i] > values[i % count])
                values[i % count] = all[i];
    failed = failed || spread(rendezvous, values, bytes, deadline_s) != 0;
    free(all);
    return failed ? -1 : 0;
}
