#include "sim/hardware.h"

#include "configs/base/memory.h"

#include <talloc.h>

struct moe_hardware {
    moe_speed *speed;
    void *analytic;
    moe_timeline *timeline;
    moe_program slowed;
    moe_diag *diag;
};

moe_hardware *moe_hardware_create(void *owner, const moe_binding *binding, moe_diag *diag)
{
    const moe_scenario *scenario = binding->scenario;
    if (scenario->stragglers.count == 0)
        return NULL;
    moe_hardware *hardware = moe_need(talloc_zero(owner, moe_hardware));
    hardware->diag = diag;
    hardware->speed = moe_speed_create(hardware, binding->cluster, &scenario->stragglers,
                                       (uint64_t)scenario->seed);
    hardware->timeline = moe_timeline_create(hardware, binding->cluster->devices);
    hardware->analytic = moe_engine_analytic.open(hardware, binding->cluster, NULL, diag);
    return hardware;
}

const moe_program *moe_hardware_program(moe_hardware *hardware, const moe_program *program,
                                        int64_t step)
{
    if (!hardware)
        return program;
    moe_speed_draw(hardware->speed, step, program->op_count);
    hardware->slowed = *program;
    hardware->slowed.speed = hardware->speed;
    return &hardware->slowed;
}

static double wait_s(moe_hardware *hardware, const moe_program *program)
{
    double parts[MOE_PARTS];
    moe_engine_analytic.execute(hardware->analytic, program, hardware->timeline, hardware->diag);
    moe_timeline_exposed(program, hardware->timeline, parts);
    return parts[MOE_WAIT];
}

double moe_hardware_wait_s(moe_hardware *hardware)
{
    if (!hardware)
        return 0;
    moe_program nominal = hardware->slowed;
    nominal.speed = NULL;
    return wait_s(hardware, &hardware->slowed) - wait_s(hardware, &nominal);
}
