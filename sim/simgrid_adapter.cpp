#include "sim/simgrid_adapter.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/kernel/resource/Action.hpp>
#include <simgrid/kernel/resource/Model.hpp>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>

namespace sg = simgrid::s4u;
using simgrid::kernel::resource::Action;
using simgrid::kernel::resource::Model;

namespace
{

/* A load under way. SimGrid still uses the activity after its completion callback, so the reference
 * is kept until a later callback. */
struct Load {
    sg::ActivityPtr activity;
    Action *action = nullptr;
    double amount = 0;
    int place = 0;
    int token = 0;
};

struct Port {
    sg::Host *host = nullptr; /* PORTS */
    sg::Link *link = nullptr; /* PATHS */
    double rate = 0;
    double speed = 1;
    double backlog = 0; /* amounts of its pending loads, none of it counted done */
};

/* SimGrid takes dates that are closer than `surf/precision` for equal: it must exceed the rounding
 * of a growing clock, or an execution whose date is one rounding in the past is lost, and stay far
 * below the dates themselves. So it follows the latest date anything pending can have. */
constexpr double least_precision = 1e-15;
constexpr double roundings_per_date = 16;

/* Communications have whole sizes: they and the links' rates are counted in such parts of a byte. */
constexpr double parts_per_byte = 1 << 20;

} // namespace

struct moe_simgrid {
    moe_simgrid_callbacks callbacks{};
    void *context = nullptr;
    sg::Engine *engine = nullptr;
    Model *model = nullptr; /* of the loads */
    std::vector<Port> ports;
    std::vector<sg::Host *> paths;            /* PATHS: a host that sends to itself by that path */
    std::vector<std::vector<int>> path_ports; /* by place; PORTS: the port alone */
    std::deque<Load> loads;                   /* addresses are stable: activities point to theirs */
    std::vector<Load *> idle;
    Load *completed = nullptr; /* the last one, to be released */
    double horizon = 0;        /* dates up to here are safe under the precision in force */
    double longest = 0;        /* the longest backlog since nothing was pending, in s */
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

/* A load is done once all are that delay it: on each port of its path at most what the port has. */
void reach_loads(moe_simgrid &self, const std::vector<int> &ports)
{
    double sum = 0;
    for (int p : ports) {
        const double backlog = self.ports[p].backlog / (self.ports[p].rate * self.ports[p].speed);
        self.longest = std::max(self.longest, backlog);
        sum += ports.size() > 1 ? self.longest : backlog;
    }
    reach(self, sg::Engine::get_clock() + sum);
}

void release_completed(moe_simgrid &self)
{
    if (self.completed == nullptr)
        return;
    self.completed->activity = nullptr;
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
    for (int p : self.path_ports[load.place])
        self.ports[p].backlog -= load.amount;
    if (self.pending == 0)
        self.longest = 0;
    load.action = nullptr;
    self.callbacks.drained(self.context, load.token, sg::Engine::get_clock());
}

/* SimGrid's constructor takes over SIGINT and SIGSEGV for its own reports; ours stay in force. */
sg::Engine *create_engine(bool paths)
{
    static std::string arguments[] = {"moeplan",
                                      "--log=root.thres:critical",
                                      "--cfg=surf/precision:1e-15",
                                      "--cfg=network/model:CM02",
                                      "--cfg=network/crosstraffic:0",
                                      "--cfg=maxmin/precision:1e-12"};
    static char *argv[std::size(arguments) + 1] = {};
    static int argc = paths ? std::size(arguments) : 3;
    for (int i = 0; i < argc; i++)
        argv[i] = arguments[i].data();
    struct sigaction interrupt, fault;
    sigaction(SIGINT, nullptr, &interrupt);
    sigaction(SIGSEGV, nullptr, &fault);
    auto *engine = new sg::Engine(&argc, argv); /* ends with the process */
    sigaction(SIGINT, &interrupt, nullptr);
    sigaction(SIGSEGV, &fault, nullptr);
    return engine;
}

void create_ports(moe_simgrid &self, const moe_simgrid_platform &platform)
{
    sg::NetZone *zone = sg::create_empty_zone("ports");
    for (int i = 0; i < platform.port_count; i++) {
        const double rate = platform.rates_bytes_per_s[i];
        self.ports[i].host = zone->create_host("port" + std::to_string(i), rate);
        self.path_ports.push_back({i});
    }
    zone->seal();
}

/* A path is a host's way to itself: so its cost does not grow with the square of the hosts. */
void create_paths(moe_simgrid &self, const moe_simgrid_platform &platform)
{
    sg::NetZone *zone = sg::create_star_zone("paths");
    for (int i = 0; i < platform.port_count; i++) {
        const double rate = platform.rates_bytes_per_s[i] * parts_per_byte;
        self.ports[i].link = zone->create_link("port" + std::to_string(i), rate);
        self.ports[i].link->set_latency(0)->seal();
    }
    for (int p = 0; p < platform.path_count; p++) {
        sg::Host *host = zone->create_host("path" + std::to_string(p), 1.0);
        self.path_ports.emplace_back(platform.ports + platform.first[p],
                                     platform.ports + platform.first[p + 1]);
        std::vector<sg::LinkInRoute> route;
        for (int port : self.path_ports.back())
            route.emplace_back(self.ports[port].link);
        zone->add_route(host->get_netpoint(), host->get_netpoint(), nullptr, nullptr, route, false);
        self.paths.push_back(host);
    }
    zone->seal();
}

Model *find_model(const moe_simgrid &self, const char *name)
{
    for (Model *model : self.engine->get_all_models())
        if (model->get_name() == name)
            return model;
    return nullptr;
}

moe_simgrid *open(const moe_simgrid_platform *platform, moe_simgrid_callbacks callbacks,
                  void *context)
{
    if (the_only != nullptr)
        return nullptr;
    const bool paths = platform->model == MOE_SIMGRID_PATHS;
    the_only = new moe_simgrid;
    the_only->callbacks = callbacks;
    the_only->context = context;
    the_only->engine = create_engine(paths);
    the_only->ports.resize(platform->port_count);
    for (int i = 0; i < platform->port_count; i++)
        the_only->ports[i].rate = platform->rates_bytes_per_s[i];
    if (paths)
        create_paths(*the_only, *platform);
    else
        create_ports(*the_only, *platform);
    the_only->model = find_model(*the_only, paths ? "Network_CM02" : "Cpu_Cas01");
    sg::Activity::on_completion_cb(on_completion);
    return the_only->model != nullptr ? the_only : nullptr;
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

/* SimGrid keeps started actions in their order: the newest is the activity's. */
Action *newest(const moe_simgrid &self)
{
    return &self.model->get_started_action_set()->back();
}

void execute(moe_simgrid &self, Load &load, double weight)
{
    const Port &port = self.ports[load.place];
    sg::ExecPtr exec = sg::Exec::init();
    exec->set_data(&load);
    exec->set_flops_amount(load.amount)->set_priority(weight)->set_host(port.host);
    load.activity = exec;
    exec->start();
    load.action = newest(self);
    if (port.speed != 1)
        load.action->set_rate_factor(port.speed);
}

/* CM02 has no weights of its own; but the sharing penalty of an action is 1 / weight. */
void communicate(moe_simgrid &self, Load &load, double weight)
{
    sg::Host *host = self.paths[load.place];
    sg::CommPtr comm = sg::Comm::sendto_init(host, host);
    comm->set_data(&load);
    comm->set_payload_size(std::max<uint64_t>(1, std::llround(load.amount * parts_per_byte)));
    load.activity = comm;
    comm->start();
    load.action = newest(self);
    if (weight != 1)
        load.action->set_sharing_penalty(1 / weight);
}

void load(moe_simgrid *self, int place, double amount, double weight, int token)
{
    Load &load = take(*self);
    load.place = place;
    load.token = token;
    load.amount = amount;
    for (int p : self->path_ports[place])
        self->ports[p].backlog += amount;
    reach_loads(*self, self->path_ports[place]);
    self->pending++;
    if (self->paths.empty())
        execute(*self, load, weight);
    else
        communicate(*self, load, weight);
}

/* An action takes note of its factor when its share is computed anew: so its penalty is touched. */
void set_factor(const moe_simgrid &self, Load &load, double factor)
{
    if (load.action == nullptr ||
        load.action->get_state_set() != self.model->get_started_action_set())
        return;
    const double penalty = load.action->get_sharing_penalty();
    load.action->set_rate_factor(factor);
    load.action->set_sharing_penalty(2 * penalty);
    load.action->set_sharing_penalty(penalty);
}

void set_speed(moe_simgrid *self, int port, double factor)
{
    Port &changed = self->ports[port];
    if (changed.speed == factor)
        return;
    changed.speed = factor;
    reach_loads(*self, {port});
    if (changed.link != nullptr) {
        changed.link->set_bandwidth(changed.rate * parts_per_byte * factor);
        return;
    }
    for (Load &load : self->loads)
        if (load.place == port)
            set_factor(*self, load, factor);
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
    static const moe_simgrid_interface interface = {version.c_str(), open, load, set_speed,
                                                    alarm_at,        now,  run};
    return &interface;
}
