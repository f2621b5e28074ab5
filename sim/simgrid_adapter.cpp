#include "sim/simgrid_adapter.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>

namespace sg = simgrid::s4u;

namespace
{

/* A load under way. SimGrid still uses the execution after its completion callback, so the
 * reference is kept until a later callback. */
struct Load {
    sg::ExecPtr exec;
    int port = 0;
    int token = 0;
};

/* SimGrid takes dates that are closer than `surf/precision` for equal: it must exceed the rounding
 * of a growing clock, or an execution whose date is one rounding in the past is lost, and stay far
 * below the dates themselves. So it follows the latest date anything pending can have. */
constexpr double least_precision = 1e-15;
constexpr double roundings_per_date = 16;

} // namespace

struct moe_simgrid {
    moe_simgrid_callbacks callbacks{};
    void *context = nullptr;
    sg::Engine *engine = nullptr;
    std::vector<sg::Host *> ports;
    std::vector<double> rates;
    std::vector<double>
        backlog;            /* per port: amounts of its pending loads, none of it counted done */
    std::deque<Load> loads; /* addresses are stable: executions point to theirs */
    std::vector<Load *> idle;
    Load *completed = nullptr; /* the last one, to be released */
    double horizon = 0;        /* dates up to here are safe under the precision in force */
    long pending = 0;          /* loads and alarms */
};

namespace
{

moe_simgrid *the_only = nullptr;

void reach(moe_simgrid &self, double date)
{
    if (date <= self.horizon)
        return;
    self.horizon = 2 * date;
    const double rounding = std::numeric_limits<double>::epsilon() * self.horizon;
    sg::Engine::set_config("surf/precision",
                           std::max(least_precision, roundings_per_date * rounding));
}

void release_completed(moe_simgrid &self)
{
    if (self.completed == nullptr)
        return;
    self.completed->exec = nullptr;
    self.idle.push_back(self.completed);
    self.completed = nullptr;
}

void on_completion(const sg::Activity &activity)
{
    moe_simgrid &self = *the_only;
    release_completed(self);
    Load &load = *activity.get_data<Load>();
    self.completed = &load;
    self.pending--;
    self.backlog[load.port] -= load.exec->get_cost();
    self.callbacks.drained(self.context, load.token, sg::Engine::get_clock());
}

/* SimGrid's constructor takes over SIGINT and SIGSEGV for its own reports; ours stay in force. */
sg::Engine *create_engine()
{
    static std::string arguments[] = {"moeplan", "--log=root.thres:critical",
                                      "--cfg=surf/precision:1e-15"};
    static char *argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), nullptr};
    static int argc = 3;
    struct sigaction interrupt, fault;
    sigaction(SIGINT, nullptr, &interrupt);
    sigaction(SIGSEGV, nullptr, &fault);
    auto *engine = new sg::Engine(&argc, argv); /* ends with the process */
    sigaction(SIGINT, &interrupt, nullptr);
    sigaction(SIGSEGV, &fault, nullptr);
    return engine;
}

void create_ports(moe_simgrid &self, int port_count, const double *rates)
{
    sg::NetZone *zone = sg::create_empty_zone("ports");
    for (int i = 0; i < port_count; i++)
        self.ports.push_back(zone->create_host("port" + std::to_string(i), rates[i]));
    zone->seal();
    self.rates.assign(rates, rates + port_count);
    self.backlog.assign(port_count, 0);
}

moe_simgrid *open(int port_count, const double *rates, moe_simgrid_callbacks callbacks,
                  void *context)
{
    if (the_only != nullptr)
        return nullptr;
    the_only = new moe_simgrid;
    the_only->callbacks = callbacks;
    the_only->context = context;
    the_only->engine = create_engine();
    create_ports(*the_only, port_count, rates);
    sg::Activity::on_completion_cb(on_completion);
    return the_only;
}

Load &take(moe_simgrid &self)
{
    if (self.idle.empty()) {
        self.loads.emplace_back();
        return self.loads.back();
    }
    Load &load = *self.idle.back();
    self.idle.pop_back();
    return load;
}

void load(moe_simgrid *self, int port, double amount, double weight, int token)
{
    /* The port never idles while it has work: its loads are all done when its backlog is. */
    self->backlog[port] += amount;
    reach(*self, sg::Engine::get_clock() + self->backlog[port] / self->rates[port]);
    Load &load = take(*self);
    load.port = port;
    load.token = token;
    load.exec = sg::Exec::init();
    load.exec->set_data(&load);
    load.exec->set_flops_amount(amount)->set_priority(weight)->set_host(self->ports[port]);
    self->pending++;
    load.exec->start();
}

void alarm_at(moe_simgrid *self, double date)
{
    reach(*self, date);
    self->pending++;
    /* A timer at date 0 means "no timer" to SimGrid's main loop. */
    const double positive = std::max(date, std::numeric_limits<double>::min());
    simgrid::kernel::timer::Timer::set(positive, [self] {
        self->pending--;
        self->callbacks.alarm(self->context, sg::Engine::get_clock());
    });
}

double now(const moe_simgrid *)
{
    return sg::Engine::get_clock();
}

int run(moe_simgrid *self)
{
    try {
        self->engine->run();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "moeplan: SimGrid: %s\n", error.what());
        return -1;
    }
    return self->pending == 0 ? 0 : -1;
}

std::string version_text()
{
    int major = 0, minor = 0, patch = 0;
    sg_version_get(&major, &minor, &patch);
    return "SimGrid " + std::to_string(major) + "." + std::to_string(minor) +
           (patch == 0 ? "" : "." + std::to_string(patch));
}

} // namespace

extern "C" __attribute__((visibility("default"))) const moe_simgrid_interface *moe_simgrid_get()
{
    static const std::string version = version_text();
    static const moe_simgrid_interface interface = {version.c_str(), open, load,
                                                    alarm_at,        now,  run};
    return &interface;
}
